"""RE2's syntax, read by recursive descent into a tree: what the automata of expressions are made of.

Of the syntax these are refused: `\\b`, `\\B`, `\\C`, Unicode classes (`\\pL`), and `^` or `$` where they could
only ever fail. What RE2 refuses, because it needs backtracking (`\\1`, `(?=`), is refused here too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from upwell.functions.errors import InvalidInput

MOST_POSITIONS: Final = 500
"""Characters that an expression may name, repetitions written out: bounds the work for one character of a text."""
_LONGEST = 4096
_DEEPEST = 50
_MOST_REPETITIONS = 1000
_LAST = 0x10FFFF

_REPETITION = re.compile(r"\{(\d+)(,(\d*))?\}")
_GROUP = re.compile(r"\?(?:P?<(\w+)>|([imsU]*)(?:-([imsU]+))?([:)]))")
_POSIX = re.compile(r"\[:(\^?)(\w+):\]")
_HEXADECIMAL = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")

Ranges = tuple[tuple[int, int], ...]

_DIGITS: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
_PERL: dict[str, Ranges] = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_NAMED: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": _DIGITS,
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": _WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_CONTROL = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def _complement(ranges: Ranges) -> Ranges:
    gaps = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            gaps.append((start, low - 1))
        start = max(start, high + 1)
    return (*gaps, (start, _LAST)) if start <= _LAST else tuple(gaps)


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of some."""

    ranges: Ranges
    negated: bool = False
    folded: bool = False
    """Capitals and small letters are the same."""

    def holds(self, character: str) -> bool:
        variants = {character, character.lower(), character.upper()} if self.folded else {character}
        codes = [ord(variant) for variant in variants if len(variant) == 1]
        return any(low <= code <= high for low, high in self.ranges for code in codes) != self.negated


@dataclass(frozen=True, slots=True)
class Anchor:
    """Nothing, at the start or at the end."""

    at_start: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options, the first where it matters."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part so many times; None is any number."""

    part: Node
    least: int
    most: int | None
    lazy: bool = False
    """Whether fewer times are tried first, where it matters."""


@dataclass(frozen=True, slots=True)
class Group:
    """A part whose text can be referred to."""

    part: Node
    index: int
    """From 1, by the opening parentheses."""


Node = Characters | Anchor | Sequence | Choice | Repeat | Group


class _Flags(NamedTuple):
    folded: bool = False
    dot_is_all: bool = False


class _Parser:
    """RE2's grammar by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._groups = 0

    def parse(self) -> Node:
        node = self._choice(_Flags())
        if self._at < len(self._pattern):
            raise InvalidInput("a ')' closes nothing")
        return node

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _choice(self, flags: _Flags) -> Node:
        options, parts = [], list[Node]()
        while (character := self._peek()) not in ("", ")"):
            if character == "|":
                self._at += 1
                options.append(Sequence(tuple(parts)))
                parts = []
            elif found := self._takes(_GROUP, "("):
                flags = self._group(found, flags, parts)
            elif self._pattern.startswith("\\Q", self._at):
                *before, last = [*self._quoted(flags)] or [Sequence(())]
                parts += [*before, self._repeated(last)]
            else:
                parts.append(self._repeated(self._atom(flags)))
        return Choice((*options, Sequence(tuple(parts)))) if options else Sequence(tuple(parts))

    def _takes(self, expression: re.Pattern[str], opening: str) -> re.Match[str] | None:
        """The special form that begins after `opening` here, if one does; it is passed."""
        if self._peek() != opening:
            return None
        found = expression.match(self._pattern, self._at + 1)
        if found:
            self._at = found.end()
        return found

    def _group(self, found: re.Match[str], flags: _Flags, parts: list[Node]) -> _Flags:
        """`(?P<name>...)`, `(?i:...)` as one more part, or `(?i)`; returns the flags for what follows."""
        name, on, off, end = found.groups()
        if name is not None:
            parts.append(self._repeated(self._captured(flags)))
            return flags
        inner = _Flags(
            (flags.folded or "i" in on) and "i" not in (off or ""),
            (flags.dot_is_all or "s" in on) and "s" not in (off or ""),
        )
        if end == ")":
            return inner
        parts.append(self._repeated(self._inside(inner)))
        return flags

    def _captured(self, flags: _Flags) -> Node:
        self._groups += 1
        index = self._groups
        return Group(self._inside(flags), index)

    def _inside(self, flags: _Flags) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InvalidInput(f"groups stand more than {_DEEPEST} deep in each other")
        node = self._choice(flags)
        if self._next() != ")":
            raise InvalidInput("a '(' is not closed")
        self._depth -= 1
        return node

    def _atom(self, flags: _Flags) -> Node:
        character = self._next()
        match character:
            case "(":
                if self._peek() == "?":
                    raise InvalidInput(f"{self._pattern[self._at - 1 : self._at + 3]!r} is not in RE2's syntax")
                return self._captured(flags)
            case "[":
                return self._class(flags)
            case ".":
                return Characters(() if flags.dot_is_all else ((10, 10),), negated=True)
            case "^" | "$":
                return Anchor(at_start=character == "^")
            case "*" | "+" | "?":
                raise InvalidInput(f"there is nothing that {character!r} could repeat")
            case "\\":
                return self._escape(flags)
        return Characters(((ord(character), ord(character)),), folded=flags.folded)

    def _repeated(self, node: Node) -> Node:
        bounds = self._repetition()
        if bounds is None:
            return node
        lazy = self._peek() == "?"
        self._at += lazy
        if self._repetition() is not None:
            raise InvalidInput("a repetition is repeated: put the first one in parentheses")
        least, most = bounds
        if max(least, most or 0) > _MOST_REPETITIONS or (most is not None and most < least):
            raise InvalidInput(f"a repetition must be within 0 to {_MOST_REPETITIONS}, the smaller number first")
        return Repeat(node, least, most, lazy)

    def _repetition(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if bounds := simple.get(self._peek()):
            self._at += 1
            return bounds
        found = _REPETITION.match(self._pattern, self._at)
        if found is None:
            return None
        self._at = found.end()
        least = int(found[1])
        if found[2] is None:
            return least, least
        return least, int(found[3]) if found[3] else None

    def _escape(self, flags: _Flags) -> Node:
        character = self._peek()
        if character in ("A", "z"):
            self._at += 1
            return Anchor(at_start=character == "A")
        ranges = self._escaped_ranges()
        return Characters(ranges, folded=flags.folded)

    def _quoted(self, flags: _Flags) -> list[Node]:
        """The characters between `\\Q` and `\\E`, or the end."""
        text, closing, _ = self._pattern[self._at + 2 :].partition("\\E")
        self._at += 2 + len(text) + len(closing)
        return [Characters(((ord(each), ord(each)),), folded=flags.folded) for each in text]

    def _escaped_ranges(self) -> Ranges:
        """What stands after a backslash, in a class or outside."""
        if found := _HEXADECIMAL.match(self._pattern, self._at):
            self._at = found.end()
            code = int(found[1] or found[2], 16)
            if code > _LAST:
                raise InvalidInput(f"\\x{{{code:X}}} is no character")
            return ((code, code),)
        character = self._next()
        if character.lower() in _PERL:
            ranges = _PERL[character.lower()]
            return ranges if character.islower() else _complement(ranges)
        if character in _CONTROL:
            return ((_CONTROL[character], _CONTROL[character]),)
        if not character or character.isalnum() or ord(character) > 127:
            raise InvalidInput(f"'\\{character}' cannot be used here")
        return ((ord(character), ord(character)),)

    def _class(self, flags: _Flags) -> Node:
        negated = self._peek() == "^"
        self._at += negated
        ranges = list[tuple[int, int]]()
        first = True
        while first or self._peek() != "]":
            first = False
            ranges += self._member()
        self._at += 1
        return Characters(tuple(ranges), negated, flags.folded)

    def _member(self) -> Ranges:
        if found := _POSIX.match(self._pattern, self._at):
            if found[2] not in _NAMED:
                raise InvalidInput(f"there is no class {found[0]!r}")
            self._at = found.end()
            return _complement(_NAMED[found[2]]) if found[1] else _NAMED[found[2]]
        low = self._end_of_range()
        if self._peek() != "-" or self._pattern[self._at + 1 : self._at + 2] in ("]", ""):
            return low
        self._at += 1
        high = self._end_of_range()
        single = low[0][0] == low[-1][1] and high[0][0] == high[-1][1]
        if not single or high[0][0] < low[0][0]:
            raise InvalidInput("a range in a class must go from one character up to another")
        return ((low[0][0], high[0][0]),)

    def _end_of_range(self) -> Ranges:
        character = self._next()
        if not character:
            raise InvalidInput("a '[' is not closed")
        return self._escaped_ranges() if character == "\\" else ((ord(character), ord(character)),)


def parse(pattern: str) -> Node:
    """An expression in RE2's syntax. Raises InvalidInput for what is none, or too large."""
    if len(pattern) > _LONGEST:
        raise InvalidInput(f"an expression may have {_LONGEST} characters, not {len(pattern)}")
    node = _Parser(pattern).parse()
    if (length := size(node)) > MOST_POSITIONS:
        raise InvalidInput(f"an expression may name {MOST_POSITIONS} characters with repetitions, not {length}")
    check_anchors(node, True, True)
    return node


def size(node: Node) -> int:
    """Characters that it names, repetitions written out; what names none and is repeated counts too."""
    match node:
        case Characters():
            return 1
        case Anchor():
            return 0
        case Sequence(parts) | Choice(parts):
            return sum(size(part) for part in parts)
        case Repeat(part, least, most):
            return max(1, size(part)) * max(1, least if most is None else most)
        case Group(part):
            return size(part)


def check_anchors(node: Node, at_start: bool, at_end: bool) -> None:
    """Refuse an anchor where something may stand before (or after) it: there it could only fail."""
    match node:
        case Anchor(wants_start):
            if not (at_start if wants_start else at_end):
                raise InvalidInput("'^' may stand only at the start and '$' only at the end")
        case Choice(options):
            for option in options:
                check_anchors(option, at_start, at_end)
        case Repeat(part):
            check_anchors(part, False, False)
        case Group(part):
            check_anchors(part, at_start, at_end)
        case Sequence(parts):
            bare = [size(part) == 0 for part in parts]
            for index, part in enumerate(parts):
                starts, ends = all(bare[:index]), all(bare[index + 1 :])
                check_anchors(part, at_start and starts, at_end and ends)

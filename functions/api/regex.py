"""Regular expressions of policies: RE2's syntax, always the whole text, in time that is linear in the text.

A policy's expression meets whatever a client sends, so it may not backtrack. An expression becomes Glushkov's
position automaton (V. M. Glushkov, 1961): one position for each character it names, a set of positions (the bits
of an integer) as the state. States that a text leads to are kept, which makes an automaton without choices of them
as they are met; what is kept is bounded. A character costs one look-up, at worst a step over all positions.

Since the whole text must match, greed makes no difference and groups remember nothing. Of RE2's syntax these are
refused: `\\b`, `\\B`, `\\C`, Unicode classes (`\\pL`), and `^` or `$` where they could only ever fail. What RE2
refuses, because it needs backtracking (`\\1`, `(?=`), is refused here too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from upwell.functions.errors import InvalidInput

MOST_POSITIONS: Final = 500
"""Characters that an expression may name, repetitions written out: bounds the work for one character of a text."""
MOST_KEPT: Final = 10_000
"""Steps from state to state that one expression keeps."""
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
class _Characters:
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
class _Anchor:
    """Nothing, at the start or at the end."""

    at_start: bool


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _Characters | _Anchor | _Sequence | _Choice | _Repeat


class _Flags(NamedTuple):
    folded: bool = False
    dot_is_all: bool = False


class _Parser:
    """RE2's grammar by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def parse(self) -> _Node:
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

    def _choice(self, flags: _Flags) -> _Node:
        options, parts = [], list[_Node]()
        while (character := self._peek()) not in ("", ")"):
            if character == "|":
                self._at += 1
                options.append(_Sequence(tuple(parts)))
                parts = []
            elif found := self._takes(_GROUP, "("):
                flags = self._group(found, flags, parts)
            elif self._pattern.startswith("\\Q", self._at):
                *before, last = [*self._quoted(flags)] or [_Sequence(())]
                parts += [*before, self._repeated(last)]
            else:
                parts.append(self._repeated(self._atom(flags)))
        return _Choice((*options, _Sequence(tuple(parts)))) if options else _Sequence(tuple(parts))

    def _takes(self, expression: re.Pattern[str], opening: str) -> re.Match[str] | None:
        """The special form that begins after `opening` here, if one does; it is passed."""
        if self._peek() != opening:
            return None
        found = expression.match(self._pattern, self._at + 1)
        if found:
            self._at = found.end()
        return found

    def _group(self, found: re.Match[str], flags: _Flags, parts: list[_Node]) -> _Flags:
        """`(?P<name>...)`, `(?i:...)` as one more part, or `(?i)`; returns the flags for what follows."""
        name, on, off, end = found.groups()
        if name is not None:
            parts.append(self._repeated(self._inside(flags)))
            return flags
        inner = _Flags(
            (flags.folded or "i" in on) and "i" not in (off or ""),
            (flags.dot_is_all or "s" in on) and "s" not in (off or ""),
        )
        if end == ")":
            return inner
        parts.append(self._repeated(self._inside(inner)))
        return flags

    def _inside(self, flags: _Flags) -> _Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InvalidInput(f"groups stand more than {_DEEPEST} deep in each other")
        node = self._choice(flags)
        if self._next() != ")":
            raise InvalidInput("a '(' is not closed")
        self._depth -= 1
        return node

    def _atom(self, flags: _Flags) -> _Node:
        character = self._next()
        match character:
            case "(":
                if self._peek() == "?":
                    raise InvalidInput(f"{self._pattern[self._at - 1 : self._at + 3]!r} is not in RE2's syntax")
                return self._inside(flags)
            case "[":
                return self._class(flags)
            case ".":
                return _Characters(() if flags.dot_is_all else ((10, 10),), negated=True)
            case "^" | "$":
                return _Anchor(at_start=character == "^")
            case "*" | "+" | "?":
                raise InvalidInput(f"there is nothing that {character!r} could repeat")
            case "\\":
                return self._escape(flags)
        return _Characters(((ord(character), ord(character)),), folded=flags.folded)

    def _repeated(self, node: _Node) -> _Node:
        bounds = self._repetition()
        if bounds is None:
            return node
        if self._peek() == "?":
            self._at += 1
        if self._repetition() is not None:
            raise InvalidInput("a repetition is repeated: put the first one in parentheses")
        least, most = bounds
        if max(least, most or 0) > _MOST_REPETITIONS or (most is not None and most < least):
            raise InvalidInput(f"a repetition must be within 0 to {_MOST_REPETITIONS}, the smaller number first")
        return _Repeat(node, least, most)

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

    def _escape(self, flags: _Flags) -> _Node:
        character = self._peek()
        if character in ("A", "z"):
            self._at += 1
            return _Anchor(at_start=character == "A")
        ranges = self._escaped_ranges()
        return _Characters(ranges, folded=flags.folded)

    def _quoted(self, flags: _Flags) -> list[_Node]:
        """The characters between `\\Q` and `\\E`, or the end."""
        text, closing, _ = self._pattern[self._at + 2 :].partition("\\E")
        self._at += 2 + len(text) + len(closing)
        return [_Characters(((ord(each), ord(each)),), folded=flags.folded) for each in text]

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

    def _class(self, flags: _Flags) -> _Node:
        negated = self._peek() == "^"
        self._at += negated
        ranges = list[tuple[int, int]]()
        first = True
        while first or self._peek() != "]":
            first = False
            ranges += self._member()
        self._at += 1
        return _Characters(tuple(ranges), negated, flags.folded)

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


def _size(node: _Node) -> int:
    """Positions that a node will have."""
    match node:
        case _Characters():
            return 1
        case _Anchor():
            return 0
        case _Sequence(parts) | _Choice(parts):
            return sum(_size(part) for part in parts)
        case _Repeat(part, least, most):
            return _size(part) * max(1, least if most is None else most)


def _check_anchors(node: _Node, at_start: bool, at_end: bool) -> None:
    """Refuse an anchor where something may stand before (or after) it: there it could only fail."""
    match node:
        case _Anchor(wants_start):
            if not (at_start if wants_start else at_end):
                raise InvalidInput("'^' may stand only at the start and '$' only at the end")
        case _Choice(options):
            for option in options:
                _check_anchors(option, at_start, at_end)
        case _Repeat(part, _, _):
            _check_anchors(part, False, False)
        case _Sequence(parts):
            bare = [_size(part) == 0 for part in parts]
            for index, part in enumerate(parts):
                starts, ends = all(bare[:index]), all(bare[index + 1 :])
                _check_anchors(part, at_start and starts, at_end and ends)


class _Fragment(NamedTuple):
    """A part of the automaton: whether it matches nothing at all, where it may begin and where it may end."""

    empty: bool
    first: int
    last: int


_NOTHING = _Fragment(True, 0, 0)


class _Builder:
    """Gives each character of an expression its position."""

    def __init__(self) -> None:
        self.characters: dict[_Characters, int] = {}
        """The positions of each."""
        self.follow: list[int] = []
        """For each position, those that may come after it."""

    def build(self, node: _Node) -> _Fragment:
        match node:
            case _Anchor():
                return _NOTHING
            case _Characters():
                bit = 1 << len(self.follow)
                self.follow.append(0)
                self.characters[node] = self.characters.get(node, 0) | bit
                return _Fragment(False, bit, bit)
            case _Sequence(parts):
                whole = _NOTHING
                for part in parts:
                    whole = self._joined(whole, self.build(part))
                return whole
            case _Choice(options):
                built = [self.build(option) for option in options]
                whole = built[0]
                for each in built[1:]:
                    whole = _Fragment(whole.empty or each.empty, whole.first | each.first, whole.last | each.last)
                return whole
            case _Repeat():
                return self._repeat(node)

    def _repeat(self, node: _Repeat) -> _Fragment:
        whole = _NOTHING
        copies = max(1, node.least) if node.most is None else node.most
        for index in range(copies):
            part = self.build(node.part)
            if node.most is None and index == copies - 1:
                self._link(part.last, part.first)
            if index >= node.least:
                part = part._replace(empty=True)
            whole = self._joined(whole, part)
        return whole

    def _joined(self, left: _Fragment, right: _Fragment) -> _Fragment:
        self._link(left.last, right.first)
        first = left.first | (right.first if left.empty else 0)
        last = right.last | (left.last if right.empty else 0)
        return _Fragment(left.empty and right.empty, first, last)

    def _link(self, last: int, first: int) -> None:
        while last:
            bit = last & -last
            self.follow[bit.bit_length() - 1] |= first
            last ^= bit


class _State:
    """A set of positions that a text may have come to, and where each character leads from there."""

    __slots__ = ("accepts", "leads", "positions")

    def __init__(self, positions: int, accepts: bool) -> None:
        self.positions = positions
        self.accepts = accepts
        self.leads: dict[str, _State] = {}


class Regex:
    """An expression that matches whole texts. Raises InvalidInput when it is none of those taken."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _LONGEST:
            raise InvalidInput(f"an expression may have {_LONGEST} characters, not {len(pattern)}")
        node = _Parser(pattern).parse()
        if (size := _size(node)) > MOST_POSITIONS:
            raise InvalidInput(f"an expression may name {MOST_POSITIONS} characters with repetitions, not {size}")
        _check_anchors(node, True, True)
        builder = _Builder()
        whole = builder.build(node)
        self.pattern = pattern
        self._characters = builder.characters
        self._follow = builder.follow
        self._length = (len(builder.follow) + 7) // 8
        self._first = whole.first
        self._last = whole.last
        self._start = _State(0, whole.empty)
        self._dead = _State(0, False)
        self.kept = 0
        self._states: dict[int, _State] = {}
        self._places: dict[str, int] = {}
        self._reached: dict[int, int] = {}

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` is one that the expression describes."""
        state = self._start
        dead = self._dead
        for character in text:
            state = state.leads.get(character) or self._lead(state, character)
            if state is dead:
                return False
        return state.accepts

    def _lead(self, state: _State, character: str) -> _State:
        """Find where a character leads for the first time, and keep that."""
        if self.kept >= MOST_KEPT:
            self._forget()
        begun = self._first if state is self._start else self._follows(state.positions)
        positions = begun & self._places_of(character)
        known = self._states.get(positions) if positions else self._dead
        if known is None:
            known = self._states[positions] = _State(positions, bool(positions & self._last))
        state.leads[character] = known
        self.kept += 1
        return known

    def _forget(self) -> None:
        self._states.clear()
        self._places.clear()
        self._start.leads.clear()
        self.kept = 0

    def _places_of(self, character: str) -> int:
        """The positions that stand for this character."""
        places = self._places.get(character)
        if places is None:
            places = 0
            for characters, positions in self._characters.items():
                if characters.holds(character):
                    places |= positions
            self._places[character] = places
        return places

    def _follows(self, positions: int) -> int:
        """All that may come after any of the positions, eight of them at a time."""
        total = 0
        for index, byte in enumerate(positions.to_bytes(self._length, "little")):
            if byte:
                key = index << 8 | byte
                reached = self._reached.get(key)
                total |= self._reach(key) if reached is None else reached
        return total

    def _reach(self, key: int) -> int:
        index, byte = key >> 8, key & 255
        total = 0
        for bit in range(8):
            if byte >> bit & 1:
                total |= self._follow[index * 8 + bit]
        self._reached[key] = total
        return total

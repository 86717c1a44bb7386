"""Replacing the parts of a text that a regular expression matches, in bounded time: RE2's GlobalReplace.

All ways to match are followed side by side, one character after the other, in the order in which a backtracking
engine would try them (R. Pike's machine, after K. Thompson, 1968): of the matches that begin first, the one that
such an engine would find. A text costs its length times the expression's at most for one match; the steps for one
text are bounded, since many matches that each look ahead to its end would cost the square of it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from upwell.functions.api.regex_syntax import Anchor, Characters, Choice, Group, Node, Repeat, Sequence, parse
from upwell.functions.errors import InvalidInput

MOST_STEPS: Final = 100_000
"""For one text; what is left of it then stays as it is. Some 100 ms of work."""
MOST_KEPT: Final = 1000
"""Texts whose outcome an expression keeps: a path that was asked for is often asked for again."""
_LONGEST_KEPT: Final = 256
_REFERENCE = re.compile(r"\\(.?)", re.DOTALL)

Marks = tuple[int, ...]
"""Where groups begin and end, in pairs; group 0 is the whole; -1 is nowhere."""


class _Take(NamedTuple):
    """Go on after one of these characters."""

    characters: Characters
    known: dict[str, bool]


class _Split(NamedTuple):
    """Go on at both places, the first before the second."""

    first: int
    second: int


class _Mark(NamedTuple):
    """Note the place in the text."""

    number: int


class _Done(NamedTuple):
    """A match."""


_Instruction = _Take | _Split | _Mark | _Done | Anchor


class _Compiler:
    """Writes a tree out as instructions."""

    def __init__(self) -> None:
        self.program: list[_Instruction] = []
        self.groups = 0

    def compile(self, node: Node) -> None:
        match node:
            case Characters():
                self.program.append(_Take(node, {}))
            case Anchor():
                self.program.append(node)
            case Sequence(parts):
                for part in parts:
                    self.compile(part)
            case Choice(options):
                self._choice(options)
            case Group(part, index):
                self.groups = max(self.groups, index)
                self.program.append(_Mark(2 * index))
                self.compile(part)
                self.program.append(_Mark(2 * index + 1))
            case Repeat():
                self._repeat(node)

    def _choice(self, options: tuple[Node, ...]) -> None:
        ends = []
        for option in options[:-1]:
            split = self._reserve()
            self.compile(option)
            ends.append(self._reserve())
            self.program[split] = _Split(split + 1, len(self.program))
        self.compile(options[-1])
        for end in ends:
            self._jump(end)

    def _repeat(self, node: Repeat) -> None:
        for _ in range(node.least):
            self.compile(node.part)
        if node.most is None:
            split = self._reserve()
            self.compile(node.part)
            back = self._reserve()
            self.program[back] = _Split(split, split)
            self._set_split(split, node.lazy)
            return
        splits = []
        for _ in range(node.most - node.least):
            splits.append(self._reserve())
            self.compile(node.part)
        for split in splits:
            self._set_split(split, node.lazy)

    def _reserve(self) -> int:
        self.program.append(_Done())
        return len(self.program) - 1

    def _jump(self, place: int) -> None:
        self.program[place] = _Split(len(self.program), len(self.program))

    def _set_split(self, place: int, lazy: bool) -> None:
        inside, after = place + 1, len(self.program)
        self.program[place] = _Split(after, inside) if lazy else _Split(inside, after)


class _Search:
    """The matches in one text."""

    def __init__(self, program: list[_Instruction], groups: int, text: str) -> None:
        self._program = program
        self._nowhere: Marks = (-1,) * (2 * groups + 2)
        self._text = text
        self.steps = 0

    def next(self, start: int) -> Marks | None:
        """The first match from `start` on; None when there is none, or no steps are left."""
        found: Marks | None = None
        threads: dict[int, Marks] = {}
        program, text = self._program, self._text
        for at in range(start, len(text) + 1):
            if found is None:
                self._add(threads, 0, self._nowhere, at)
            elif not threads:
                break
            character = text[at : at + 1]
            following: dict[int, Marks] = {}
            for place, marks in threads.items():
                instruction = program[place]
                if type(instruction) is _Take:
                    if character and _holds(instruction, character):
                        self._add(following, place + 1, marks, at + 1)
                elif type(instruction) is _Done:
                    found = marks
                    break
            threads = following
            if self.steps > MOST_STEPS:
                return None
        return found

    def _add(self, threads: dict[int, Marks], place: int, marks: Marks, at: int) -> None:
        """Follow all that takes no character; of threads at one place the first stands."""
        waiting = [(place, marks)]
        while waiting:
            place, marks = waiting.pop()
            self.steps += 1
            if place in threads:
                continue
            threads[place] = marks
            instruction = self._program[place]
            if type(instruction) is _Split:
                waiting += ((instruction.second, marks), (instruction.first, marks))
            elif type(instruction) is _Mark:
                number = instruction.number
                waiting.append((place + 1, (*marks[:number], at, *marks[number + 1 :])))
            elif type(instruction) is Anchor and at == (0 if instruction.at_start else len(self._text)):
                waiting.append((place + 1, marks))


def _holds(take: _Take, character: str) -> bool:
    known = take.known.get(character)
    if known is None:
        known = take.characters.holds(character)
        if len(take.known) < 256:
            take.known[character] = known
    return known


class Replacer:
    """Replaces each part that `pattern` matches by `rewrite`, in which `\\1` is what the first group matched.

    Raises InvalidInput when one of them is not taken.
    """

    def __init__(self, pattern: str, rewrite: str) -> None:
        compiler = _Compiler()
        compiler.compile(Group(parse(pattern), 0))
        compiler.program.append(_Done())
        self._program = compiler.program
        self._groups = compiler.groups
        self._parts = _REFERENCE.split(rewrite)
        self._known: dict[str, str] = {}
        for reference in self._parts[1::2]:
            if reference != "\\" and not (reference.isdigit() and int(reference) <= self._groups):
                raise InvalidInput(
                    f"'\\{reference}' refers to no group of the expression, which has {self._groups}"
                )

    def replace(self, text: str) -> str:
        """The text with its parts replaced. What became of short texts is kept, of so many."""
        known = self._known.get(text)
        if known is None:
            known = self._replaced(text)
            if len(text) <= _LONGEST_KEPT:
                if len(self._known) >= MOST_KEPT:
                    self._known.clear()
                self._known[text] = known
        return known

    def _replaced(self, text: str) -> str:
        # An empty match just behind another one is none, as in RE2.
        search = _Search(self._program, self._groups, text)
        done: list[str] = []
        at, last_end = 0, -1
        while at <= len(text) and (marks := search.next(at)) is not None:
            begin, end = marks[0], marks[1]
            done.append(text[at:begin])
            if begin == end == last_end:
                done.append(text[begin : begin + 1])
                at = begin + 1
                continue
            done.append(self._expand(text, marks))
            at = last_end = end
        done.append(text[at:])
        return "".join(done)

    def _expand(self, text: str, marks: Marks) -> str:
        # Literal text and what it refers to take turns.
        expanded = [self._parts[0]]
        for reference, literal in zip(self._parts[1::2], self._parts[2::2], strict=True):
            if reference == "\\":
                expanded.append("\\")
            else:
                begin, end = marks[2 * int(reference) : 2 * int(reference) + 2]
                expanded.append(text[begin:end] if begin >= 0 else "")
            expanded.append(literal)
        return "".join(expanded)

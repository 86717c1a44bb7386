"""Regular expressions of policies: RE2's syntax, always the whole text, in time that is linear in the text.

A policy's expression meets whatever a client sends, so it may not backtrack. An expression becomes Glushkov's
position automaton (V. M. Glushkov, 1961): one position for each character it names, a set of positions (the bits
of an integer) as the state. States that a text leads to are kept, which makes an automaton without choices of them
as they are met; what is kept is bounded. A character costs one look-up, at worst a step over all positions.

Since the whole text must match, greed makes no difference and groups remember nothing (see `regex_replace`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from upwell.functions.api.regex_syntax import (
    Anchor,
    Characters,
    Choice,
    Group,
    Node,
    Repeat,
    Sequence,
    parse,
)

MOST_KEPT: Final = 10_000
"""Steps from state to state that one expression keeps."""


class _Fragment(NamedTuple):
    """A part of the automaton: whether it matches nothing at all, where it may begin and where it may end."""

    empty: bool
    first: int
    last: int


_NOTHING = _Fragment(True, 0, 0)


class _Builder:
    """Gives each character of an expression its position."""

    def __init__(self) -> None:
        self.characters: dict[Characters, int] = {}
        """The positions of each."""
        self.follow: list[int] = []
        """For each position, those that may come after it."""

    def build(self, node: Node) -> _Fragment:
        match node:
            case Anchor():
                return _NOTHING
            case Characters():
                bit = 1 << len(self.follow)
                self.follow.append(0)
                self.characters[node] = self.characters.get(node, 0) | bit
                return _Fragment(False, bit, bit)
            case Sequence(parts):
                whole = _NOTHING
                for part in parts:
                    whole = self._joined(whole, self.build(part))
                return whole
            case Choice(options):
                built = [self.build(option) for option in options]
                whole = built[0]
                for each in built[1:]:
                    whole = _Fragment(whole.empty or each.empty, whole.first | each.first, whole.last | each.last)
                return whole
            case Repeat():
                return self._repeat(node)
            case Group(part):
                return self.build(part)

    def _repeat(self, node: Repeat) -> _Fragment:
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
        node = parse(pattern)
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

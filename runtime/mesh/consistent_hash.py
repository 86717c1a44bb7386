"""Tables that give a key the same replica as long as it is there, and few keys another when replicas change.

Ketama's ring (Envoy's ring_hash_lb.cc: as many points for each replica, `minimumRingSize` together at least) and
Maglev's table ("Maglev: A Fast and Reliable Software Network Load Balancer", 2016, section 3.4). Both are walked
on from a key's place when its replica cannot take the request. The hash is BLAKE2 of 64 bits, which is the same
in every gateway; Envoy's own is another one, so that keys fall elsewhere than there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, Protocol

MOST_POINTS: Final = 65_536
"""Of a ring, whatever its minimum is: it is made while requests wait."""
DEFAULT_TABLE_SIZES: Final = ((10, 1021), (100, 10_007))
"""Up to so many replicas, so large a table: 100 entries a replica, as the paper asks, and made in milliseconds."""
LARGE_TABLE_SIZE: Final = 65_537
"""Envoy's default, for more."""


def hash_of(key: str) -> int:
    """64 bits."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class HashTable(Protocol):
    """Replicas by hash."""

    def walk(self, key: int) -> Iterator[str]:
        """Names of replicas from the key's own on, each as often as it stands there."""
        ...


class Ring:
    """Ketama's ring. Immutable."""

    __slots__ = ("_names", "_points")

    def __init__(self, names: Sequence[str], minimum_size: int) -> None:
        each = max(1, -(-min(minimum_size, MOST_POINTS) // max(1, len(names))))
        points = sorted((hash_of(f"{name}_{index}"), name) for name in names for index in range(each))
        self._points = [point for point, _ in points]
        self._names = [name for _, name in points]

    def walk(self, key: int) -> Iterator[str]:
        """See `HashTable`: the first point that is not before the key, then clockwise."""
        return _around(self._names, bisect_left(self._points, key))


class MaglevTable:
    """Maglev's lookup table. Immutable."""

    __slots__ = ("_names",)

    def __init__(self, names: Sequence[str], size: int | None) -> None:
        self._names = _filled(sorted(names), size or _default_size(len(names)))

    def walk(self, key: int) -> Iterator[str]:
        """See `HashTable`: the key's entry, then those after it."""
        return _around(self._names, key)


def _around(names: Sequence[str], start: int) -> Iterator[str]:
    count = len(names)
    return (names[(start + offset) % count] for offset in range(count))


def _default_size(names: int) -> int:
    return next((size for most, size in DEFAULT_TABLE_SIZES if names <= most), LARGE_TABLE_SIZE)


def _filled(names: Sequence[str], size: int) -> list[str]:
    """Each name in turn takes the next entry of its own permutation that is free, until none is."""
    if not names:
        return []
    table: list[str | None] = [None] * size
    places = [hash_of(f"{name}|offset") % size for name in names]
    skips = [hash_of(f"{name}|skip") % (size - 1) + 1 for name in names]
    turns, turn = len(names), 0
    for _ in range(size):
        place, skip = places[turn], skips[turn]
        while table[place] is not None:
            place = (place + skip) % size
        table[place] = names[turn]
        places[turn] = (place + skip) % size
        turn = (turn + 1) % turns
    return [name for name in table if name is not None]

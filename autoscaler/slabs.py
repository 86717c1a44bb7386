"""Blocks of memory of one size for what only some revisions have, or have much of.

A slab holds a fixed number of items. Slabs are handed out one by one and come from chunks that are made on demand,
so that memory grows with what is used and is never copied. A slab that is handed out holds zeros.
"""

from __future__ import annotations

import numpy as np

from upwell.autoscaler.arrays import IntArray, Words

NO_SLAB = -1
_CHUNK_BYTES = 2**21


class Slabs:
    """Slabs of `items` items of `words` words each, known by whole numbers from zero."""

    def __init__(self, items: int, words: int) -> None:
        self._shape = (items, words)
        self._per_chunk = max(1, _CHUNK_BYTES // (items * words * 8))
        self._chunks: list[Words] = []
        self._free: list[int] = []
        self._taken = 0

    def take(self, count: int) -> IntArray:
        """`count` slabs, all zero."""
        again = min(count, len(self._free))
        returned = [self._free.pop() for _ in range(again)]
        fresh = range(self._taken, self._taken + count - again)
        self._taken = fresh.stop
        while len(self._chunks) * self._per_chunk < self._taken:
            self._chunks.append(np.zeros((self._per_chunk, *self._shape), np.uint64))
        return np.array([*returned, *fresh], np.int64)

    def give_back(self, slabs: IntArray) -> None:
        """Clear what is not needed any more, and hand it out again."""
        for slab in slabs.tolist():
            chunk, place = divmod(slab, self._per_chunk)
            self._chunks[chunk][place] = 0
            self._free.append(slab)

    def put(self, slabs: IntArray, items: IntArray, values: Words) -> None:
        """Write one item of each slab: shape (n, words) to the places `items`, shape (n,)."""
        chunks, places = np.divmod(slabs, self._per_chunk)
        for chunk in np.unique(chunks).tolist():
            here = np.flatnonzero(chunks == chunk)
            self._chunks[chunk][places[here], items[here]] = values[here]

    def put_one(self, slab: int, item: int, values: Words) -> None:
        """Write one item of one slab: shape (words,)."""
        chunk, place = divmod(slab, self._per_chunk)
        self._chunks[chunk][place, item] = values

    def get(self, slab: int) -> Words:
        """A copy of one slab, shape (items, words)."""
        chunk, place = divmod(slab, self._per_chunk)
        slab_words: Words = self._chunks[chunk][place].copy()
        return slab_words

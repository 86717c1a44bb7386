"""Many rolling windows of one length in columns, so that a tick looks at all of them in a few array operations.

Each slot is a `LinearWindow` or `WeightedWindow` of one-second buckets (see `upwell.autoscaler.window`, which has
the rules) and gives the same answers to the bit: for every slot the same floating-point operations happen in the
same order, only for many slots at once. Buckets lie in planes, one a second of the ring, since nearly always the
same second of many slots is touched.

A bank lives as long as there are revisions with its length of window. It is used from one thread.
"""

from __future__ import annotations

import math

import numpy as np

from upwell.autoscaler.annotations import WEIGHTED_EXPONENTIAL
from upwell.autoscaler.arrays import FloatArray, IntArray
from upwell.autoscaler.window import Contents, LinearWindow, WeightedWindow, smoothing

NEVER = -(2**61)
"""The newest second of a slot nothing was written to."""
# The first second where there is none: greater than any, so that the least of both is always the right one.
_NO_FIRST = 2**61
_FEWEST_SLOTS = 64
_FEW = 4
_DIGITS = 1e6


class WindowBank:
    """Windows of `window` seconds in slots 0, 1, 2, ...; a slot comes to be with `clear` or `put`.

    `aggregation` is `LINEAR` or `WEIGHTED_EXPONENTIAL`. `newest` holds, by slot, the start of the newest bucket in
    Unix seconds or `NEVER`.
    """

    def __init__(self, window: float, aggregation: str) -> None:
        self.window = window
        self._weighted = aggregation == WEIGHTED_EXPONENTIAL
        self._size = math.ceil(window)
        self._buckets: FloatArray = np.zeros((self._size, 0))
        self._total: FloatArray = np.zeros(0)
        self._first: IntArray = np.full(0, _NO_FIRST)
        self.newest: IntArray = np.full(0, NEVER)
        weight = smoothing(self._size)
        self._decay = 1 - weight
        self._weights = [weight * self._decay**missing for missing in range(self._size + 1)]

    def clear(self, slot: int) -> None:
        """Make the slot an empty window."""
        self._reserve(slot)
        self._buckets[:, slot] = 0.0
        self._total[slot] = 0.0
        self._first[slot] = _NO_FIRST
        self.newest[slot] = NEVER

    def get(self, slot: int) -> LinearWindow:
        """A copy of one slot as a window of its own."""
        first, newest = self._first.item(slot), self.newest.item(slot)
        window = WeightedWindow(self.window) if self._weighted else LinearWindow(self.window)
        window.contents = Contents(
            None if first == _NO_FIRST else first,
            None if newest == NEVER else newest,
            self._total.item(slot),
            self._buckets[:, slot].tolist(),
        )
        return window

    def put(self, slot: int, window: LinearWindow) -> None:
        """Make the slot a copy of `window`, which has this bank's length and buckets of one second."""
        self._reserve(slot)
        first, newest, total, buckets = window.contents
        self._buckets[:, slot] = buckets
        self._total[slot] = total
        self._first[slot] = _NO_FIRST if first is None else first
        self.newest[slot] = NEVER if newest is None else newest

    def record(self, slots: IntArray, second: int, values: FloatArray) -> None:
        """Add a value to the bucket `second` of each slot, unless that lies too far in its past to count.

        No slot may be named twice.
        """
        newest = self.newest[slots]
        ahead = newest < second
        if ahead.all():
            self._advance(slots, newest, second)
        else:
            counts = newest < second + self.window
            if not counts.all():
                slots, values, newest, ahead = slots[counts], values[counts], newest[counts], ahead[counts]
            late = slots[newest > second]
            self._first[late] = np.minimum(self._first[late], second)
            self._advance(slots[ahead], newest[ahead], second)
        self._buckets[second % self._size][slots] += values
        self._total[slots] += values

    def _advance(self, slots: IntArray, newest: IntArray, second: int) -> None:
        """Make `second` the newest bucket of slots whose newest lies before it."""
        if not slots.size:
            return
        self.newest[slots] = second
        anew = second - newest >= self.window
        if anew.any():
            started = slots[anew]
            self._first[started] = second
            self._buckets[:, started] = 0.0
            self._total[started] = 0.0
            slots, newest = slots[~anew], newest[~anew]
            if not slots.size:
                return
        self._first[slots] = np.minimum(self._first[slots], second)
        indices = np.arange(int(newest.min()) + 1, second + 1)
        if len(indices) > _FEW:
            # What fell silent for long has little left: planes that hold nothing need no turn.
            held = self._buckets[(indices % self._size)[:, np.newaxis], slots] * (newest < indices[:, np.newaxis])
            indices = indices[held.any(axis=1) | (indices % self._size == 0)]
        for index in indices.tolist():
            passed = slots[newest < index]
            plane = self._buckets[index % self._size]
            self._total[passed] -= plane[passed]
            plane[passed] = 0.0
            if index % self._size == 0:
                self._drop_residue(passed)

    def _drop_residue(self, slots: IntArray) -> None:
        """Set to zero the totals of slots without any value, where rounding has left something behind."""
        slots = slots[self._total[slots] != 0.0]
        for plane in self._buckets:
            if not slots.size:
                return
            slots = slots[plane[slots] == 0.0]
        self._total[slots] = 0.0

    def averages(self, now: float, slots: IntArray) -> FloatArray:
        """The average of each slot over the window that ends at `now` (Unix seconds), never negative."""
        return self._weighted_means(int(now), slots) if self._weighted else self._means(int(now), slots)

    def _means(self, second: int, slots: IntArray) -> FloatArray:
        newest, first, totals = self.newest[slots], self._first[slots], self._total[slots]
        missing = np.maximum(second - newest, 0)
        known = missing < self.window
        behind = np.flatnonzero(known & (missing > 0))
        if behind.size:
            reached = newest[behind]
            # Seconds that are past the newest of a slot, and what their buckets still hold of a turn ago.
            indices = np.arange(int(reached.min()) + 1, second + 1)
            held = self._buckets[(indices % self._size)[:, np.newaxis], slots[behind]]
            held[reached >= indices[:, np.newaxis]] = 0.0
            for at in np.flatnonzero(held.any(axis=1)).tolist():
                totals[behind] -= held[at]
        valid = self._size - missing
        valid = np.where(first == _NO_FIRST, valid, np.minimum(valid, newest - first + 1))
        means = np.zeros(len(slots))
        np.divide(totals, valid, out=means, where=known)
        return np.maximum(0.0, np.floor(means * _DIGITS + 0.5) / _DIGITS)

    def _weighted_means(self, second: int, slots: IntArray) -> FloatArray:
        means = np.zeros(len(slots))
        newest = self.newest[slots]
        order = np.argsort(-newest, kind="stable")
        order = order[second - newest[order] <= self.window]
        if not order.size:
            return means
        # From the newest bucket of any slot backwards: those in reach of a slot are a range of the order.
        slots, newest = slots[order], newest[order]
        oldest = np.maximum(newest, second) - self._size + 1
        indices = np.arange(int(newest[0]), int(oldest[-1]) - 1, -1)
        begins = np.searchsorted(-oldest, -indices, side="left")
        ends = np.searchsorted(-newest, -indices, side="right")
        weights = np.array(self._weights)[np.maximum(second - newest, 0)]
        sums = np.zeros(len(slots))
        for index, begin, end in zip(indices.tolist(), begins.tolist(), ends.tolist(), strict=True):
            sums[begin:end] += self._buckets[index % self._size][slots[begin:end]] * weights[begin:end]
            weights[begin:end] *= self._decay
        means[order] = sums
        return means

    def _reserve(self, slot: int) -> None:
        held = len(self.newest)
        if slot < held:
            return
        more = max(_FEWEST_SLOTS, held // 4, slot + 1 - held)
        buckets = np.zeros((self._size, held + more))
        buckets[:, :held] = self._buckets
        self._buckets = buckets
        self._total = np.concatenate((self._total, np.zeros(more)))
        self._first = np.concatenate((self._first, np.full(more, _NO_FIRST)))
        self.newest = np.concatenate((self.newest, np.full(more, NEVER)))

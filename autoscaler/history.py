"""What is kept of decisions: the latest of each revision that differ in outcome or reason from the one before.

Columns by row, a row being the engine's number of a revision; their memory grows with use.
"""

from __future__ import annotations

import numpy as np

from upwell.autoscaler.arrays import BoolArray, IntArray, Words, grown
from upwell.autoscaler.decision import Decision
from upwell.autoscaler.records import OUTCOME_WORDS, RECORD, RECORD_WORDS, Details, Records, decode, words_of
from upwell.autoscaler.slabs import NO_SLAB, Slabs

HISTORY = 64
"""Decisions kept of a revision."""
_RECORDS_A_SLAB = 8


class Histories:
    """The latest `HISTORY` decisions of each row that differ in outcome or reason from the one before.

    A row's decisions lie in a ring of slabs of eight, which it takes one by one as it comes to them.
    """

    def __init__(self) -> None:
        self._slabs = Slabs(_RECORDS_A_SLAB, RECORD_WORDS)
        # By row: the outcome last kept, whether it names a binding metric, how many were kept ever, and the slabs.
        self._outcomes = np.zeros((0, OUTCOME_WORDS), np.uint64)
        self._bound = np.zeros(0, np.bool_)
        self._kept = np.zeros(0, np.int64)
        self._ring = np.zeros((0, HISTORY // _RECORDS_A_SLAB), np.int32)
        # By row and by which of the kept ones it is; only for rows that have any.
        self._details: dict[int, dict[int, Details]] = {}

    def append_changed(self, rows: IntArray, records: Records) -> BoolArray:
        """Keep those whose outcome differs from the last one kept for their row; says which. Rows are unique."""
        if len(rows):
            self._grow(int(rows.max()))
        words = words_of(records)
        changed = self._differ(rows, words) | self._bound[rows]
        if changed.any():
            self._append(rows[changed], words[changed])
        return changed

    def append(self, row: int, record: np.void, details: Details | None = None) -> bool:
        """As `append_changed` for one decision, with what its record has no room for."""
        self._grow(row)
        words = words_of(np.array([record], RECORD))
        binding = details.binding if details else ""
        is_same = self._kept[row] > 0 and self._outcomes[row].tobytes() == words[0, :OUTCOME_WORDS].tobytes()
        if is_same and binding == self._binding(row):
            return False
        self._append_one(row, words[0])
        if details is not None:
            self._bound[row] = binding != ""
            self._add_details(row, details)
        return True

    def _differ(self, rows: IntArray, words: Words) -> BoolArray:
        """Which outcomes differ from the last kept, bindings aside."""
        differ: BoolArray = (self._outcomes[rows] != words[:, :OUTCOME_WORDS]).any(axis=1)
        differ |= self._kept[rows] == 0
        return differ

    def _binding(self, row: int) -> str:
        latest = self._details.get(row, {}).get(int(self._kept[row]) - 1)
        return latest.binding if latest else ""

    def _add_details(self, row: int, details: Details) -> None:
        latest = int(self._kept[row]) - 1
        mine = self._details.setdefault(row, {})
        mine[latest] = details
        for old in [each for each in mine if each <= latest - HISTORY]:
            del mine[old]

    def _append(self, rows: IntArray, words: Words) -> None:
        place = self._kept[rows] % HISTORY
        which, item = np.divmod(place, _RECORDS_A_SLAB)
        slabs = self._ring[rows, which].astype(np.int64)
        new = np.flatnonzero(slabs == NO_SLAB)
        if len(new):
            slabs[new] = self._slabs.take(len(new))
            self._ring[rows[new], which[new]] = slabs[new]
        self._slabs.put(slabs, item, words)
        self._outcomes[rows] = words[:, :OUTCOME_WORDS]
        self._bound[rows] = False
        self._kept[rows] += 1

    def _append_one(self, row: int, words: Words) -> None:
        """As `_append`, for a poke."""
        which, item = divmod(int(self._kept[row]) % HISTORY, _RECORDS_A_SLAB)
        slab = int(self._ring[row, which])
        if slab == NO_SLAB:
            slab = self._ring[row, which] = int(self._slabs.take(1)[0])
        self._slabs.put_one(slab, item, words)
        self._outcomes[row] = words[:OUTCOME_WORDS]
        self._bound[row] = False
        self._kept[row] += 1

    def of(self, row: int) -> Records:
        """What is kept of a row, oldest first."""
        if row >= len(self._kept):
            return np.zeros(0, RECORD)
        kept = int(self._kept[row])
        slabs = [self._slabs.get(slab) for slab in self._ring[row].tolist() if slab != NO_SLAB]
        if not slabs:
            return np.zeros(0, RECORD)
        ring = np.concatenate(slabs)
        ring = ring[:kept] if kept <= HISTORY else np.roll(ring, -(kept % HISTORY), axis=0)
        return np.ascontiguousarray(ring).view(RECORD).reshape(-1)

    def decisions(self, row: int, revision: str) -> list[Decision]:
        """What is kept of a row as decisions, oldest first."""
        records, mine = self.of(row), self._details.get(row, {})
        first = int(self._kept[row]) - len(records) if len(records) else 0
        return [decode(record, revision, mine.get(first + index)) for index, record in enumerate(records)]

    def clear(self, row: int) -> None:
        """Forget a row."""
        if row >= len(self._kept):
            return
        slabs = self._ring[row]
        self._slabs.give_back(slabs[slabs != NO_SLAB].astype(np.int64))
        self._ring[row] = NO_SLAB
        self._kept[row] = 0
        self._details.pop(row, None)

    def _grow(self, row: int) -> None:
        if row >= len(self._kept):
            self._outcomes = grown(self._outcomes, row, 0)
            self._bound = grown(self._bound, row, False)
            self._kept = grown(self._kept, row, 0)
            self._ring = grown(self._ring, row, NO_SLAB)

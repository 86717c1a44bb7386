"""What is remembered of those who report: which of their reports were seen, and up to when they have spoken.

A reporter numbers its reports, so that one that comes twice counts once, and late ones in any order count at all.
Bounded: the 64 latest sequences, and for a reporter of batches one time for each revision that it named of late.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from upwell.autoscaler.arrays import BoolArray, FloatArray, IntArray

_REMEMBERED_SEQUENCES = 64


@dataclass(slots=True)
class ReporterState:
    """The greatest sequence of one reporter, and which of those just below it were seen. Times in Unix seconds."""

    sequence: int
    ended: float
    seen: int = 1

    def is_new(self, sequence: int, ended: float, span: float) -> bool:
        """Whether the report about the `span` seconds up to `ended` was not seen before; notes it."""
        ahead = sequence - self.sequence
        if ahead > 0:
            self.seen = (self.seen << min(ahead, _REMEMBERED_SEQUENCES) | 1) & (1 << _REMEMBERED_SEQUENCES) - 1
        elif ended - span >= self.ended and ended > self.ended:
            self.seen = 1  # a lower sequence for a later time: the reporter began anew
        else:
            place = 1 << min(-ahead, _REMEMBERED_SEQUENCES)
            if place >> _REMEMBERED_SEQUENCES or self.seen & place:
                return False
            self.seen |= place
            return True
        self.sequence = sequence
        self.ended = max(self.ended, ended)
        return True


def _no_rows() -> IntArray:
    return np.zeros(0, dtype=np.int64)


def _no_times() -> FloatArray:
    return np.zeros(0)


@dataclass(slots=True)
class BatchReporterState:
    """One reporter of batches: its sequences, and by row up to when it has reported on it.

    The rows of its latest batch stand last and in that batch's order, so that the next one with the same rows, as
    they nearly all are, costs a comparison.
    """

    state: ReporterState
    rows: IntArray = field(default_factory=_no_rows)
    ended: FloatArray = field(default_factory=_no_times)

    def spoke(self, rows: IntArray, ended: float) -> None:
        """Note that these rows, all different, were reported on up to `ended`."""
        if not self.spoke_of(rows):
            self._take_up(rows)
        latest = self.ended[len(self.rows) - len(rows) :]
        np.maximum(latest, ended, out=latest)

    def spoke_of(self, rows: IntArray) -> bool:
        """Whether the latest batch named just these rows, in this order."""
        return np.array_equal(self.rows[max(0, len(self.rows) - len(rows)) :], rows)

    def _take_up(self, rows: IntArray) -> None:
        known = np.full(max(self.rows.max(initial=0), rows.max(initial=0)) + 1, -np.inf)
        known[self.rows] = self.ended
        ended = known[rows]
        known[rows] = np.nan
        others = ~np.isnan(known[self.rows])
        self.rows = np.concatenate((self.rows[others], rows))
        self.ended = np.concatenate((self.ended[others], ended))

    def keep(self, kept: BoolArray) -> None:
        """Forget the rows for which `kept`, as long as `rows`, is false."""
        self.rows, self.ended = self.rows[kept], self.ended[kept]

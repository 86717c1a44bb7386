"""The demand on every revision: the reports of its replicas and gateways, brought into its windows.

Reporters push once a second, each at its own moment, so that at any time the latest second is known in part only.
A report's value is spread over the seconds that it covers, by overlap; a second goes into the windows when every
reporter of the revision that is still heard has reported beyond it, and a late report lands in its own second all
the same. Spans end no later than the time at which they are received: a clock that runs ahead elsewhere moves no
window.

A revision is a row. What is known of it lies in columns: its windows in banks, shared by all revisions whose
windows have the same lengths, and the seconds not complete yet in a ring of planes, one a second. No reporter is
waited for longer than `OVERDUE`, hence the ring is short: what is older goes into the windows at once. Reports
come one by one or in batches, which one reporter makes of many revisions; a reporter that does both counts as two.

Lives as long as its engine; one thread, times not decreasing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from upwell.autoscaler.arrays import BoolArray, FloatArray, IntArray
from upwell.autoscaler.bank import NEVER, WindowBank
from upwell.autoscaler.metric_targets import RPS
from upwell.autoscaler.reporters import BatchReporterState, ReporterState
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report, ReportBatch

OVERDUE = 2.5
"""Seconds of silence after which a reporter is no longer waited for: two periods and a margin."""
JITTER = 0.05
"""Seconds by which a report may miss the end of a second and still count as covering it."""
SILENCE = 5.0
"""Seconds without any report after which the demand on replicas that run is unknown, not zero."""
MAX_REPORTERS = 4096
"""Reporters remembered of one revision, and of batches altogether; the one silent for longest is forgotten."""
_RING = 8
"""Seconds that may be incomplete: more than `OVERDUE` and the second that has begun."""
_FEWEST_ROWS = 64
_NO_GROUP = -1


class Acceptance(StrEnum):
    """What became of a report."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    TOO_LATE = "too-late"
    UNKNOWN_REVISION = "unknown-revision"


class BatchAcceptance(NamedTuple):
    """What became of the rows of a batch that are known."""

    accepted: int
    others: Acceptance
    """Why the rest was not."""


class _Group:
    """The windows of all revisions with the same lengths and aggregation; a slot is one revision's pair."""

    def __init__(self, stable_window: float, panic_window: float, aggregation: str) -> None:
        self.key = (stable_window, panic_window, aggregation)
        self.stable = WindowBank(stable_window, aggregation)
        self.panic = WindowBank(panic_window, aggregation)
        self.used = 0
        self._made = 0
        self._free: list[int] = []

    def take(self) -> int:
        """A slot with empty windows."""
        if self._free:
            slot = self._free.pop()
        else:
            slot = self._made
            self._made += 1
        self.used += 1
        self.stable.clear(slot)
        self.panic.clear(slot)
        return slot

    def give_back(self, slot: int) -> None:
        """Let another revision have the slot."""
        self.used -= 1
        self._free.append(slot)


class Demands:
    """The demand on many revisions, by row. Rows are small whole numbers, given and reused by the engine."""

    def __init__(self) -> None:
        self._groups: list[_Group | None] = []
        # By row. A group of -1 means that there is no such revision.
        self._group: IntArray = np.zeros(0, dtype=np.int64)
        self._slot: IntArray = np.zeros(0, dtype=np.int64)
        self._window: FloatArray = np.zeros(0)
        self._rps: BoolArray = np.zeros(0, dtype=np.bool_)
        self._heard: FloatArray = np.zeros(0)
        # What was reported of seconds that are not complete, second s in plane s % _RING.
        self._pending: FloatArray = np.zeros((_RING, 0))
        self._reported: BoolArray = np.zeros((_RING, 0), dtype=np.bool_)
        self._oldest_pending = 0
        self._reporters: dict[int, dict[str, ReporterState]] = {}
        self._batch_reporters: dict[str, BatchReporterState] = {}

    # Revisions come, change and go.

    def add(self, row: int, settings: RevisionSettings, now: float) -> None:
        """Begin with empty windows as the settings have them."""
        self._turn(now)
        self._reserve(row)
        self._window[row] = settings.stable_window
        self._rps[row] = settings.metric == RPS
        self._heard[row] = -math.inf
        self._group[row] = number = self._group_for(settings)
        self._slot[row] = self._at(number).take()

    def remove(self, row: int) -> None:
        """Forget all about a row that was added."""
        self._leave_group(row)
        self._group[row] = _NO_GROUP
        self._pending[:, row] = 0.0
        self._reported[:, row] = False
        self._reporters.pop(row, None)
        for reporter in self._batch_reporters.values():
            others = reporter.rows != row
            if not others.all():
                reporter.keep(others)

    def follow(self, row: int, before: RevisionSettings, settings: RevisionSettings, now: float) -> None:
        """Take over changed settings; what was recorded stays unless it means something else now."""
        if (before.metric, before.aggregation) != (settings.metric, settings.aggregation):
            self.remove(row)
            self.add(row, settings, now)
            return
        group, slot = self._at(self._group.item(row)), self._slot.item(row)
        if group.key == _key(settings):
            return
        stable, panic = group.stable.get(slot), group.panic.get(slot)
        stable.resize(now, settings.stable_window)
        panic.resize(now, settings.panic_window)
        self._leave_group(row)
        self._window[row] = settings.stable_window
        self._group[row] = number = self._group_for(settings)
        group = self._at(number)
        self._slot[row] = slot = group.take()
        group.stable.put(slot, stable)
        group.panic.put(slot, panic)

    def _group_for(self, settings: RevisionSettings) -> int:
        key = _key(settings)
        for number, group in enumerate(self._groups):
            if group is not None and group.key == key:
                return number
        if None in self._groups:
            number = self._groups.index(None)
        else:
            number = len(self._groups)
            self._groups.append(None)
        self._groups[number] = _Group(*key)
        return number

    def _leave_group(self, row: int) -> None:
        number = self._group.item(row)
        group = self._at(number)
        group.give_back(self._slot.item(row))
        if not group.used:
            self._groups[number] = None

    def _at(self, number: int) -> _Group:
        group = self._groups[number]
        assert group is not None, "a group with members is kept"
        return group

    def _reserve(self, row: int) -> None:
        held = len(self._group)
        if row < held:
            return
        more = max(_FEWEST_ROWS, held // 4, row + 1 - held)
        self._group = np.concatenate((self._group, np.full(more, _NO_GROUP)))
        self._slot = np.concatenate((self._slot, np.zeros(more, dtype=np.int64)))
        self._window = np.concatenate((self._window, np.zeros(more)))
        self._rps = np.concatenate((self._rps, np.zeros(more, dtype=np.bool_)))
        self._heard = np.concatenate((self._heard, np.full(more, -math.inf)))
        self._pending = np.concatenate((self._pending, np.zeros((_RING, more))), axis=1)
        self._reported = np.concatenate((self._reported, np.zeros((_RING, more), dtype=np.bool_)), axis=1)

    # Reports come in.

    def accept(self, row: int, report: Report, ended: float, now: float) -> Acceptance:
        """Take a report on a known row whose span ends at `ended` by our own clock, not after `now`."""
        oldest = now - self._window.item(row)
        if ended <= oldest:
            return Acceptance.TOO_LATE
        span = report.ended - report.started
        reporters = self._reporters.setdefault(row, {})
        known = reporters.get(report.reporter)
        if known is None:
            if len(reporters) >= MAX_REPORTERS:
                del reporters[min(reporters, key=lambda name: reporters[name].ended)]
            reporters[report.reporter] = ReporterState(report.sequence, ended)
        elif not known.is_new(report.sequence, ended, span):
            return Acceptance.DUPLICATE
        self._heard[row] = now
        self._turn(now)
        if self._rps.item(row):
            # Requests of no span, or of next to none, still arrived: they count for where it lies.
            span = max(span, JITTER)
            rate = (report.request_count - report.proxied_request_count) / span
        else:
            rate = max(0.0, report.average_concurrency - report.average_proxied_concurrency)
        self._spread(row, rate, max(ended - span, oldest), ended)
        return Acceptance.ACCEPTED

    def _spread(self, row: int, rate: float, started: float, ended: float) -> None:
        newest = self._at(self._group.item(row)).stable.newest.item(self._slot.item(row))
        oldest_pending = max(newest + 1, self._oldest_pending)
        late: list[tuple[int, float]] = []
        for second in range(math.floor(started), math.ceil(ended)):
            value = rate * (min(ended, second + 1) - max(started, second))
            if second < oldest_pending:
                late.append((second, value))
            else:
                self._pending[second % _RING, row] += value
                self._reported[second % _RING, row] = True
        if late:
            self._record_one(row, late)

    def accept_batch(self, rows: IntArray, batch: ReportBatch, ended: float, now: float) -> BatchAcceptance:
        """Take a batch whose rows are `rows`, -1 where a revision is not known.

        `ended` is its end by our own clock, not after `now`. Left out are rows for which it is too late, and all
        but the last mention of a row named repeatedly; all of a batch that came before.
        """
        spans = np.asarray(batch.spans, dtype=np.float64)
        if ended <= now - self._longest_window():
            return BatchAcceptance(0, Acceptance.TOO_LATE)
        if not self._is_new(batch, ended, spans.max(initial=0.0)):
            return BatchAcceptance(0, Acceptance.DUPLICATE)
        reporter = self._batch_reporters[batch.reporter]
        chosen = np.flatnonzero((rows >= 0) & (ended > now - self._window[rows]))
        rows = rows[chosen]
        if not reporter.spoke_of(rows):
            mentions = np.zeros(len(self._group), dtype=np.int64)
            mentions[rows] = np.arange(len(rows))
            last = mentions[rows] == np.arange(len(rows))
            chosen, rows = chosen[last], rows[last]
        if not rows.size:
            return BatchAcceptance(0, Acceptance.TOO_LATE)
        reporter.spoke(rows, ended)
        self._heard[rows] = now
        self._turn(now)
        rates, spans = self._rates(rows, batch, spans, chosen)
        self._spread_batch(rows, rates, np.maximum(ended - spans, now - self._window[rows]), ended)
        return BatchAcceptance(len(rows), Acceptance.TOO_LATE)

    def _longest_window(self) -> float:
        return max((group.key[0] for group in self._groups if group is not None), default=0.0)

    def _is_new(self, batch: ReportBatch, ended: float, span: float) -> bool:
        reporters = self._batch_reporters
        known = reporters.get(batch.reporter)
        if known is not None:
            return known.state.is_new(batch.sequence, ended, span)
        if len(reporters) >= MAX_REPORTERS:
            del reporters[min(reporters, key=lambda name: reporters[name].state.ended)]
        reporters[batch.reporter] = BatchReporterState(ReporterState(batch.sequence, ended))
        return True

    def _rates(
        self, rows: IntArray, batch: ReportBatch, spans: FloatArray, chosen: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """The metric of each row per second of its span, and the spans."""
        spans = spans[chosen]
        averages = np.asarray(batch.average_concurrency, dtype=np.float64)[chosen]
        rates = np.maximum(0.0, averages - np.asarray(batch.average_proxied_concurrency, dtype=np.float64)[chosen])
        counted = self._rps[rows]
        if counted.any():
            counts = np.asarray(batch.request_count, dtype=np.float64)[chosen]
            requests = counts - np.asarray(batch.proxied_request_count, dtype=np.float64)[chosen]
            spans = np.where(counted, np.maximum(spans, JITTER), spans)
            np.divide(requests, spans, out=rates, where=counted)
        return rates, spans

    def _spread_batch(self, rows: IntArray, rates: FloatArray, started: FloatArray, ended: float) -> None:
        oldest_pending = np.empty(len(rows), dtype=np.int64)
        for group, members in self._by_group(rows):
            oldest_pending[members] = group.stable.newest[self._slot[rows[members]]] + 1
        np.maximum(oldest_pending, self._oldest_pending, out=oldest_pending)
        order = np.argsort(started, kind="stable")
        begins = started[order]
        for second in range(math.floor(begins[0]), math.ceil(ended)):
            covering = order[: np.searchsorted(begins, second + 1, side="left")]
            values = rates[covering] * (min(ended, second + 1) - np.maximum(started[covering], second))
            late = second < oldest_pending[covering]
            if late.any():
                self._record(rows[covering[late]], second, values[late])
                covering, values = covering[~late], values[~late]
            self._pending[second % _RING][rows[covering]] += values
            self._reported[second % _RING][rows[covering]] = True

    # Seconds become complete.

    def settle(self, now: float) -> None:
        """Bring the seconds that are complete by `now` into the windows, and forget who fell silent."""
        complete = np.full(len(self._group), now)
        self._hear_batches(complete, now)
        self._hear_reports(complete, now)
        complete += JITTER
        for second in range(self._oldest_pending, self._oldest_pending + _RING):
            reported = self._reported[second % _RING]
            if reported.any():
                self._bring(second, reported & (second + 1 <= complete))

    def _hear_batches(self, complete: FloatArray, now: float) -> None:
        """Lower `complete` to what reporters of batches have come to; forget those that are silent."""
        reporters = self._batch_reporters.values()
        if not reporters:
            return
        rows = np.concatenate([reporter.rows for reporter in reporters])
        ended = np.concatenate([reporter.ended for reporter in reporters])
        heard = ended > now - OVERDUE
        np.minimum.at(complete, rows[heard], ended[heard])
        if (ended < now - self._window[rows]).any():
            for reporter in reporters:
                reporter.keep(reporter.ended >= now - self._window[reporter.rows])
        forgotten = now - self._longest_window()
        for name in [name for name, each in self._batch_reporters.items() if not each.rows.size]:
            if self._batch_reporters[name].state.ended <= forgotten:
                del self._batch_reporters[name]

    def _hear_reports(self, complete: FloatArray, now: float) -> None:
        """Lower `complete` to what reporters of single reports have come to; forget those that are silent."""
        overdue = now - OVERDUE
        least, silent = [], []
        for row, reporters in self._reporters.items():
            earliest = now
            for reporter in reporters.values():
                if reporter.ended <= overdue:
                    silent.append(row)
                elif reporter.ended < earliest:
                    earliest = reporter.ended
            least.append(earliest)
        if least:
            rows = np.fromiter(self._reporters, np.int64, len(least))
            complete[rows] = np.minimum(complete[rows], least)
        for row in set(silent):
            self._forget(row, now - self._window.item(row))

    def _forget(self, row: int, forgotten: float) -> None:
        kept = {name: each for name, each in self._reporters[row].items() if each.ended >= forgotten}
        if kept:
            self._reporters[row] = kept
        else:
            del self._reporters[row]

    def _turn(self, now: float) -> None:
        """Make room in the ring for the seconds up to `now`: what is too old to be waited for becomes complete."""
        oldest = math.floor(now) - _RING + 1
        before = self._oldest_pending
        if oldest > before:
            for second in range(before, min(oldest, before + _RING)):
                self._bring(second, self._reported[second % _RING])
            self._oldest_pending = oldest

    def _bring(self, second: int, complete: BoolArray) -> None:
        """Move one pending second of the rows for which it is complete into their windows."""
        rows = np.flatnonzero(complete)
        if rows.size:
            pending = self._pending[second % _RING]
            self._record(rows, second, pending[rows])
            pending[rows] = 0.0
            self._reported[second % _RING][rows] = False

    def _record(self, rows: IntArray, second: int, values: FloatArray) -> None:
        for group, members in self._by_group(rows):
            slots = self._slot[rows[members]]
            group.stable.record(slots, second, values[members])
            group.panic.record(slots, second, values[members])

    def _record_one(self, row: int, seconds: list[tuple[int, float]]) -> None:
        group, slot = self._at(self._group.item(row)), self._slot.item(row)
        for bank in (group.stable, group.panic):
            window = bank.get(slot)
            for second, value in seconds:
                window.record(second, value)
            bank.put(slot, window)

    def _by_group(self, rows: IntArray) -> Iterator[tuple[_Group, IntArray | slice]]:
        """Each group that has some of the rows, and where they stand in `rows`."""
        if not rows.size:
            return
        if len(self._groups) == 1:
            yield self._at(0), slice(None)
            return
        numbers = self._group[rows]
        if numbers.min() == numbers.max():
            yield self._at(numbers.item(0)), slice(None)
            return
        order = np.argsort(numbers, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            yield self._at(numbers.item(members[0])), members

    # What it comes to.

    def averages(self, rows: IntArray, ready: IntArray, now: float) -> tuple[FloatArray, FloatArray, BoolArray]:
        """The metric of each row over the stable and the panic window, up to the latest whole second settled.

        The third says where that is known. It is not, and both are 0, where nothing was recorded within the stable
        window, or where there is silence though `ready` replicas ought to report every second.
        """
        latest = now - 1
        newest = np.empty(len(rows), dtype=np.int64)
        stable, panic = np.empty(len(rows)), np.empty(len(rows))
        for group, members in self._by_group(rows):
            slots = self._slot[rows[members]]
            newest[members] = group.stable.newest[slots]
            stable[members] = group.stable.averages(latest, slots)
            panic[members] = group.panic.averages(latest, slots)
        known = int(latest) - newest < self._window[rows]
        known &= (ready <= 0) | (now - self._heard[rows] <= SILENCE)
        stable[~known] = panic[~known] = 0.0
        return stable, panic, known

    def average(self, row: int, ready: int, now: float) -> tuple[float, float] | None:
        """As `averages` for one row, which is settled first; None when it is not known."""
        self._settle_one(row, now)
        latest = now - 1
        group, slot = self._at(self._group.item(row)), self._slot.item(row)
        newest = group.stable.newest.item(slot)
        if newest == NEVER or int(latest) - newest >= self._window.item(row):
            return None
        if ready > 0 and now - self._heard.item(row) > SILENCE:
            return None
        return group.stable.get(slot).average(latest), group.panic.get(slot).average(latest)

    def _settle_one(self, row: int, now: float) -> None:
        reported = self._reported[:, row]
        if not reported.any():
            return
        overdue, complete = now - OVERDUE, now
        for reporter in self._reporters.get(row, {}).values():
            if reporter.ended > overdue:
                complete = min(complete, reporter.ended)
        for batches in self._batch_reporters.values():
            if batches.state.ended > overdue:
                for ended in batches.ended[batches.rows == row].tolist():
                    complete = min(complete, ended if ended > overdue else now)
        seconds = []
        for second in range(self._oldest_pending, self._oldest_pending + _RING):
            place = second % _RING
            if reported[place] and second + 1 <= complete + JITTER:
                seconds.append((second, self._pending.item(place, row)))
                self._pending[place, row] = 0.0
                reported[place] = False
        if seconds:
            self._record_one(row, seconds)

    def reporters(self) -> int:
        """How many reporters are remembered: of each revision those of single reports, and those of batches."""
        return sum(map(len, self._reporters.values())) + len(self._batch_reporters)


def _key(settings: RevisionSettings) -> tuple[float, float, str]:
    return settings.stable_window, settings.panic_window, settings.aggregation

"""The autoscaler of many revisions: takes reports and pokes, and decides when it is told to.

The engine has no loop, no clock and does no I/O. Whoever runs it calls `tick` every two seconds, `report` for each
report received, `observe` when replica counts change and `poke` when requests wait; it applies the decisions of
`Tick.to_scale`. Calls come from one thread.

What is known of revisions stands in columns, a row a revision, and a tick decides all of those that Knative's KPA
scales by requests at once (`upwell.autoscaler.bulk`). Revisions of another class, or with further metrics, are
asked one by one. A poke is for one revision and takes the single path, whose answers are the same. A row lives
from `set_revision` to `remove_revision`; all of it is plain data, bounded in size.

Time within the engine never runs backwards: when `now` jumps back by more than a second, later times are shifted
by whole seconds so that windows and grace periods go on from where they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, overload

import numpy as np

from upwell.autoscaler import bounds, bulk, records
from upwell.autoscaler.annotations import HPA, KPA
from upwell.autoscaler.arrays import BoolArray, IntArray
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.bulk import BulkInputs
from upwell.autoscaler.classes import NO_SIGNALS, ScalingClass, SignalReader
from upwell.autoscaler.columns import SettingsColumns, StateColumns
from upwell.autoscaler.combined import Combined
from upwell.autoscaler.decision import Activity, Decision, Inputs, Missing, State
from upwell.autoscaler.demand import Acceptance, Demands
from upwell.autoscaler.history import Histories
from upwell.autoscaler.hpa import HorizontalPodAutoscaler
from upwell.autoscaler.records import MISSING, NONE, RECORD, Records, words_of
from upwell.autoscaler.saved import SavedRevision, resume
from upwell.autoscaler.series import Series, SeriesColumns, SeriesKeeper
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report, ReportBatch

CLASSES: Final[Mapping[str, ScalingClass]] = MappingProxyType({KPA: Combined(), HPA: HorizontalPodAutoscaler()})
"""Who decides for a revision, by the class that its settings name."""
_GREATEST_SLEW = 1.0
_NO_DATA = MISSING.index(Missing.NO_DATA)
_LEAST_ROWS = 64


@dataclass(slots=True)
class _Single:
    """A revision that its class decides by itself."""

    decider: ScalingClass
    state: State
    activity: Activity
    path: RequestPath = field(default_factory=RequestPath)
    latest: Decision | None = None


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Counts since the engine began, and the latest decision by revision."""

    revisions: int
    reporters: int
    ticks: int
    pokes: int
    pokes_that_raised: int
    reports: Mapping[Acceptance, int]
    latest: Mapping[str, Decision]


class Tick(Sequence[Decision]):
    """The decisions of one tick, one a revision. Those of the bulk are made when they are read, however late;
    their states leave out what a scale-down delay waits for, which `Engine.latest` tells.
    """

    def __init__(
        self, keys: Sequence[str], made: Records, singles: Sequence[Decision], news: IntArray, acting: IntArray
    ) -> None:
        self._keys = keys
        self._made = made
        self._singles = singles
        self._news = news
        self._acting = acting
        self._read: dict[int, Decision] = {}

    def __len__(self) -> int:
        return len(self._made) + len(self._singles)

    @overload
    def __getitem__(self, index: int) -> Decision: ...
    @overload
    def __getitem__(self, index: slice) -> list[Decision]: ...
    def __getitem__(self, index: int | slice) -> Decision | list[Decision]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        if at >= len(self._made):
            return self._singles[at - len(self._made)]
        decision = self._read.get(at)
        if decision is None:
            decision = self._read[at] = records.decode(self._made[at], self._keys[at])
        return decision

    def news(self) -> Iterator[Decision]:
        """The decisions whose outcome or reason differs from the one before."""
        return (self[index] for index in self._news.tolist())

    def to_scale(self) -> Iterator[Decision]:
        """The decisions that set a scale which was not told before, or which the replicas do not have."""
        return (self[index] for index in self._acting.tolist())


class Engine:
    """Decides for many revisions, each named "namespace/name".

    `classes` are asked for revisions that are not decided in bulk, by the class their settings name (the KPA's
    where there is no such class); `signals` is where further metrics are read; `series` keeps load and replicas
    over time (by default `SeriesColumns`).
    """

    def __init__(
        self,
        classes: Mapping[str, ScalingClass] = CLASSES,
        signals: SignalReader = NO_SIGNALS,
        series: SeriesKeeper | None = None,
    ) -> None:
        self._classes = classes
        self._signals = signals
        self._rows: dict[str, int] = {}
        self._names: list[str] = []
        self._free: list[int] = []
        self._settings: list[RevisionSettings] = []
        # By row: replicas as last observed, the scale that was last told, and the latest decision.
        self._ready = np.zeros(0, np.int64)
        self._starting = np.zeros(0, np.int64)
        self._told = np.zeros(0, np.int64)
        self._latest = _no_decisions(0)
        self._latest_words = words_of(self._latest)
        self._singles: dict[int, _Single] = {}
        self._bulk: tuple[IntArray, list[str]] | None = None
        self._columns = SettingsColumns()
        self._states = StateColumns()
        self._demands = Demands()
        self._histories = Histories()
        self._series = SeriesColumns() if series is None else series
        self._reports = dict.fromkeys(Acceptance, 0)
        self._ticks = self._pokes = self._pokes_that_raised = 0
        self._time = -math.inf
        self._shift = 0

    # Revisions

    def set_revision(
        self,
        key: str,
        settings: RevisionSettings,
        now: float,
        ready: int = 0,
        *,
        initialized: bool = False,
        saved: SavedRevision | None = None,
    ) -> None:
        """Begin to scale a revision, or change its settings; windows, mode and activity of a known one stay.

        `ready`, `initialized` and `saved` describe a revision that is new to the engine: how many replicas it has,
        whether it had reached its initial scale before, and what an engine before this one knew of it. What was
        saved within the stable window is gone on with; otherwise one with more than one replica starts in panic.
        """
        moment = self._moment(now)
        row = self._rows.get(key)
        if row is None:
            self._begin(key, settings, moment, ready, initialized, saved)
        else:
            self._change(row, settings, moment)

    def remove_revision(self, key: str) -> None:
        """Forget a revision; an unknown one is no error."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        self._demands.remove(row)
        self._singles.pop(row, None)
        self._latest[row]["at"] = np.nan
        self._states.clear(row)
        self._histories.clear(row)
        self._series.clear(row)
        self._free.append(row)
        self._bulk = None

    def observe(self, key: str, *, ready: int, starting: int = 0, path: RequestPath | None = None) -> None:
        """Note how many replicas of a revision serve and how many are on the way, and how requests reach it."""
        row = self._rows.get(key)
        if row is None:
            return
        self._ready[row] = ready
        self._starting[row] = starting
        if path is None:
            return
        single = self._singles.get(row)
        if single is not None:
            single.path = path
        else:
            self._states.set_path(row, path)

    # Load

    def report(self, report: Report, now: float) -> Acceptance:
        """Take a report; a repeated one, one from too long ago and one of an unknown revision change nothing."""
        moment = self._moment(now)
        row = self._rows.get(report.revision)
        if row is None:
            accepted = Acceptance.UNKNOWN_REVISION
        else:
            accepted = self._demands.accept(row, report, min(report.ended + self._shift, moment), moment)
        self._reports[accepted] += 1
        return accepted

    def report_batch(self, batch: ReportBatch, now: float) -> int:
        """Take what one reporter tells of many revisions at once. How many of its reports count."""
        moment = self._moment(now)
        find = self._rows.get
        rows = np.fromiter((find(name, -1) for name in batch.revisions), np.int64, len(batch.revisions))
        ended = min(batch.ended + self._shift, moment)
        accepted, others = self._demands.accept_batch(rows, batch, ended, moment)
        known = int(np.count_nonzero(rows >= 0))
        self._reports[Acceptance.UNKNOWN_REVISION] += len(rows) - known
        self._reports[Acceptance.ACCEPTED] += accepted
        self._reports[others] += known - accepted
        return accepted

    def poke(self, key: str, in_flight: int, now: float) -> Decision | None:
        """Decide at once for a revision with `in_flight` requests waiting or running.

        Returns a decision that raises the scale, at least from zero to one, or None when there is nothing to
        raise. The requests count for this decision and are not recorded.
        """
        row = self._rows.get(key)
        if row is None or in_flight < 1:
            return None
        self._pokes += 1
        decision, _ = self._decide(row, self._moment(now), in_flight)
        if decision.scale is None:
            return None
        self._told[row] = decision.scale
        self._pokes_that_raised += 1
        return decision

    def tick(self, now: float) -> Tick:
        """Decide for every revision."""
        self._ticks += 1
        moment = self._moment(now)
        self._demands.settle(moment)
        rows, keys = self._bulk_rows()
        made = self._decide_in_bulk(rows, moment)
        is_news = self._histories.append_changed(rows, made)
        decisions: list[Decision] = []
        if self._singles:
            decided = [self._decide(row, moment, None) for row in self._singles]
            decisions = [decision for decision, _ in decided]
            is_news = np.append(is_news, [is_new for _, is_new in decided])
            rows = np.append(rows, np.fromiter(self._singles, np.int64))
        self._note(moment, rows, made, decisions)
        acting = self._tell(rows, made, decisions)
        return Tick(keys, made, decisions, np.flatnonzero(is_news), np.flatnonzero(acting))

    # What is known

    def settings(self, key: str) -> RevisionSettings | None:
        """What a revision is scaled by."""
        row = self._rows.get(key)
        return None if row is None else self._settings[row]

    def latest(self, key: str) -> Decision | None:
        """The latest decision for a revision."""
        row = self._rows.get(key)
        return None if row is None else self._latest_of(row)

    def history(self, key: str) -> list[Decision]:
        """The latest 64 decisions that differ in outcome or reason from the one before, oldest first."""
        row = self._rows.get(key)
        return [] if row is None else self._histories.decisions(row, key)

    def series(self, key: str) -> Series:
        """Load over the short window, replicas wanted and ready over time: see `Series`. Raises KeyError."""
        return self._series.of(self._rows[key])

    def statistics(self) -> EngineStatistics:
        """A snapshot for metrics."""
        latest = ((key, self._latest_of(row)) for key, row in self._rows.items())
        return EngineStatistics(
            revisions=len(self._rows),
            reporters=self._demands.reporters(),
            ticks=self._ticks,
            pokes=self._pokes,
            pokes_that_raised=self._pokes_that_raised,
            reports=dict(self._reports),
            latest={key: decision for key, decision in latest if decision},
        )

    def save(self, now: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """What a later engine may go on with, by revision, as JSON: see `SavedRevision`. Left out are revisions at
        rest, and those that go while it is read."""
        self._moment(now)
        rows, keys = self._bulk_rows()
        active = [keys[index] for index in np.flatnonzero(~self._states.at_rest(rows)).tolist()]
        for key in (*active, *(self._names[row] for row in self._singles)):
            row = self._rows.get(key)
            if row is not None:
                state, activity, _ = self._state(row)
                saved = SavedRevision.of(state, activity, now, shift=self._shift)
                if not saved.is_at_rest:
                    yield key, saved.to_json()

    # Rows

    def _begin(
        self,
        key: str,
        settings: RevisionSettings,
        moment: float,
        ready: int,
        initialized: bool,
        saved: SavedRevision | None,
    ) -> None:
        row = self._free.pop() if self._free else len(self._names)
        if row == len(self._names):
            self._names.append(key)
            self._settings.append(settings)
            self._reserve(row + 1)
        self._rows[key] = row
        self._names[row] = key
        self._settings[row] = settings
        self._ready[row], self._starting[row], self._told[row] = ready, 0, NONE
        self._latest[row]["at"] = np.nan
        begun = self._decider(settings).start(settings, ready, moment)
        resumed = resume(saved, begun, settings, ready, moment, initialized=initialized) if saved else None
        state, activity = resumed or (begun, bounds.begin(settings, ready, moment, initialized=initialized))
        self._place(row, settings, state, activity, RequestPath())
        self._demands.add(row, settings, moment)

    def _change(self, row: int, settings: RevisionSettings, moment: float) -> None:
        before = self._settings[row]
        if before == settings:
            return
        state, activity, path = self._state(row)
        if self._decider(before) is not self._decider(settings):
            state = self._decider(settings).start(settings, int(self._ready[row]), moment)
        self._settings[row] = settings
        self._place(row, settings, state, activity, path)
        self._demands.follow(row, before, settings, moment)

    def _place(
        self, row: int, settings: RevisionSettings, state: State, activity: Activity, path: RequestPath
    ) -> None:
        """Put a row where it is decided: with all the others, or by itself."""
        if settings.autoscaler_class == KPA and not settings.metrics:
            self._singles.pop(row, None)
            self._columns.set(row, settings)
            self._states.set(row, state, activity, path)
        else:
            self._singles[row] = _Single(self._decider(settings), state, activity, path, self._latest_of(row))
        self._bulk = None

    def _decider(self, settings: RevisionSettings) -> ScalingClass:
        return self._classes.get(settings.autoscaler_class) or self._classes[KPA]

    def _state(self, row: int) -> tuple[State, Activity, RequestPath]:
        single = self._singles.get(row)
        if single is not None:
            return single.state, single.activity, single.path
        return self._states.get(row)

    def _reserve(self, rows: int) -> None:
        have = len(self._ready)
        if rows <= have:
            return
        more = max(_LEAST_ROWS, have, rows - have)
        self._ready = np.append(self._ready, np.zeros(more, np.int64))
        self._starting = np.append(self._starting, np.zeros(more, np.int64))
        self._told = np.append(self._told, np.full(more, NONE))
        latest = _no_decisions(have + more)
        latest[:have] = self._latest
        self._latest, self._latest_words = latest, words_of(latest)

    def _bulk_rows(self) -> tuple[IntArray, list[str]]:
        """The rows that are decided in bulk, and their revisions' names."""
        if self._bulk is None:
            names = [key for key, row in self._rows.items() if row not in self._singles]
            self._bulk = np.array([self._rows[name] for name in names], np.int64), names
        return self._bulk

    # Deciding

    def _decide_in_bulk(self, rows: IntArray, moment: float) -> Records:
        ready = self._ready[rows]
        stable, panic, known = self._demands.averages(rows, ready, moment)
        missing = np.where(known, 0, _NO_DATA).astype(np.uint8)
        inputs = BulkInputs(stable, panic, ready, self._starting[rows], missing)
        made = bulk.decide(self._columns, self._states, rows, inputs, moment)
        self._states.store(rows, made)
        self._latest_words[rows] = words_of(made)  # copied whole, a tenth of what field by field takes
        return made

    def _decide(self, row: int, moment: float, in_flight: int | None) -> tuple[Decision, bool]:
        """The decision of one revision, and whether its outcome or a reason is new."""
        key, settings = self._names[row], self._settings[row]
        single = self._singles.get(row)
        state, activity, path = self._state(row)
        ready = int(self._ready[row])
        averages = self._demands.average(row, ready, moment)
        stable, panic = averages or (0.0, 0.0)
        inputs = Inputs(
            stable,
            panic,
            ready,
            int(self._starting[row]),
            None if averages else Missing.NO_DATA,
            in_flight,
            tuple(self._signals.read(key, metric, moment) for metric in settings.metrics),
        )
        decider = single.decider if single else self._decider(settings)
        wished = decider.decide(settings, state, inputs, moment)
        decision = bounds.bound(settings, activity, wished, path, moment, revision=key)
        assert decision.activity is not None, "set by bound"
        record = records.encode(decision)
        if single is not None:
            single.state, single.activity, single.latest = decision.state, decision.activity, decision
        else:
            self._states.set(row, decision.state, decision.activity)
        self._latest[row] = record
        return decision, self._histories.append(row, record, records.details(decision))

    def _latest_of(self, row: int) -> Decision | None:
        single = self._singles.get(row)
        if single is not None:
            return single.latest
        record = self._latest[row]
        if math.isnan(record["at"]):
            return None
        return records.decode(record, self._names[row], delay=self._states.delay(row))

    def _tell(self, rows: IntArray, made: Records, decisions: Sequence[Decision]) -> BoolArray:
        """Which decisions are to be acted on; from now on their scales count as told."""
        scales = made["scale"].astype(np.int64)
        if decisions:
            scales = np.append(scales, [NONE if each.scale is None else each.scale for each in decisions])
        at_hand = self._ready[rows] + self._starting[rows]
        acting: BoolArray = (scales != NONE) & ((scales != self._told[rows]) | (scales != at_hand))
        self._told[rows] = np.where(acting, scales, self._told[rows])
        return acting

    def _note(self, moment: float, rows: IntArray, made: Records, decisions: Sequence[Decision]) -> None:
        """A point of every revision's series."""
        load = np.where(made["missing"] == 0, made["panic_value"], np.nan)
        want = np.where(made["scale"] == NONE, made["wanted"], made["scale"]).astype(np.int64)
        if decisions:
            load = np.append(load, [each.panic_value if each.valid else np.nan for each in decisions])
            want = np.append(want, [_want(each) for each in decisions])
        self._series.note(moment, rows, load, want, self._ready[rows])

    def _moment(self, now: float) -> float:
        """`now` as the engine counts it: never less than before."""
        moment = now + self._shift
        behind = self._time - moment
        if behind > _GREATEST_SLEW:
            self._shift += math.ceil(behind)
            moment = now + self._shift
        self._time = max(self._time, moment)
        return self._time


def _no_decisions(count: int) -> Records:
    """Stand for the latest decision of revisions that have none yet."""
    made = np.zeros(count, RECORD)
    made["at"] = np.nan
    return made


def _want(decision: Decision) -> int:
    wanted = decision.wanted if decision.scale is None else decision.scale
    return NONE if wanted is None else wanted

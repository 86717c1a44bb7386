"""Demand on many revisions in columns: what reports and batches come to, whoever sends them, whenever."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.plain_demand import PlainDemand
from upwell.autoscaler.arrays import IntArray
from upwell.autoscaler.demand import JITTER, MAX_REPORTERS, SILENCE, Acceptance, Demands
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report, ReportBatch

BEGIN = 1_700_000_000.0
SETTINGS = RevisionSettings()
RPS = replace(SETTINGS, metric="rps")
KEY = "default/hello"


def array(rows: Sequence[int]) -> IntArray:
    return np.array(rows, dtype=np.int64)


def report(
    ended: float,
    concurrency: float,
    *,
    sequence: int,
    reporter: str = "replica",
    span: float = 1.0,
    requests: int = 0,
) -> Report:
    return Report(KEY, reporter, sequence, ended - span, ended, concurrency, 0.0, requests, 0)


def batch(
    ended: float,
    values: Sequence[float],
    *,
    sequence: int,
    reporter: str = "gateway",
    spans: Sequence[float] | None = None,
    proxied: Sequence[float] | None = None,
) -> ReportBatch:
    """Concurrencies of `values`, and as many requests."""
    nothing = [0.0] * len(values)
    return ReportBatch(
        reporter=reporter,
        sequence=sequence,
        ended=ended,
        revisions=[f"default/r{index}" for index in range(len(values))],
        spans=spans or [1.0] * len(values),
        average_concurrency=values,
        average_proxied_concurrency=proxied or nothing,
        request_count=[int(value) for value in values],
        proxied_request_count=nothing,
    )


def demands_of(*settings: RevisionSettings) -> Demands:
    demands = Demands()
    for row, each in enumerate(settings):
        demands.add(row, each, BEGIN)
    return demands


def averages(
    demands: Demands, rows: Sequence[int], now: float, ready: int = 0
) -> list[tuple[float, float] | None]:
    """Of the rows, settled first; those looked at one by one are the same."""
    demands.settle(now)
    stable, panic, known = demands.averages(array(rows), array([ready] * len(rows)), now)
    found = [
        (float(one), float(other)) if is_known else None
        for one, other, is_known in zip(stable, panic, known, strict=True)
    ]
    assert found == [demands.average(row, ready, now) for row in rows]
    assert not stable[~known].any()
    assert not panic[~known].any()
    return found


# Columns against the plainest form.

ROWS = (
    SETTINGS,
    replace(SETTINGS, stable_window=6.0, panic_window=1),
    RPS,
    replace(SETTINGS, aggregation="weighted-exponential", stable_window=15.0, panic_window=3),
    replace(SETTINGS, stable_window=30.0, panic_window=7),
)


@dataclass(frozen=True)
class Single:
    row: int
    reporter: str
    ahead: int
    """How far the sequence is ahead of the reporter's latest; 0 repeats it."""
    lag: float
    span: float
    value: int


@dataclass(frozen=True)
class Batch:
    reporter: str
    repeated: bool
    lag: float
    values: dict[int, int]
    span: float


@dataclass(frozen=True)
class Pass:
    seconds: float


@dataclass(frozen=True)
class Follow:
    row: int
    window: float


# Parts of a second that add up without rounding, so that a span is the same whichever way it is told.
def seconds(most: float) -> st.SearchStrategy[float]:
    return st.integers(0, int(most * 1024)).map(lambda parts: parts / 1024)


lags = st.one_of(st.just(0.0), seconds(3), st.sampled_from([2.5, 10.0, 70.0]))
spans = st.one_of(st.just(1.0), seconds(2.5), st.sampled_from([0.0, 40.0, 86_400.0]))
row_numbers = st.integers(0, len(ROWS) - 1)
events = st.lists(
    st.one_of(
        st.builds(Pass, st.one_of(st.just(1.0), seconds(2), st.sampled_from([7.5, 100.0]))),
        st.builds(
            Single,
            row_numbers,
            st.sampled_from(["a", "b"]),
            st.one_of(st.just(1), st.integers(-70, 3)),
            lags,
            spans,
            st.integers(0, 1000),
        ),
        st.builds(
            Batch,
            st.sampled_from(["g", "h"]),
            st.booleans(),
            lags,
            st.dictionaries(row_numbers, st.integers(0, 1000), max_size=len(ROWS)),
            spans,
        ),
        st.builds(Follow, row_numbers, st.sampled_from([6.0, 20.0, 60.0])),
    ),
    max_size=40,
)


@dataclass
class Both:
    """The columns and as many plain demands, told the same."""

    demands: Demands = field(default_factory=lambda: demands_of(*ROWS))
    plain: list[PlainDemand] = field(default_factory=lambda: [PlainDemand(each) for each in ROWS])
    sequences: dict[str, int] = field(default_factory=dict)
    batches: dict[str, tuple[int, float]] = field(default_factory=dict)
    now: float = BEGIN
    settled: float = BEGIN

    def pass_time(self, event: Pass) -> None:
        self.now += event.seconds
        if self.now - self.settled >= 2:
            self.compare()

    def single(self, event: Single) -> None:
        name = f"{event.row}/{event.reporter}"
        sequence = max(0, self.sequences.get(name, 100) + event.ahead)
        self.sequences[name] = max(sequence, self.sequences.get(name, 0))
        ended = self.now - event.lag
        sent = report(
            ended,
            event.value,
            sequence=sequence,
            reporter=event.reporter,
            span=event.span,
            requests=event.value,
        )
        accepted = self.demands.accept(event.row, sent, ended, self.now)
        assert accepted is self.plain[event.row].accept(sent, ended, self.now)

    def batch(self, event: Batch) -> None:
        repeated = event.repeated and event.reporter in self.batches
        sequence, ended = self.batches.get(event.reporter, (0, 0.0))
        if not repeated:
            sequence, ended = sequence + 1, self.now - event.lag
        rows, values = list(event.values), list(event.values.values())
        sent = batch(
            ended,
            [float(value) for value in values],
            sequence=sequence,
            reporter=event.reporter,
            spans=[event.span] * len(rows),
        )
        accepted = self.demands.accept_batch(array([*rows]), sent, ended, self.now).accepted
        if repeated or ended <= self.now - max(each.settings.stable_window for each in self.plain):
            assert accepted == 0
            return
        self.batches[event.reporter] = sequence, ended
        outcomes = [
            self.plain[row].accept(
                report(
                    ended,
                    value,
                    sequence=sequence,
                    reporter=f"batches of {event.reporter}",
                    span=event.span,
                    requests=value,
                ),
                ended,
                self.now,
            )
            for row, value in event.values.items()
        ]
        assert accepted == outcomes.count(Acceptance.ACCEPTED)

    def follow(self, event: Follow) -> None:
        self.compare()
        plain = self.plain[event.row]
        settings = replace(plain.settings, stable_window=event.window, panic_window=int(event.window / 10) + 1)
        self.demands.follow(event.row, plain.settings, settings, self.now)
        plain.resize(settings, self.now)

    def compare(self) -> None:
        """Settle both, and find them alike."""
        self.settled = self.now
        for plain in self.plain:
            plain.settle(self.now)
        for ready in (0, 3):
            found = averages(self.demands, range(len(ROWS)), self.now, ready)
            for one, plain in zip(found, self.plain, strict=True):
                expected = plain.averages(self.now, ready)
                assert one == (expected and pytest.approx(expected, rel=1e-9, abs=2e-6))


@given(events)
def test_columns_come_to_what_plain_demands_come_to(events: list[Pass | Single | Batch | Follow]) -> None:
    both = Both()
    for event in events:
        match event:
            case Pass():
                both.pass_time(event)
            case Single():
                both.single(event)
            case Batch():
                both.batch(event)
            case Follow():
                both.follow(event)
    for later in (0.0, 0.7, 3.0, 30.0, 200.0):
        both.now += later
        both.compare()


@given(st.floats(0, 1), st.floats(JITTER, 50), st.floats(0, 1000), st.integers(0, 1000))
def test_spreading_reports_over_seconds_loses_nothing(
    phase: float, span: float, concurrency: float, requests: int
) -> None:
    ended = BEGIN + phase
    demands = demands_of(SETTINGS, RPS, SETTINGS, RPS)
    sent = report(ended, concurrency, sequence=1, span=span, requests=requests)
    for row in (0, 1):
        assert demands.accept(row, sent, ended, ended) is Acceptance.ACCEPTED
    values = replace(batch(ended, [concurrency] * 2, sequence=1, spans=[span] * 2), request_count=[requests] * 2)
    assert demands.accept_batch(array([2, 3]), values, ended, ended).accepted == 2
    seconds = math.ceil(ended) - math.floor(ended - span)
    for row, whole in enumerate([concurrency * span, requests] * 2):
        average = demands.average(row, 0, ended + 3)
        assert average is not None
        assert average[0] * min(seconds, 60) == pytest.approx(whole, rel=1e-4, abs=2e-4)


# Batches.


def test_a_batch_counts_for_every_revision_it_names_and_only_for_those() -> None:
    demands = demands_of(SETTINGS, RPS, SETTINGS, SETTINGS)
    for second in range(1, 11):
        sent = batch(
            BEGIN + second, [10.0, 4.0, 7.0], sequence=second, spans=[1.0, 0.5, 1.0], proxied=[3.0, 0.0, 9.0]
        )
        assert demands.accept_batch(array([3, 1, 0]), sent, sent.ended, sent.ended).accepted == 3
    assert averages(demands, [0, 1, 2, 3], BEGIN + 10) == [(0.0, 0.0), (4.0, 4.0), None, (7.0, 7.0)]


def test_what_a_batch_says_of_unknown_revisions_is_left_out() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    sent = batch(BEGIN + 1, [5.0, 6.0, 7.0], sequence=1)
    assert demands.accept_batch(array([-1, 1, -1]), sent, sent.ended, sent.ended).accepted == 1
    assert averages(demands, [0, 1], BEGIN + 2) == [None, (6.0, 6.0)]
    unknown = batch(BEGIN + 2, [5.0], sequence=2)
    assert demands.accept_batch(array([-1]), unknown, unknown.ended, unknown.ended).accepted == 0
    assert Demands().accept_batch(array([-1]), unknown, unknown.ended, unknown.ended).accepted == 0
    empty = batch(BEGIN + 3, [], sequence=3)
    assert demands.accept_batch(array([]), empty, empty.ended, empty.ended).accepted == 0


def test_a_repeated_batch_counts_once_even_if_all_that_it_named_is_gone() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    sent = batch(BEGIN + 1, [5.0], sequence=1)
    assert demands.accept_batch(array([0]), sent, sent.ended, sent.ended) == (1, Acceptance.TOO_LATE)
    demands.remove(0)
    demands.settle(BEGIN + 2)
    assert demands.accept_batch(array([1]), sent, sent.ended, BEGIN + 2) == (0, Acceptance.DUPLICATE)


def test_of_a_row_named_twice_in_one_batch_the_last_mention_counts() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    sent = batch(BEGIN + 1, [5.0, 6.0, 7.0], sequence=1)
    assert demands.accept_batch(array([0, 1, 0]), sent, sent.ended, sent.ended).accepted == 2
    assert averages(demands, [0, 1], BEGIN + 2) == [(7.0, 7.0), (6.0, 6.0)]


def test_a_repeated_batch_counts_once_as_a_whole_whatever_it_names() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    first = batch(BEGIN + 1, [5.0], sequence=1)
    assert demands.accept_batch(array([0]), first, first.ended, first.ended).accepted == 1
    assert demands.accept_batch(array([0]), first, first.ended, first.ended + 0.5).accepted == 0
    assert demands.accept_batch(array([1]), first, first.ended, first.ended + 0.5).accepted == 0
    assert averages(demands, [0, 1], BEGIN + 2) == [(5.0, 5.0), None]


def test_batches_out_of_order_land_in_their_own_second() -> None:
    demands = demands_of(SETTINGS)
    for second in (1, 2, 5, 6, 4, 3):
        sent = batch(BEGIN + second, [10.0 * second], sequence=second)
        assert demands.accept_batch(array([0]), sent, sent.ended, BEGIN + 6).accepted == 1
    demands.settle(BEGIN + 6)
    late = batch(BEGIN + 3, [90.0], sequence=1, reporter="another")
    assert demands.accept_batch(array([0]), late, late.ended, BEGIN + 6.2).accepted == 1
    assert averages(demands, [0], BEGIN + 7) == [(50.0, 58.0)]


def test_a_batch_older_than_the_windows_is_left_out_where_it_is_and_may_come_for_others() -> None:
    short = replace(SETTINGS, stable_window=6.0, panic_window=1)
    demands = demands_of(short, SETTINGS)
    sent = batch(BEGIN, [8.0, 9.0], sequence=1)
    assert demands.accept_batch(array([0, 1]), sent, sent.ended, BEGIN + 10).accepted == 1
    assert [each is None for each in averages(demands, [0, 1], BEGIN + 10)] == [True, False]
    assert demands.accept_batch(array([0, 1]), replace(sent, sequence=2), sent.ended, BEGIN + 60).accepted == 0


def test_a_reporter_of_batches_that_began_anew_is_heard() -> None:
    demands = demands_of(SETTINGS)
    accepted = []
    for second, sequence in ((1, 100), (1, 30), (2, 1), (2, 1), (3, 2)):
        sent = batch(BEGIN + second, [4.0], sequence=sequence)
        accepted.append(demands.accept_batch(array([0]), sent, sent.ended, sent.ended).accepted)
    assert accepted == [1, 0, 1, 0, 1]
    assert averages(demands, [0], BEGIN + 4) == [(4.0, 4.0)]


def test_a_batch_and_the_reports_of_replicas_add_up_and_wait_for_each_other() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    for second in range(1, 9):
        sent = batch(BEGIN + second + 0.6, [10.0, 1.0], sequence=second)
        demands.accept(
            0, report(BEGIN + second + 0.2, 5.0, sequence=second), BEGIN + second + 0.2, BEGIN + second + 0.2
        )
        demands.accept_batch(array([0, 1]), sent, sent.ended, sent.ended)
    demands.accept(0, report(BEGIN + 9.2, 5.0, sequence=9), BEGIN + 9.2, BEGIN + 9.2)
    # The ninth second is not complete: the gateway has spoken up to 8.6 only.
    (_, panic), (_, alone) = (each or (0.0, 0.0) for each in averages(demands, [0, 1], BEGIN + 9.3))
    assert (panic, alone) == (15.0, 1.0)


def test_who_falls_silent_is_waited_for_until_overdue_and_then_counts_as_nothing() -> None:
    demands = demands_of(SETTINGS)
    bursts = []
    for second in range(1, 18):
        for reporter in ("g1", "g2")[: 2 if second <= 10 else 1]:
            sent = batch(BEGIN + second, [6.0], sequence=second, reporter=reporter)
            demands.accept_batch(array([0]), sent, sent.ended, sent.ended)
        bursts += averages(demands, [0], BEGIN + second + 0.1)
    assert [panic for _, panic in filter(None, bursts)] == [12.0] * 12 + [9.0, 8.0, 7.0, 6.0, 6.0]


def test_a_gateway_that_stops_naming_a_revision_does_not_hold_up_the_others() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    for second in range(1, 31):
        rows = [0, 1] if second <= 10 else [1]
        sent = batch(BEGIN + second, [6.0] * len(rows), sequence=second)
        demands.accept_batch(array(rows), sent, sent.ended, sent.ended)
    assert averages(demands, [0, 1], BEGIN + 30) == [(6.0, 0.0), (6.0, 6.0)]


def test_revisions_named_in_another_order_are_not_waited_for_longer() -> None:
    demands = demands_of(SETTINGS, SETTINGS, SETTINGS)
    for second in range(1, 9):
        rows = [0, 1, 2] if second % 2 else [2, 0]
        sent = batch(BEGIN + second, [float(row + 1) for row in rows], sequence=second)
        demands.accept_batch(array(rows), sent, sent.ended, sent.ended)
    assert averages(demands, [0, 2], BEGIN + 8) == [(1.0, 1.0), (3.0, 3.0)]
    last = batch(BEGIN + 9, [7.0, 7.0, 7.0], sequence=9)
    demands.accept_batch(array([1, 2, 0]), last, last.ended, last.ended)
    (_, first), (_, third) = (each or (0.0, 0.0) for each in averages(demands, [0, 2], BEGIN + 9))
    assert (first, third) == (2.0, 3.666667)


def test_a_laptop_that_slept_reports_its_night_within_the_window() -> None:
    demands = demands_of(SETTINGS, SETTINGS, replace(SETTINGS, stable_window=3600.0, panic_window=360))
    first = batch(BEGIN + 1, [6.0, 6.0, 6.0], sequence=1)
    demands.accept_batch(array([0, 1, 2]), first, first.ended, first.ended)
    night = 36_000.0
    woken = BEGIN + 1 + night
    long = batch(woken, [2.0, 8.0, 4.0], sequence=2, spans=[night, 1.0, night])
    assert demands.accept_batch(array([0, 1, 2]), long, woken, woken).accepted == 3
    assert averages(demands, [0, 1, 2], woken + 0.5) == [(2.0, 2.0), (8.0, 8.0), (4.0, 4.0)]


def test_reports_that_nobody_looks_at_for_long_are_not_lost() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    for second in range(1, 41):
        sent = batch(BEGIN + second, [9.0], sequence=second)
        demands.accept_batch(array([0]), sent, sent.ended, sent.ended)
        demands.accept(1, report(BEGIN + second, 3.0, sequence=second), BEGIN + second, BEGIN + second)
    assert averages(demands, [0, 1], BEGIN + 41) == [(9.0, 9.0), (3.0, 3.0)]


def test_numpy_columns_are_as_good_as_lists() -> None:
    demands = demands_of(SETTINGS)
    ones = np.ones(1)
    sent = ReportBatch("gateway", 1, BEGIN + 1, (KEY,), ones, 5 * ones, ones, ones, 0 * ones)
    assert demands.accept_batch(array([0]), sent, sent.ended, sent.ended).accepted == 1
    assert averages(demands, [0], BEGIN + 2) == [(4.0, 4.0)]


# Revisions come, change and go.


def test_a_row_that_is_used_again_knows_nothing_of_the_revision_before() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    sent = batch(BEGIN + 1, [5.0, 6.0], sequence=1)
    demands.accept_batch(array([0, 1]), sent, sent.ended, sent.ended)
    single = report(BEGIN + 1, 5.0, sequence=1)
    demands.accept(0, single, single.ended, single.ended)
    demands.remove(0)
    demands.add(0, SETTINGS, BEGIN + 1)
    assert averages(demands, [0], BEGIN + 1) == [None]
    # What looks like a repetition is none, and nobody is waited for who reported on the one before.
    assert demands.accept(0, single, single.ended, single.ended) is Acceptance.ACCEPTED
    assert averages(demands, [0, 1], BEGIN + 2) == [(5.0, 5.0), (6.0, 6.0)]


def test_windows_of_revisions_that_are_gone_are_used_again() -> None:
    hour = replace(SETTINGS, stable_window=3600.0)
    demands = demands_of(hour)
    demands.add(1, hour, BEGIN)
    demands.remove(1)
    tracemalloc.start()
    for _ in range(100):
        demands.add(1, hour, BEGIN)
        demands.remove(1)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 3600 * 8, "no room for one window more"


def test_reporters_are_forgotten_by_the_longest_window_that_there_is() -> None:
    demands = demands_of(SETTINGS, replace(SETTINGS, stable_window=3600.0))
    sent = batch(BEGIN + 1, [5.0, 6.0], sequence=1)
    demands.accept_batch(array([0, 1]), sent, sent.ended, sent.ended)
    demands.settle(BEGIN + 100)
    assert demands.reporters() == 1
    demands.remove(1)
    demands.settle(BEGIN + 100)
    assert demands.reporters() == 0


def test_rows_far_apart_and_windows_of_all_lengths_keep_to_themselves() -> None:
    demands = Demands()
    rows = [0, 500, 70, 9000]
    for row, window in zip(rows, (6, 60, 6, 30), strict=True):
        demands.add(row, replace(SETTINGS, stable_window=float(window), panic_window=window // 6), BEGIN)
    for second in range(1, 70):
        sent = batch(BEGIN + second, [1.0, 2.0, 3.0, 4.0], sequence=second)
        assert demands.accept_batch(array(rows), sent, sent.ended, sent.ended).accepted == 4
    assert averages(demands, rows, BEGIN + 69) == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)]


def test_other_lengths_keep_what_was_recorded_and_another_metric_does_not() -> None:
    demands = demands_of(SETTINGS, SETTINGS, SETTINGS)
    for second in range(1, 31):
        sent = batch(BEGIN + second, [6.0, 6.0, 6.0], sequence=second)
        demands.accept_batch(array([0, 1, 2]), sent, sent.ended, sent.ended)
    demands.settle(BEGIN + 30)
    changed = replace(SETTINGS, stable_window=12.0, panic_window=3)
    demands.follow(0, SETTINGS, changed, BEGIN + 30)
    demands.follow(1, SETTINGS, RPS, BEGIN + 30)
    demands.follow(2, SETTINGS, replace(SETTINGS, max_scale=3), BEGIN + 30)
    assert averages(demands, [0, 1, 2], BEGIN + 30) == [(6.0, 6.0), None, (6.0, 6.0)]


def test_silence_makes_demand_unknown_only_where_replicas_ought_to_speak() -> None:
    demands = demands_of(SETTINGS)
    sent = batch(BEGIN + 1, [5.0], sequence=1)
    demands.accept_batch(array([0]), sent, sent.ended, sent.ended)
    assert averages(demands, [0], BEGIN + 1 + SILENCE, ready=1) != [None]
    assert averages(demands, [0], BEGIN + 1.5 + SILENCE, ready=1) == [None]
    assert averages(demands, [0], BEGIN + 1.5 + SILENCE) != [None]
    assert averages(demands, [0], BEGIN + 61.5) == [None]


def test_reporters_are_bounded_and_fade() -> None:
    demands = demands_of(SETTINGS, SETTINGS)
    for index in range(MAX_REPORTERS + 10):
        moment = BEGIN + 1 + index * 1e-6
        demands.accept(0, report(moment, 0.0, sequence=1, reporter=f"r{index}"), moment, BEGIN + 2)
        sent = batch(moment, [1.0], sequence=1, reporter=f"g{index}")
        demands.accept_batch(array([1]), sent, moment, BEGIN + 2)
    assert demands.reporters() == 2 * MAX_REPORTERS
    oldest = batch(BEGIN + 1, [1.0], sequence=1, reporter="g0")
    assert demands.accept_batch(array([1]), oldest, oldest.ended, BEGIN + 2).accepted == 1
    latest = report(moment, 0.0, sequence=1, reporter=f"r{MAX_REPORTERS + 9}")
    assert demands.accept(0, latest, moment, BEGIN + 2) is Acceptance.DUPLICATE
    first = report(BEGIN + 1, 0.0, sequence=1, reporter="r0")
    assert demands.accept(0, first, BEGIN + 1, BEGIN + 2) is Acceptance.ACCEPTED, "it was forgotten"
    demands.settle(BEGIN + 40)
    assert demands.reporters() == 2 * MAX_REPORTERS
    demands.settle(BEGIN + 100)
    assert demands.reporters() == 0

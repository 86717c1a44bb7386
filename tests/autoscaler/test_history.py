"""Of each revision the latest decisions that differ in outcome or reason are kept, within a bounded memory."""

from __future__ import annotations

import tracemalloc
from collections import deque
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.bulk import Rows
from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.decision import Bound, Decision, Inputs, Missing, SignalWant
from upwell.autoscaler.history import HISTORY, Histories
from upwell.autoscaler.records import Records, decode, details, encode
from upwell.autoscaler.series import SeriesColumns
from upwell.autoscaler.spec import RevisionSettings

BEGIN = 1_700_000_000.0
SETTINGS = RevisionSettings()
ROWS = 3


def some_rows(count: int) -> Rows:
    rows = Rows()
    for row in range(count):
        rows.settings.set(row, SETTINGS)
        rows.states.set(row, kpa.start(SETTINGS, 0, BEGIN), bounds.begin(SETTINGS, 0, BEGIN, initialized=True))
    return rows


def decided(ready: int, **changes: Any) -> Decision:
    """A decision for `ready` replicas, told from others by their number."""
    state = kpa.start(SETTINGS, 0, BEGIN)
    activity = bounds.begin(SETTINGS, ready, BEGIN, initialized=True)
    wished = kpa.decide(SETTINGS, state, Inputs(70.0 * ready, 70.0 * ready, ready), BEGIN)
    return bounds.bound(SETTINGS, activity, wished, bounds.RequestPath(), BEGIN)._replace(**changes)


def keep(histories: Histories, row: int, decision: Decision) -> bool:
    return histories.append(row, encode(decision), details(decision))


loads = st.sampled_from([0.0, 0.0, 50.0, 100.0, 900.0])
ticks = st.lists(st.tuples(*[st.tuples(loads, st.integers(0, 3), st.booleans())] * ROWS), max_size=80)


@given(ticks)
def test_exactly_the_decisions_whose_outcome_changed_are_kept(
    story: list[tuple[tuple[float, int, bool], ...]],
) -> None:
    rows, histories = some_rows(ROWS), Histories()
    expected: list[deque[Decision]] = [deque(maxlen=HISTORY) for _ in range(ROWS)]
    for number, tick in enumerate(story):
        now = BEGIN + 20.0 * number
        missing = [Missing.NO_DATA if unknown else None for _, _, unknown in tick]
        inputs = [Inputs(load, load, ready, 0, lost) for (load, ready, _), lost in zip(tick, missing, strict=True)]
        records = rows.decide(range(ROWS), inputs, [now] * ROWS)
        changed = histories.append_changed(np.arange(ROWS), records)
        for row, record in enumerate(records):
            decision = decode(record, "ns/r")
            kept = expected[row]
            is_news = not kept or kept[-1].outcome != decision.outcome
            assert changed[row] == is_news
            if is_news:
                kept.append(decision)
    for row in range(ROWS):
        assert histories.decisions(row, "ns/r") == list(expected[row])


def test_the_latest_are_kept_oldest_first() -> None:
    histories = Histories()
    for ready in range(1, 3 * HISTORY):
        assert keep(histories, 7, decided(ready))
        assert not keep(histories, 7, decided(ready, at=BEGIN + 5))
    kept = histories.decisions(7, "ns/r")
    assert [decision.ready for decision in kept] == list(range(2 * HISTORY, 3 * HISTORY))
    assert all(one.outcome != two.outcome for one, two in pairwise(kept))
    assert len(histories.of(7)) == HISTORY


def test_rows_that_have_no_decision_have_no_history() -> None:
    histories = Histories()
    assert len(histories.of(0)) == 0
    keep(histories, 4, decided(1))
    assert histories.decisions(3, "ns/r") == histories.decisions(1000, "ns/r") == []
    histories.clear(1000)


def test_a_cleared_row_shares_nothing_with_the_next_that_gets_its_number_or_memory() -> None:
    histories = Histories()
    signals = (SignalWant("cpu", 1.0, 2.0, 1, 1),)
    for ready in range(1, 20):
        keep(histories, 0, decided(ready, signals=signals, binding="cpu"))
    histories.clear(0)
    assert histories.decisions(0, "ns/r") == []
    plain = decided(19)
    for row in (0, 1):
        assert keep(histories, row, plain)
        assert histories.decisions(row, "") == [plain]


def test_signals_and_the_binding_metric_are_kept_as_long_as_their_decision() -> None:
    histories = Histories()
    decisions = [
        decided(ready, metric="memory", signals=(SignalWant("cpu", ready, 2.0, 1, 1),), binding="cpu")
        for ready in range(1, HISTORY + 11)
    ]
    for decision in decisions:
        keep(histories, 2, decision)
    assert histories.decisions(2, "") == decisions[10:]
    plain = [decided(ready) for ready in range(200, 200 + HISTORY)]
    for decision in plain:
        keep(histories, 2, decision)
    assert histories.decisions(2, "") == plain


def test_another_binding_metric_is_news_also_when_none_binds_any_more() -> None:
    histories = Histories()
    told = [decided(1, binding="cpu"), decided(1, binding="cpu"), decided(1, binding="memory")]
    assert [keep(histories, 0, decision) for decision in told] == [True, False, True]
    record = np.array([encode(decided(1))])
    assert histories.append_changed(np.array([0]), record).tolist() == [True]
    assert histories.append_changed(np.array([0]), record).tolist() == [False]
    assert [decision.binding for decision in histories.decisions(0, "")] == ["cpu", "memory", ""]


@pytest.mark.parametrize("bound", Bound)
def test_another_reason_for_the_same_scale_is_news(bound: Bound) -> None:
    histories = Histories()
    keep(histories, 0, decided(1))
    assert keep(histories, 0, decided(1, bounds=(bound,)))
    assert histories.decisions(0, "")[-1].bounds == (bound,)


def test_a_reason_given_twice_is_one_reason() -> None:
    twice = decided(1, bounds=(Bound.MIN_SCALE, Bound.MIN_SCALE))
    assert decode(encode(twice)).bounds == (Bound.MIN_SCALE,)


def changing(records: Records, number: int) -> Records:
    changed = records.copy()
    changed["scale"] = number
    return changed


def test_memory_is_bounded_with_everything_full_and_small_for_what_rests() -> None:
    count = 4000
    numbers = np.arange(count)
    ones = np.ones(count, np.int64)
    tracemalloc.start()
    try:
        rows, histories, series = some_rows(count), Histories(), SeriesColumns()
        records = rows.decide(numbers.tolist(), [Inputs(0.0, 0.0, 0)] * count, [BEGIN] * count)
        for number in range(5):
            histories.append_changed(numbers, changing(records, number))
        for tick in range(200):
            series.note(BEGIN + 2 * tick, numbers, np.full(count, np.nan), -ones, 0 * ones)
        resting, _ = tracemalloc.get_traced_memory()
        for number in range(5, 5 + 2 * HISTORY):
            histories.append_changed(numbers, changing(records, number))
        for tick in range(200, 1000):
            series.note(BEGIN + 20 * tick, numbers, np.full(count, 3.0), ones, ones)
        full, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert resting / count < 2_500
    assert full / count < 16_000

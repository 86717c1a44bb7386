"""Windows in a bank give the answers of windows on their own, to the bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import golden
from upwell.autoscaler.annotations import LINEAR, WEIGHTED_EXPONENTIAL
from upwell.autoscaler.arrays import IntArray
from upwell.autoscaler.bank import NEVER, WindowBank
from upwell.autoscaler.window import LinearWindow, WeightedWindow

BEGIN = 1_700_000_000
KINDS: dict[str, type[LinearWindow]] = {LINEAR: LinearWindow, WEIGHTED_EXPONENTIAL: WeightedWindow}
AGGREGATIONS = pytest.mark.parametrize("aggregation", KINDS)
SLOTS = 5


def array(slots: Iterable[int]) -> IntArray:
    return np.array(list(slots), dtype=np.int64)


def bank_of(window: float, aggregation: str, slots: int = SLOTS) -> WindowBank:
    bank = WindowBank(window, aggregation)
    for slot in range(slots):
        bank.clear(slot)
    return bank


@dataclass(frozen=True)
class Record:
    """What is recorded `passed` seconds after the step before it, by slot; late where that is negative."""

    passed: int
    values: dict[int, float]


@dataclass(frozen=True)
class Resize:
    """A new length for all windows."""

    window: float


lengths = st.one_of(st.integers(1, 30).map(float), st.sampled_from([1.5, 6.5, 59.9, 60.0]))
values = st.one_of(st.just(0.0), st.floats(0, 1e6), st.sampled_from([0.1, 1 / 3, 1e-300]))
steps = st.lists(
    st.one_of(
        st.builds(
            Record,
            st.one_of(st.just(1), st.integers(-12, 40)),
            st.dictionaries(st.integers(0, SLOTS - 1), values, max_size=SLOTS),
        ),
        st.builds(Resize, lengths),
    ),
    max_size=40,
)


@AGGREGATIONS
@given(length=lengths, steps=steps, looked_at=st.lists(st.integers(-3, 70), min_size=1, max_size=3))
def test_a_bank_answers_as_as_many_windows(
    aggregation: str, length: float, steps: list[Record | Resize], looked_at: list[int]
) -> None:
    bank = bank_of(length, aggregation)
    windows = [KINDS[aggregation](length) for _ in range(SLOTS)]
    now = BEGIN
    for step in steps:
        if isinstance(step, Record):
            now += step.passed
            bank.record(array(step.values), now, np.array(list(step.values.values())))
            for slot, value in step.values.items():
                windows[slot].record(now, value)
        else:
            smaller = WindowBank(step.window, aggregation)
            for slot, window in enumerate(windows):
                copy = bank.get(slot)
                copy.resize(now, step.window)
                smaller.put(slot, copy)
                window.resize(now, step.window)
            bank = smaller
        for later in looked_at:
            averages = bank.averages(now + later + 0.75, array(range(SLOTS)))
            assert averages.tolist() == [window.average(now + later + 0.75) for window in windows]
    assert [bank.get(slot).contents for slot in range(SLOTS)] == [window.contents for window in windows]
    newest = [NEVER if window.newest is None else window.newest for window in windows]
    assert bank.newest[:SLOTS].tolist() == newest


SERIES = [
    series
    for series in golden.rows("window_averages.json.gz", "series")
    if series["type"] in ("linear", "weighted") and series["granularity_s"] == 1
]


class Banks:
    """Banks of every length, in which each series of the golden data has the slot of its place among them."""

    def __init__(self, series: list[dict[str, Any]]) -> None:
        self.aggregations = [WEIGHTED_EXPONENTIAL if each["type"] == "weighted" else LINEAR for each in series]
        self.lengths = [float(each["window_s"]) for each in series]
        self.banks = dict[tuple[float, str], WindowBank]()
        for slot in range(len(series)):
            self.bank(slot).clear(slot)

    def bank(self, slot: int) -> WindowBank:
        key = self.lengths[slot], self.aggregations[slot]
        return self.banks.setdefault(key, WindowBank(*key))

    def resize(self, slot: int, now: float, window: float) -> None:
        copy = self.bank(slot).get(slot)
        copy.resize(now, window)
        self.lengths[slot] = float(window)
        self.bank(slot).put(slot, copy)

    def record(self, now: float, values: dict[int, float]) -> None:
        for bank, slots in self.together(values):
            bank.record(array(slots), int(now), np.array([values[slot] for slot in slots], dtype=np.float64))

    def averages(self, now: float, slots: Iterable[int]) -> dict[int, float]:
        found = dict[int, float]()
        for bank, members in self.together(slots):
            found |= dict(zip(members, bank.averages(now, array(members)).tolist(), strict=True))
        return found

    def together(self, slots: Iterable[int]) -> list[tuple[WindowBank, list[int]]]:
        members = defaultdict[int, list[int]](list)
        for slot in slots:
            members[id(self.bank(slot))].append(slot)
        return [(self.bank(slots[0]), slots) for slots in members.values()]


def operations() -> list[tuple[float, str, dict[int, list[float]]]]:
    """The operations of all series in the order of their places, those alike and at the same time together."""
    ordered = list[tuple[float, str, dict[int, list[float]]]]()
    for place in range(max(len(series["ops"]) for series in SERIES)):
        alike = defaultdict[tuple[int, str], dict[int, list[float]]](dict)
        for slot, series in enumerate(SERIES):
            if place < len(series["ops"]):
                kind, milliseconds, *values = series["ops"][place]
                alike[milliseconds, kind][slot] = values
        ordered += [(milliseconds / 1000, kind, rows) for (milliseconds, kind), rows in alike.items()]
    return ordered


@pytest.mark.skipif(not SERIES, reason="the golden series are not in the folder")
def test_golden_average_windows_side_by_side_in_banks() -> None:
    banks = Banks(SERIES)
    windows = [
        KINDS[aggregation](length) for aggregation, length in zip(banks.aggregations, banks.lengths, strict=True)
    ]
    answers = 0
    for now, kind, rows in operations():
        if kind == "r":
            banks.record(now, {slot: float(value) for slot, [value] in rows.items()})
            for slot, [value] in rows.items():
                windows[slot].record(now, value)
        elif kind == "w":
            for slot, [length] in rows.items():
                banks.resize(slot, now, length)
                windows[slot].resize(now, length)
        else:
            for slot, average in banks.averages(now, rows).items():
                expected, empty = rows[slot]
                weighted = banks.aggregations[slot] == WEIGHTED_EXPONENTIAL
                relative, absolute = (1e-9, 1e-12) if weighted else (0.0, 2e-6)
                assert average == pytest.approx(expected, rel=relative, abs=absolute)
                assert average == windows[slot].average(now)
                assert banks.bank(slot).get(slot).empty(now) == bool(empty)
                answers += 1
    assert answers == sum(kind == "a" for series in SERIES for kind, *_ in series["ops"])


@AGGREGATIONS
def test_a_slot_that_is_cleared_holds_nothing_of_the_window_before_it(aggregation: str) -> None:
    bank = bank_of(10, aggregation)
    bank.record(array([1, 2]), BEGIN, np.array([5.0, 7.0]))
    bank.clear(1)
    assert bank.newest[1] == NEVER
    assert bank.get(1).contents == KINDS[aggregation](10).contents
    assert bank.averages(BEGIN, array([1]))[0] == 0.0
    assert bank.averages(BEGIN, array([2]))[0] == bank.get(2).average(BEGIN) > 0.0


@AGGREGATIONS
def test_a_bank_grows_with_what_it_holds(aggregation: str) -> None:
    bank = bank_of(3, aggregation, 2)
    bank.record(array([0, 1]), BEGIN, np.array([1.0, 2.0]))
    before = bank.averages(BEGIN, array([0, 1])).tolist()
    bank.clear(1000)
    bank.record(array([1000]), BEGIN, np.array([2.0]))
    assert bank.averages(BEGIN, array([0, 1, 1000])).tolist() == [*before, before[1]]


def test_load_that_is_over_leaves_nothing_behind_in_any_slot() -> None:
    bank = bank_of(60, LINEAR)
    slots = array(range(SLOTS))
    loads = np.array([0.1, 0.2, 0.3, 1 / 3, 1e6])
    for second in range(100):
        bank.record(slots, BEGIN + second, loads * (1 + second / 7))
    for second in range(100, 280):
        bank.record(slots, BEGIN + second, np.zeros(SLOTS))
    assert bank.averages(BEGIN + 279, slots).tolist() == [0.0] * SLOTS
    assert [bank.get(slot).contents.total for slot in range(SLOTS)] == [0.0] * SLOTS


@AGGREGATIONS
def test_a_slot_that_is_ahead_of_the_time_asked_for_does_not_count_twice(aggregation: str) -> None:
    bank = bank_of(6, aggregation, 3)
    windows = [KINDS[aggregation](6) for _ in range(3)]
    for second in range(12):
        slots = [slot for slot in range(3) if second < 12 - 3 * slot]
        bank.record(array(slots), BEGIN + second, np.array([1.0 + second + slot for slot in slots]))
        for slot in slots:
            windows[slot].record(BEGIN + second, 1.0 + second + slot)
    for later in range(4, 20):
        averages = bank.averages(BEGIN + later, array([2, 0, 1]))
        assert averages.tolist() == [windows[slot].average(BEGIN + later) for slot in (2, 0, 1)]


def test_no_slots_are_no_averages() -> None:
    for aggregation in KINDS:
        bank = bank_of(6, aggregation)
        bank.record(array([]), BEGIN, np.zeros(0))
        assert bank.averages(BEGIN, array([])).tolist() == []
        assert bank.newest[:SLOTS].tolist() == [NEVER] * SLOTS

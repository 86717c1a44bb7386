"""Axes of any range: what is shown lies between the ends, and ticks ascend and are few."""

from __future__ import annotations

from datetime import UTC
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.charts.axes import fit, usable
from upwell.runtime.charts.model import Axis, Unit

MOST = 8
NUMBERS = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5)
TIMES = st.lists(st.floats(0, 4e9), min_size=1, max_size=5)


@given(NUMBERS, st.sampled_from([Unit.NUMBER, Unit.COUNT, Unit.MILLISECONDS, Unit.PERCENT]))
def test_a_vertical_axis_begins_and_ends_at_a_tick_and_covers_its_values(values: list[float], unit: Unit) -> None:
    axis = Axis("", unit)
    scale = fit(axis, values, MOST, vertical=True)
    ticks = [place for place, _ in scale.marks]
    shown = [each for each in values if usable(axis, each)]
    slack = 1e-6 * max(1.0, *map(abs, shown))
    assert ticks[0] == scale.least <= min(shown) + slack
    assert ticks[-1] == scale.greatest >= max(shown) - slack
    assert all(after > before for before, after in pairwise(ticks))
    assert 2 <= len(ticks) <= MOST + 2


@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=5))
def test_a_logarithmic_axis_covers_its_values(values: list[float]) -> None:
    scale = fit(Axis("", logarithmic=True), values, MOST, vertical=True)
    ticks = [place for place, _ in scale.marks]
    assert scale.least <= min(values) * (1 + 1e-6)
    assert scale.greatest >= max(values) * (1 - 1e-6)
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= MOST + 2


@given(TIMES, st.sampled_from([Unit.TIME, Unit.SECONDS]))
def test_ticks_of_time_lie_within_what_is_shown(values: list[float], unit: Unit) -> None:
    scale = fit(Axis("", unit, zone=UTC), values, MOST, vertical=False)
    ticks = [place for place, _ in scale.marks]
    assert scale.least <= min(values) <= max(values) <= scale.greatest
    assert all(scale.least <= each <= scale.greatest for each in ticks)
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= MOST + 2


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=5))
def test_counts_have_no_tick_between_whole_numbers(values: list[int]) -> None:
    scale = fit(Axis("", Unit.COUNT), map(float, values), MOST, vertical=True)
    assert all(place == round(place) for place, _ in scale.marks)


@pytest.mark.parametrize(
    ("axis", "values", "labels"),
    [
        (Axis(), (0.0, 3.2), ["0", "1", "2", "3", "4"]),
        (Axis(), (0.0, 40_000.0), ["0", "10k", "20k", "30k", "40k"]),
        (Axis("", Unit.MILLISECONDS), (0.0, 400.0), ["0", "100 ms", "200 ms", "300 ms", "400 ms"]),
        (Axis("", Unit.SECONDS), (0.0, 240.0), ["0", "1 min", "2 min", "3 min", "4 min"]),
        (Axis("", Unit.TIME, zone=UTC), (0.0, 10_800.0), ["1 Jan", "01:00", "02:00", "03:00"]),
    ],
)
def test_ticks_read_in_the_unit_of_their_axis(axis: Axis, values: tuple[float, ...], labels: list[str]) -> None:
    scale = fit(axis, values, 5, vertical=axis.unit not in (Unit.SECONDS, Unit.TIME))
    assert [label for _, label in scale.marks] == labels

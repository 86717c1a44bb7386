"""Windows reproduce Knative's averages and maximum, late, early and resized ones included."""

from __future__ import annotations

from typing import Any

import pytest

from support import golden
from upwell.autoscaler.window import LinearWindow, MaxWindow, WeightedWindow

SERIES = golden.rows("window_averages.json.gz", "series")
LINEAR_TOLERANCE = 2e-6
WEIGHTED_TOLERANCE = 1e-9


def identity(series: dict[str, Any]) -> str:
    return f"{series['id']}-{series['name']}"


def of(*kinds: str) -> list[dict[str, Any]]:
    return [series for series in SERIES if series["type"] in kinds]


@pytest.mark.parametrize("series", of("max_time_window"), ids=identity)
def test_golden_max_window(series: dict[str, Any]) -> None:
    window = MaxWindow(series["window_s"], series["granularity_s"])
    for _, milliseconds, value, current in series["ops"]:
        window = window.record(milliseconds / 1000, value)
        assert window.current == current


@pytest.mark.parametrize("series", of("linear", "weighted"), ids=identity)
def test_golden_average_window(series: dict[str, Any]) -> None:
    weighted = series["type"] == "weighted"
    window = (WeightedWindow if weighted else LinearWindow)(series["window_s"], series["granularity_s"])
    answers = 0
    for kind, milliseconds, *values in series["ops"]:
        now = milliseconds / 1000
        if kind == "r":
            window.record(now, values[0])
        elif kind == "w":
            window.resize(now, values[0])
        else:
            average, empty = values
            expected = (
                pytest.approx(average, rel=WEIGHTED_TOLERANCE, abs=1e-12)
                if weighted
                else pytest.approx(average, abs=LINEAR_TOLERANCE)
            )
            assert window.average(now) == expected
            assert window.empty(now) == bool(empty)
            answers += 1
    assert answers

"""Decisions reproduce Knative's, from the observed values and from the samples through our own windows."""

from __future__ import annotations

from typing import Any

import pytest

from support import golden
from support.scenarios import COLUMNS, SUITE, Pipeline, Tick, begin, ticks_of
from upwell.autoscaler import kpa
from upwell.autoscaler.decision import Decision
from upwell.autoscaler.window import WeightedWindow

SCENARIOS = golden.rows(SUITE, "scenarios")


def identity(scenario: dict[str, Any]) -> str:
    return f"{scenario['id']}-{scenario['name']}"


def check(decision: Decision, tick: Tick) -> None:
    row = tick.row
    assert decision.valid == bool(row["valid"])
    if decision.valid:
        assert decision.desired == row["desired"]
        assert decision.excess_burst_capacity == row["ebc"]
    assert decision.panicking == bool(row["in_panic"])
    assert decision.state.max_panic_replicas == row["max_panic_pods"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=identity)
def test_golden_decisions_from_observed_values(scenario: dict[str, Any]) -> None:
    state = begin(scenario)
    for tick in ticks_of(scenario):
        decision = kpa.decide(tick.settings, state, tick.observed, tick.now)
        check(decision, tick)
        state = decision.state


@pytest.mark.parametrize(
    "scenario", [scenario for scenario in SCENARIOS if "metric_pipeline" in scenario], ids=identity
)
def test_golden_decisions_from_samples_through_windows(scenario: dict[str, Any]) -> None:
    state = begin(scenario)
    pipeline = Pipeline(scenario)
    tolerance = 1e-9 if isinstance(pipeline.stable, WeightedWindow) else 1e-6
    for tick in ticks_of(scenario):
        inputs = pipeline.inputs(tick)
        decision = kpa.decide(tick.settings, state, inputs, tick.now)
        check(decision, tick)
        if not tick.row["error"]:
            observed = (tick.row["observed_stable"], tick.row["observed_panic"])
            assert (inputs.stable, inputs.panic) == pytest.approx(observed, rel=tolerance, abs=tolerance)
        state = decision.state


def test_golden_tick_columns_are_those_read_here() -> None:
    assert tuple(golden.load(SUITE)["tick_columns"]) == COLUMNS

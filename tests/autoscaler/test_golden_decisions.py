"""Decisions reproduce Knative's, from the observed values and from the samples through our own windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support import golden
from upwell.autoscaler import kpa
from upwell.autoscaler.decision import Decision, Inputs, Missing, State
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import LinearWindow, WeightedWindow

SCENARIOS = golden.rows("kpa_decisions.json.gz", "scenarios")
COLUMNS = (
    "t_ms",
    "observed_stable",
    "observed_panic",
    "ready_pods",
    "error",
    "desired",
    "ebc",
    "valid",
    "in_panic",
    "max_panic_pods",
)
# 3 is a count that finds no replicas at all, which Knative takes for zero.
MISSING = {1: Missing.NO_DATA, 2: Missing.METRICS_FAILED, 4: Missing.REPLICA_COUNT_FAILED}


def identity(scenario: dict[str, Any]) -> str:
    return f"{scenario['id']}-{scenario['name']}"


def settings_of(spec: dict[str, Any]) -> RevisionSettings:
    return RevisionSettings(
        max_scale_up_rate=spec["max_scale_up_rate"],
        max_scale_down_rate=spec["max_scale_down_rate"],
        metric=spec["scaling_metric"] or "concurrency",
        target_value=spec["target_value"],
        total_value=spec["total_value"],
        target_burst_capacity=spec["target_burst_capacity"],
        panic_threshold=spec["panic_threshold"],
        stable_window=spec["stable_window_s"],
        scale_down_delay=spec["scale_down_delay_s"],
        initial_scale=spec["initial_scale"],
        reachable=spec["reachable"],
        activation_scale=spec["activation_scale"],
    )


def ticks_of(scenario: dict[str, Any]) -> Iterator[tuple[dict[str, Any], RevisionSettings, float]]:
    """Each tick's row, the settings that hold then and its Unix time."""
    updates = {update["before_tick"]: update["spec"] for update in scenario.get("spec_updates", ())}
    settings = settings_of(scenario["spec"])
    for index, row in enumerate(scenario["ticks"]):
        if index in updates:
            settings = settings_of(updates[index])
        tick = dict(zip(COLUMNS, row, strict=True))
        yield tick, settings, (scenario["t0_unix_ms"] + tick["t_ms"]) / 1000


def begin(scenario: dict[str, Any]) -> State:
    return kpa.start(
        settings_of(scenario["spec"]), scenario["ready_pods_at_creation"], scenario["t0_unix_ms"] / 1000
    )


def check(decision: Decision, tick: dict[str, Any]) -> None:
    assert decision.valid == bool(tick["valid"])
    if decision.valid:
        assert decision.desired == tick["desired"]
        assert decision.excess_burst_capacity == tick["ebc"]
    assert decision.panicking == bool(tick["in_panic"])
    assert decision.state.max_panic_replicas == tick["max_panic_pods"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=identity)
def test_golden_decisions_from_observed_values(scenario: dict[str, Any]) -> None:
    state = begin(scenario)
    for tick, settings, now in ticks_of(scenario):
        inputs = Inputs(
            tick["observed_stable"],
            tick["observed_panic"],
            tick["ready_pods"],
            missing=MISSING.get(tick["error"]),
        )
        decision = kpa.decide(settings, state, inputs, now)
        check(decision, tick)
        state = decision.state


class Pipeline:
    """Samples through our windows, fed up to the time of each tick."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        described = scenario["metric_pipeline"]
        kind = WeightedWindow if described["aggregation"] == "weighted-exponential" else LinearWindow
        self.stable = kind(scenario["spec"]["stable_window_s"])
        self.panic = kind(described["panic_window_s"])
        self.tolerance = 1e-9 if kind is WeightedWindow else 1e-6
        self._empty_is_missing = described["empty_window_is_no_data_error"]
        self._t0 = scenario["t0_unix_ms"]
        self._samples = described["samples"]
        self._fed = 0

    def inputs(self, tick: dict[str, Any], now: float) -> Inputs:
        while self._fed < len(self._samples) and self._samples[self._fed][0] <= tick["t_ms"]:
            milliseconds, value = self._samples[self._fed]
            for window in (self.stable, self.panic):
                window.record((self._t0 + milliseconds) / 1000, value)
            self._fed += 1
        missing = MISSING.get(tick["error"]) if tick["error"] != 1 else None
        if missing is None and self._empty_is_missing and self.stable.empty(now):
            missing = Missing.NO_DATA
        return Inputs(self.stable.average(now), self.panic.average(now), tick["ready_pods"], missing=missing)


@pytest.mark.parametrize(
    "scenario", [scenario for scenario in SCENARIOS if "metric_pipeline" in scenario], ids=identity
)
def test_golden_decisions_from_samples_through_windows(scenario: dict[str, Any]) -> None:
    state = begin(scenario)
    pipeline = Pipeline(scenario)
    for tick, settings, now in ticks_of(scenario):
        inputs = pipeline.inputs(tick, now)
        decision = kpa.decide(settings, state, inputs, now)
        check(decision, tick)
        if not tick["error"]:
            observed = (tick["observed_stable"], tick["observed_panic"])
            assert (inputs.stable, inputs.panic) == pytest.approx(
                observed, rel=pipeline.tolerance, abs=pipeline.tolerance
            )
        state = decision.state


def test_golden_tick_columns_are_those_read_here() -> None:
    assert tuple(golden.load("kpa_decisions.json.gz")["tick_columns"]) == COLUMNS

"""All golden scenarios at once, a row and a clock each, come to Knative's decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support import golden
from support.bulk import Rows
from support.scenarios import SUITE, Pipeline, Tick, begin, settings_of, ticks_of
from upwell.autoscaler import bounds
from upwell.autoscaler.decision import Decision, Inputs


def recorded(tick: Tick) -> dict[str, Any]:
    row = tick.row
    of_demand = (row["desired"], row["ebc"]) if row["valid"] else None
    return {
        "valid": bool(row["valid"]),
        "of demand": of_demand,
        "in panic": bool(row["in_panic"]),
        "held": row["max_panic_pods"],
    }


def came_to(decision: Decision) -> dict[str, Any]:
    of_demand = (decision.desired, decision.excess_burst_capacity) if decision.valid else None
    return {
        "valid": decision.valid,
        "of demand": of_demand,
        "in panic": decision.panicking,
        "held": decision.state.max_panic_replicas,
    }


def differences(scenarios: list[dict[str, Any]], inputs_of: list[Callable[[Tick], Inputs]]) -> list[str]:
    """Runs all scenarios side by side, the first tick of each, then the second; says where one differs."""
    rows, stories = Rows(), [ticks_of(scenario) for scenario in scenarios]
    for row, scenario in enumerate(scenarios):
        settings, ready = settings_of(scenario["spec"]), scenario["ready_pods_at_creation"]
        now = scenario["t0_unix_ms"] / 1000
        rows.states.set(row, begin(scenario), bounds.begin(settings, ready, now, initialized=True))
    found = []
    for number in range(max(map(len, stories))):
        going = [row for row, ticks in enumerate(stories) if number < len(ticks)]
        ticks = [stories[row][number] for row in going]
        for row, tick in zip(going, ticks, strict=True):
            rows.settings.set(row, tick.settings)
        inputs = [inputs_of[row](tick) for row, tick in zip(going, ticks, strict=True)]
        decisions = rows.decisions(going, inputs, [tick.now for tick in ticks])
        for row, tick, decision in zip(going, ticks, decisions, strict=True):
            expected, actual = recorded(tick), came_to(decision)
            if actual != expected:
                found.append(f"{scenarios[row]['name']}, tick {number}: {actual}, recorded {expected}")
    return found


def test_golden_scenarios_at_once_from_observed_values() -> None:
    scenarios = golden.load(SUITE)["scenarios"]
    assert differences(scenarios, [lambda tick: tick.observed] * len(scenarios)) == []


def test_golden_pipelines_at_once_from_samples_through_windows() -> None:
    scenarios = [each for each in golden.load(SUITE)["scenarios"] if "metric_pipeline" in each]
    if not scenarios:
        pytest.skip("no scenario has samples")
    assert differences(scenarios, [Pipeline(scenario).inputs for scenario in scenarios]) == []


def test_golden_differences_are_found() -> None:
    scenarios = golden.load(SUITE)["scenarios"]
    wrong = [
        {**each, "ticks": [[*tick[:5], tick[5] + 1, *tick[6:]] for tick in each["ticks"]]} for each in scenarios
    ]
    valid = sum(tick.row["valid"] for each in scenarios for tick in ticks_of(each))
    assert len(differences(wrong, [lambda tick: tick.observed] * len(wrong))) == valid > 0

"""The golden scenarios of decisions: their settings, ticks and samples."""

from __future__ import annotations

from typing import Any, NamedTuple

from upwell.autoscaler import kpa
from upwell.autoscaler.decision import Inputs, Missing, State
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import LinearWindow, WeightedWindow

SUITE = "kpa_decisions.json.gz"
COLUMNS = (
    *("t_ms", "observed_stable", "observed_panic", "ready_pods", "error"),
    *("desired", "ebc", "valid", "in_panic", "max_panic_pods"),
)
# 3 is a count that finds no replicas at all, which Knative takes for zero.
MISSING = {1: Missing.NO_DATA, 2: Missing.METRICS_FAILED, 4: Missing.REPLICA_COUNT_FAILED}


class Tick(NamedTuple):
    """One evaluation: its row by column, the settings that hold then and its Unix time."""

    row: dict[str, Any]
    settings: RevisionSettings
    now: float

    @property
    def observed(self) -> Inputs:
        row = self.row
        missing = MISSING.get(row["error"])
        return Inputs(row["observed_stable"], row["observed_panic"], row["ready_pods"], missing=missing)


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


def ticks_of(scenario: dict[str, Any]) -> list[Tick]:
    updates = {update["before_tick"]: update["spec"] for update in scenario.get("spec_updates", ())}
    settings = settings_of(scenario["spec"])
    ticks = []
    for index, values in enumerate(scenario["ticks"]):
        if index in updates:
            settings = settings_of(updates[index])
        row = dict(zip(COLUMNS, values, strict=True))
        ticks.append(Tick(row, settings, (scenario["t0_unix_ms"] + row["t_ms"]) / 1000))
    return ticks


def begin(scenario: dict[str, Any]) -> State:
    settings = settings_of(scenario["spec"])
    return kpa.start(settings, scenario["ready_pods_at_creation"], scenario["t0_unix_ms"] / 1000)


class Pipeline:
    """A scenario's samples through our windows, fed up to the time of each tick."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        described = scenario["metric_pipeline"]
        kind = WeightedWindow if described["aggregation"] == "weighted-exponential" else LinearWindow
        self.stable = kind(scenario["spec"]["stable_window_s"])
        self.panic = kind(described["panic_window_s"])
        self._empty_is_missing = described["empty_window_is_no_data_error"]
        self._t0 = scenario["t0_unix_ms"]
        self._samples = described["samples"]
        self._fed = 0

    def inputs(self, tick: Tick) -> Inputs:
        row, now = tick.row, tick.now
        while self._fed < len(self._samples) and self._samples[self._fed][0] <= row["t_ms"]:
            milliseconds, value = self._samples[self._fed]
            for window in (self.stable, self.panic):
                window.record((self._t0 + milliseconds) / 1000, value)
            self._fed += 1
        missing = MISSING.get(row["error"]) if row["error"] != 1 else None
        if missing is None and self._empty_is_missing and self.stable.empty(now):
            missing = Missing.NO_DATA
        return Inputs(self.stable.average(now), self.panic.average(now), row["ready_pods"], missing=missing)

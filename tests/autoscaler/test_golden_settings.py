"""ConfigMap and annotations come to the settings that Knative makes of them, and are refused where it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from support import golden
from upwell.autoscaler.spec import AutoscalerConfig, RevisionSettings
from upwell.functions.errors import InvalidSettings

ROWS = golden.rows("decider_specs.json.gz", "rows")


def spec_of(settings: RevisionSettings) -> dict[str, Any]:
    """The settings under the names of the recorded data."""
    return {
        "max_scale_up_rate": settings.max_scale_up_rate,
        "max_scale_down_rate": settings.max_scale_down_rate,
        "scaling_metric": settings.metric,
        "target_value": settings.target_value,
        "total_value": settings.total_value,
        "target_burst_capacity": settings.target_burst_capacity,
        "panic_threshold": settings.panic_threshold,
        "stable_window_s": settings.stable_window,
        "scale_down_delay_s": settings.scale_down_delay,
        "initial_scale": settings.initial_scale,
        "reachable": settings.reachable,
        "activation_scale": settings.activation_scale,
    }


@pytest.mark.parametrize("row", [row for row in ROWS if row.get("config_error")])
def test_golden_config_map_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings):
        AutoscalerConfig.from_config_map(row["config"])


@pytest.mark.parametrize("row", [row for row in ROWS if not row.get("config_error")])
def test_golden_settings_of_a_revision(row: dict[str, Any]) -> None:
    settings = AutoscalerConfig.from_config_map(row["config"]).resolve(
        row["annotations"],
        container_concurrency=row["container_concurrency"],
        reachability=row["reachability"],
    )
    assert spec_of(settings) == row["spec"]
    assert settings.panic_window == row["panic_window_s"]
    assert (settings.min_scale, settings.max_scale) == (row["min_scale"], row["max_scale"])

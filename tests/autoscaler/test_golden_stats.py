"""Request accounting reproduces Knative's queue-proxy event for event."""

from __future__ import annotations

from typing import Any

import pytest

from support import golden
from upwell.autoscaler.stats import RequestStats

SERIES = golden.rows("request_stats.json.gz", "series")


@pytest.mark.parametrize("series", SERIES, ids=lambda series: str(series["id"]))
def test_golden_request_stats(series: dict[str, Any]) -> None:
    stats = RequestStats(series["created_us"] / 1e6)
    open_requests = 0
    for kind, microseconds, *expected in series["ops"]:
        now = microseconds / 1e6
        if kind == "report":
            averages = stats.report(now)
            assert averages[:4] == pytest.approx(tuple(expected), rel=1e-9, abs=1e-9)
        elif kind.endswith("in"):
            stats.start(now, kind.startswith("proxied"))
            open_requests += 1
        else:
            stats.finish(now, kind.startswith("proxied"))
            open_requests -= 1
        assert stats.in_flight == open_requests

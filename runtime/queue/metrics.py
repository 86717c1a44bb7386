"""What a queue layer counts: responses by status, durations, and the requests it holds.

Plain integer work on the request's path; the platform makes Prometheus families of the snapshots.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from upwell.runtime.measures import BUCKETS


class QueueMetrics:
    """Totals since the replica began."""

    __slots__ = ("buckets", "responses", "seconds", "timeouts", "total")

    def __init__(self) -> None:
        self.total = 0
        self.timeouts = 0
        self.seconds = 0.0
        self.responses: dict[int, int] = {}
        self.buckets = [0] * (len(BUCKETS) + 1)

    def observe(self, status: int, seconds: float) -> None:
        """Count one request that is over."""
        self.total += 1
        self.seconds += seconds
        self.responses[status] = self.responses.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1

    def snapshot(self, depth: int) -> dict[str, Any]:
        """The totals as JSON values; `depth` is the number of requests held now.

        ``responses`` counts by status code (a string), ``buckets`` by duration: one more than BUCKETS, each for
        itself, the last for what exceeds them all; ``seconds`` is the sum of durations.
        """
        return {
            "responses": {str(status): count for status, count in self.responses.items()},
            "buckets": list(self.buckets),
            "seconds": self.seconds,
            "timeouts": self.timeouts,
            "queue_depth": depth,
        }

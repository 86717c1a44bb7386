"""What all metrics share: duration buckets, and a revision's labels in the spelling of Knative's export."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Final

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds: fine where a warm function answers, and reaching the default timeout."""

LABELS: Final = ("k8s_namespace_name", "kn_revision_name")


def revision_labels(revision: str) -> list[str]:
    """The values of LABELS for `namespace/name`."""
    namespace, _, name = revision.partition("/")
    return [namespace, name]


def cumulative(counts: Iterable[int]) -> list[tuple[str, float]]:
    """(upper bound, count so far) pairs for Prometheus, from counts a bucket in the order of BUCKETS."""
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]

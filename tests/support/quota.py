"""Requests and policies for tests of quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upwell.functions.api.scheduling import QuotaSchedulingPolicy, QuotaSchedulingSpec
from upwell.runtime.http.messages import Headers, RequestHead
from upwell.runtime.mesh.attributes import Attributes
from upwell.runtime.mesh.request import PolicyRequest

HEADER = "http.request.header."
GUEST = (b"user_type", b"guest")
SUBSCRIBER = (b"user_type", b"subscriber")


def request_with(
    *fields: tuple[bytes, bytes], deadline: float | None = None, events: Sequence[Attributes] = ()
) -> PolicyRequest:
    """A request with these header fields."""
    headers: Headers = [(b"host", b"httpbin.example.com"), *fields]
    index = dict(reversed(headers))
    head = RequestHead(b"GET", b"/get?a=1", b"1.1", headers, index)
    return PolicyRequest(head, deadline=deadline, events=events)


def priorities(**parameters: Any) -> dict[str, Any]:
    """The article's manifest, with fields of the scheduler set."""
    workloads = [
        {
            "name": name,
            "label_matcher": {"match_labels": {f"{HEADER}user_type": name}},
            "parameters": {"priority": priority},
        }
        for name, priority in (("guest", 50.0), ("subscriber", 200.0))
    ]
    return {
        "apiVersion": "istio.alibabacloud.com/v1",
        "kind": "QuotaSchedulingPolicy",
        "metadata": {"name": "quotascheduling", "namespace": "istio-system"},
        "spec": {
            "quota_scheduler": {
                "bucket_capacity": 10,
                "fill_amount": 10,
                "rate_limiter": {"interval": "1s"},
                "scheduler": {"workloads": workloads, **parameters},
                "selectors": [{"service": "httpbin-00001-private.default.svc.cluster.local"}],
            }
        },
    }


def quota_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The part that holds the quota."""
    quota: dict[str, Any] = manifest["spec"]["quota_scheduler"]
    return quota


def spec_of(manifest: dict[str, Any]) -> QuotaSchedulingSpec:
    """What a valid manifest specifies."""
    return QuotaSchedulingPolicy.model_validate(manifest).spec

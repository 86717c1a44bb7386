"""Manifests of what benchmarks measure: services on one image, and policies for their routes and revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

IMAGE: Final = "bench/function"
OPERATOR: Final = "istio-system"
REVISIONS: Final = "knative-serving"
NEVER: Final = 1_000_000_000
"""A number that no load reaches: the policy looks at every request and lets it pass."""

Manifest = dict[str, Any]


def service(
    name: str,
    *,
    annotations: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    traffic: Sequence[Manifest] = (),
    **spec: Any,
) -> Manifest:
    """A Service whose template has these annotations, variables and further fields of its spec."""
    container: Manifest = {"image": IMAGE}
    if environment:
        container["env"] = [{"name": key, "value": value} for key, value in environment.items()]
    template = {"metadata": {"annotations": dict(annotations or {})}, "spec": {"containers": [container], **spec}}
    body: Manifest = {"template": template}
    if traffic:
        body["traffic"] = list(traffic)
    return _manifest("serving.knative.dev/v1", "Service", "default", name, body)


def replicas(count: int) -> dict[str, str]:
    """Annotations that hold a revision at so many replicas."""
    return {f"autoscaling.knative.dev/{bound}-scale": str(count) for bound in ("min", "max")}


def limiter(name: str, route: str, quota: int = NEVER) -> Manifest:
    """`quota` requests a second for the host of a route, as the article limits one."""
    config = {
        "limit": {"fill_interval": {"seconds": 1}, "quota": quota},
        "match": {"vhost": {"name": f"{route}.default.svc.cluster.local", "port": 80}},
    }
    spec = {"isGateway": True, "workloadSelector": {"labels": {"istio": "ingressgateway"}}, "configs": [config]}
    return _manifest("istio.alibabacloud.com/v1", "ASMLocalRateLimiter", OPERATOR, name, spec)


def breaker(name: str, revision: str, **breaker_config: Any) -> Manifest:
    """A breaker for a revision, which opens at slow requests that nothing in a benchmark reaches, unless told."""
    config = {
        "breaker_config": breaker_config
        or {"break_duration": "60s", "max_slow_requests": NEVER, "slow_request_rt": "5s", "window_size": "10s"},
        "match": {"vhost": {"name": f"{revision}-private.default.svc.cluster.local", "port": 8012}},
    }
    spec = {"workloadSelector": {"labels": {"app": "activator"}}, "configs": [config]}
    return _manifest("istio.alibabacloud.com/v1", "ASMCircuitBreaker", REVISIONS, name, spec)


def outlier_detection(name: str, revision: str, **detection: Any) -> Manifest:
    """The article's outlier detection for a revision."""
    article = {"baseEjectionTime": "20s", "consecutiveErrors": 3, "interval": "5s", "maxEjectionPercent": 100}
    spec = {"host": f"{revision}-private", "trafficPolicy": {"outlierDetection": {**article, **detection}}}
    return _manifest("networking.istio.io/v1beta1", "DestinationRule", "default", name, spec)


def quota(name: str, revision: str, amount: int = NEVER) -> Manifest:
    """The article's quota, of `amount` tokens a second, for a revision: subscribers (200) before guests (50)."""
    workloads = [
        {
            "name": kind,
            "label_matcher": {"match_labels": {"http.request.header.user_type": kind}},
            "parameters": {"priority": priority},
        }
        for kind, priority in (("guest", 50.0), ("subscriber", 200.0))
    ]
    scheduler = {
        "bucket_capacity": amount,
        "fill_amount": amount,
        "rate_limiter": {"interval": "1s"},
        "scheduler": {"workloads": workloads},
        "selectors": [{"service": f"{revision}-private.default.svc.cluster.local"}],
    }
    return _manifest(
        "istio.alibabacloud.com/v1", "QuotaSchedulingPolicy", OPERATOR, name, {"quota_scheduler": scheduler}
    )


def virtual_service(name: str, host: str, route: Manifest) -> Manifest:
    """One HTTP route for a host, to the service of that route."""
    service_host = f"{host.partition('.')[0]}.default.svc.cluster.local"
    http = [{"route": [{"destination": {"host": service_host}}], **route}]
    return _manifest("networking.istio.io/v1", "VirtualService", OPERATOR, name, {"hosts": [host], "http": http})


def _manifest(version: str, kind: str, namespace: str, name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}

"""Requests and policies for tests of Alibaba's limits and breakers."""

from __future__ import annotations

from typing import Any

from upwell.functions.api.asm import CircuitBreakerConfig, LocalRateLimiterConfig
from upwell.runtime.http.messages import Headers, RequestHead
from upwell.runtime.mesh.circuit_breaker import CircuitBreaker
from upwell.runtime.mesh.local_rate_limit import LocalRateLimit
from upwell.runtime.mesh.request import PolicyRequest

VHOST = {"vhost": {"name": "hello.default.svc.cluster.local", "port": 80}}
LIMITER = "ASMLocalRateLimiter default/limit"
BREAKER = "ASMCircuitBreaker default/break"


class Connection:
    """A client's connection: hashable, and may be referred to weakly."""


def request(
    path: str = "/",
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    client: str = "192.0.2.1",
    connection: Connection | None = None,
    events: tuple[dict[str, str], ...] = (),
) -> PolicyRequest:
    """A request as policies get it; names of headers in lower case."""
    fields: Headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    head = RequestHead(method.encode(), path.encode(), b"HTTP/1.1", fields, dict(fields))
    head.host = b"hello.default.example.com"
    return PolicyRequest(head, client=client, connection=connection, events=events)


def limit(quota: int, seconds: int = 1, nanos: int = 0, **more: Any) -> dict[str, Any]:
    """A `limit` as a manifest has it."""
    return {"fill_interval": {"seconds": seconds, "nanos": nanos}, "quota": quota, **more}


def limiter(
    base: dict[str, Any], *overrides: dict[str, Any], stepped: bool = False, **match: Any
) -> LocalRateLimit:
    """A limit with overrides; `match` are more fields of `match.vhost`."""
    config = {"match": {"vhost": {**VHOST["vhost"], **match}}, "limit": base, "limit_overrides": list(overrides)}
    return LocalRateLimit(LIMITER, LocalRateLimiterConfig.model_validate(config), stepped=stepped)


def override(limit: dict[str, Any], **matcher: Any) -> dict[str, Any]:
    """An item of `limit_overrides`."""
    return {"request_match": matcher, "limit": limit}


def breaker(**settings: Any) -> CircuitBreaker:
    """A breaker with these fields of `breaker_config`."""
    config = CircuitBreakerConfig.model_validate({"match": VHOST, "breaker_config": settings})
    return CircuitBreaker(BREAKER, config)


def admitted(
    policy: LocalRateLimit | CircuitBreaker, count: int, now: float, of: PolicyRequest | None = None
) -> int:
    """How many of `count` requests at `now` pass."""
    asked = of or request()
    return sum(policy.admit(asked, now) is None for _ in range(count))

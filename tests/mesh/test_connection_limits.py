"""Limits of connections, requests and waiting requests of a DestinationRule."""

from __future__ import annotations

from typing import Any

from support.replicas import RULE, Revision, balancing, replicas
from upwell.functions.api.traffic_policy import ConnectionPool
from upwell.runtime.mesh.connection_pool import OVERFLOW_BODY, ConnectionLimits


def limits(**pool: Any) -> ConnectionLimits:
    return ConnectionLimits.of(RULE, ConnectionPool.model_validate(pool))


def test_a_request_over_http2maxrequests_is_answered_503_overflow() -> None:
    found = limits(http={"http2MaxRequests": 2})
    assert found.admit(1) is None
    refusal = found.admit(2)
    assert refusal is not None
    assert (refusal.status, refusal.flag, refusal.policy, refusal.body) == (503, "UO", RULE, OVERFLOW_BODY)
    assert (b"x-envoy-overloaded", b"true") in refusal.headers
    assert refusal.reason == "2 requests are under way, and http2MaxRequests is 2"


def test_a_request_more_than_may_wait_is_answered_503_overflow() -> None:
    found = limits(http={"http1MaxPendingRequests": 1})
    assert found.wait(0) is None
    refusal = found.wait(1)
    assert refusal is not None
    assert refusal.reason == "1 requests wait, and http1MaxPendingRequests is 1"


def test_nothing_and_zero_are_no_limit() -> None:
    for found in (ConnectionLimits.of(RULE, None), limits(tcp={"maxConnections": 0}, http={"maxRetries": 0})):
        assert found.admit(10**6) is None
        assert found.wait(10**6) is None
        assert found.may_retry(10**6)


def test_retries_are_limited() -> None:
    found = limits(http={"maxRetries": 3})
    assert [found.may_retry(count) for count in (2, 3)] == [True, False]


def test_times_are_seconds_and_http_goes_before_tcp() -> None:
    found = limits(
        tcp={"connectTimeout": "30ms", "idleTimeout": "10s", "maxConnectionDuration": "1h"},
        http={"idleTimeout": "5s"},
    )
    assert (found.connect_timeout, found.idle_timeout, found.max_connection_seconds) == (0.03, 5.0, 3600.0)
    assert limits(tcp={"idleTimeout": "0s"}).idle_timeout == 0.0


def test_over_maxconnections_a_request_waits_but_each_replica_may_have_one() -> None:
    revision = Revision(balancing({"connectionPool": {"tcp": {"maxConnections": 2}}}), replicas("", "", ""))
    revision.hosts[0].in_flight = 2
    assert set(revision.picks(20)) == {"b", "c"}
    revision.hosts[1].in_flight = revision.hosts[2].in_flight = 1
    assert revision.pick() is None
    revision.hosts[0].in_flight = revision.hosts[1].in_flight = 0
    assert revision.pick() is not None

"""Limits of what may be under way to a service at once: DestinationRule's connectionPool, as Envoy's thresholds.

They hold for all replicas of a revision together and this gateway, and a limit of 0 is none. What is over a
limit of requests, or finds too many waiting, is answered 503 at once (`overflow`, flag UO); over the limit of
connections it waits, but a replica without any may always have one. A request that waits because no replica is
ready yet is not counted: how long a queue a cold start may have is the activator's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from upwell.functions.api.durations import seconds
from upwell.functions.api.traffic_policy import ConnectionPool, HttpSettings, TcpSettings
from upwell.runtime.mesh.policy import Cause, Refusal

OVERFLOW_BODY: Final = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one rule; 0 and None are none. Times in seconds."""

    policy: str
    """`KIND NAMESPACE/NAME` of the object that says so."""
    max_connections: int = 0
    max_pending: int = 0
    max_requests: int = 0
    max_retries: int = 0
    max_requests_per_connection: int = 0
    connect_timeout: float | None = None
    idle_timeout: float | None = None
    """After which a connection without a request is closed; 0 for never."""
    max_connection_seconds: float | None = None

    @classmethod
    def of(cls, policy: str, pool: ConnectionPool | None) -> ConnectionLimits:
        """The limits that a DestinationRule says."""
        tcp = (pool and pool.tcp) or TcpSettings()
        http = (pool and pool.http) or HttpSettings()
        return cls(
            policy,
            max_connections=tcp.max_connections or 0,
            max_pending=http.http1_max_pending_requests or 0,
            max_requests=http.http2_max_requests or 0,
            max_retries=http.max_retries or 0,
            max_requests_per_connection=http.max_requests_per_connection or 0,
            connect_timeout=_seconds(tcp.connect_timeout),
            idle_timeout=_seconds(http.idle_timeout or tcp.idle_timeout),
            max_connection_seconds=_seconds(tcp.max_connection_duration),
        )

    def admit(self, in_flight: int) -> Refusal | None:
        """Whether another request may be under way beside `in_flight` at replicas; asked before one is picked."""
        if self.max_requests and in_flight >= self.max_requests:
            return self._overflow(
                f"{in_flight} requests are under way, and http2MaxRequests is {self.max_requests}"
            )
        return None

    def wait(self, waiting: int) -> Refusal | None:
        """Whether another request may wait beside `waiting` for replicas that are ready and have no room."""
        if self.max_pending and waiting >= self.max_pending:
            return self._overflow(f"{waiting} requests wait, and http1MaxPendingRequests is {self.max_pending}")
        return None

    def may_retry(self, retrying: int) -> bool:
        """Whether another repetition may be under way beside `retrying`."""
        return not self.max_retries or retrying < self.max_retries

    def _overflow(self, reason: str) -> Refusal:
        headers = [(b"content-type", b"text/plain"), (b"x-envoy-overloaded", b"true")]
        return Refusal(self.policy, Cause.BROKEN, "UO", reason, 503, headers, OVERFLOW_BODY)


def _seconds(text: str | None) -> float | None:
    return None if text is None else seconds(text)

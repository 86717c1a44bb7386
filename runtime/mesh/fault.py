"""Faults on purpose: a wait, then an error, each for its own share of the requests (Envoy's fault filter).

Both happen before the request is sent anywhere, so no timeout runs and nothing is tried again.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from upwell.functions.api.durations import seconds
from upwell.functions.api.http_routes import HTTPFaultInjection
from upwell.functions.api.http_values import GRPC_STATUSES, Percent
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.percentage import Random, happens, share_of
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest

_BODY: Final = b"fault filter abort"
DELAY_FLAG: Final = "DI"
ABORT_FLAG: Final = "FI"


class FaultDecision(NamedTuple):
    """What becomes of a request: first the delay, then the refusal."""

    delay: float
    """Seconds; 0 for none."""
    refusal: Refusal | None


NO_FAULT: Final = FaultDecision(0.0, None)


class Fault:
    """The `fault` of a route."""

    __slots__ = ("_abort_share", "_delay", "_delay_share", "_grpc_status", "_policy", "_status")

    def __init__(self, policy: str, rule: HTTPFaultInjection) -> None:
        self._policy = policy
        delay, abort = rule.delay, rule.abort
        self._delay = 0.0 if delay is None or delay.fixed_delay is None else seconds(delay.fixed_delay)
        self._delay_share = 0
        if delay is not None:
            given = delay.percentage or (None if delay.percent is None else Percent(value=delay.percent))
            self._delay_share = share_of(given, 0.0)
        self._abort_share = 0 if abort is None else share_of(abort.percentage, 0.0)
        self._status = 200 if abort is None or abort.http_status is None else abort.http_status
        name = None if abort is None else abort.grpc_status
        self._grpc_status = None if name is None else GRPC_STATUSES.index(name)

    def decide(self, request: PolicyRequest, random: Random) -> FaultDecision:
        """What becomes of one request. The two shares are drawn one after the other, independently."""
        delay = self._delay if happens(self._delay_share, random) else 0.0
        if not happens(self._abort_share, random):
            return FaultDecision(delay, None) if delay else NO_FAULT
        return FaultDecision(delay, self._refusal(request))

    def _refusal(self, request: PolicyRequest) -> Refusal:
        headers: Headers = [(b"content-type", b"text/plain")]
        body, reason = _BODY, f"a fault was asked for: status {self._status}"
        if self._grpc_status is not None:
            reason = f"a fault was asked for: gRPC status {GRPC_STATUSES[self._grpc_status]}"
            if (request.head.header(b"content-type") or b"").startswith(b"application/grpc"):
                headers = [
                    (b"content-type", b"application/grpc"),
                    (b"grpc-status", b"%d" % self._grpc_status),
                    (b"grpc-message", _BODY),
                ]
                body = b""
        return Refusal(self._policy, Cause.FAILED, ABORT_FLAG, reason, self._status, headers, body)

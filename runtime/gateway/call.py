"""One request's life in the gateway, as a small state machine without a task of its own.

    start → dispatch → completed            a replica had a free slot
    start → (queue) → dispatch → completed   held until one had
    completed → start                        tried once more on another replica
    expired, gone                            the deadline or the client ended it, wherever it was

The deadline is the revision's timeoutSeconds, or earlier what the caller says in `X-Request-Deadline`. A call that
cannot make it is answered at once instead of being held.

An upgraded connection is at its replica, slot and accounting included, until it ends; the deadline holds for it
too, as Knative's does.

Every path ends in `_finish`, exactly once: there the slot, the timer and the accounting are given back and the
request is counted and logged. Nothing here awaits; callbacks come from the timer wheel, the forwarder and the
activator, all on one loop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from upwell.runtime.gateway.activator import Backend, Rejection
from upwell.runtime.gateway.forwarded import ClientOrigin, complete_answer, dropped_fields
from upwell.runtime.gateway.metrics import BAD_REQUEST, CLIENT_CLOSED
from upwell.runtime.gateway.routes import PathRule, RouteTarget, VirtualHost
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Changes, Forwarding, Outcome, OutcomeKind, forward
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.timers import Timer

if TYPE_CHECKING:
    from upwell.runtime.gateway.gateway import Gateway, RevisionEntry

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110, 9.2.2: may be sent again when a reused connection breaks before any byte of an answer."""

PROXIED: Final = (b"k-proxy-request", b"activator")
"""Tells the replica that this gateway accounts for the request."""
DEADLINE: Final = b"x-request-deadline"
"""Unix milliseconds by which the caller wants its answer."""
_REFUSALS: Final = {
    Rejection.QUEUE_FULL: ("UO", "pending request queue full\n"),
    Rejection.START_FAILED: ("UF", "no replica of the function could start\n"),
    Rejection.NO_REVISION: ("NC", "the revision was deleted\n"),
    Rejection.DEADLINE: ("DT", "the deadline passes before a replica could answer\n"),
}
"""Envoy's response flag of each, for the access log, and what the client is told."""
_FLAGS: Final = {
    OutcomeKind.CONNECT_FAILED: "UF",
    OutcomeKind.LOST_BEFORE_RESPONSE: "UC",
    OutcomeKind.LOST_DURING_RESPONSE: "UC",
    OutcomeKind.BAD_RESPONSE: "UPE",
}
_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")


class RequestPath(NamedTuple):
    """How a request was routed."""

    vhost: VirtualHost
    rule: PathRule
    target: RouteTarget
    origin: ClientOrigin


class Call:
    """A routed request. Implements the forwarder's observer."""

    __slots__ = (
        "attempts",
        "backend",
        "cold",
        "counted",
        "deadline",
        "dispatched_at",
        "entry",
        "exchange",
        "flag",
        "forwarding",
        "gateway",
        "path",
        "reason",
        "refused",
        "replica_name",
        "retried",
        "timer",
    )

    policy_request: PolicyRequest | None = None
    """What policies read of it, where any has a say."""

    def __init__(self, gateway: Gateway, entry: RevisionEntry, path: RequestPath, exchange: Exchange) -> None:
        self.gateway = gateway
        self.entry = entry
        self.path = path
        self.exchange = exchange
        self.backend: Backend | None = None
        self.forwarding: Forwarding | None = None
        self.timer: Timer | None = None
        self.deadline = exchange.received_at + entry.activator.limits.timeout_seconds
        self.dispatched_at = 0.0
        self.attempts = 0
        self.retried = False
        self.counted = False
        self.cold = False
        self.reason = ""
        self.flag = ""
        self.refused: tuple[str, Cause] | None = None
        self.replica_name = ""

    @property
    def policy(self) -> str:
        """The policy that answered, `KIND NAMESPACE/NAME`; empty when none did."""
        return self.refused[0] if self.refused is not None else ""

    def start(self) -> None:
        """Admit the request, count it, and poke the autoscaler when it exceeds what is ready."""
        if self._heed_caller():
            self._begin()

    def _heed_caller(self) -> bool:
        """The caller's deadline counts where it is earlier; one that cannot be read does not.

        False when it has passed: nobody waits for what a function would do then, and the request is answered.
        """
        asked = self.exchange.request.header(DEADLINE)
        if asked is None or not asked.isdigit() or len(asked) > 16:
            return True
        clock = self.gateway.clock
        left = int(asked) / 1000 - clock.now()
        self.deadline = min(self.deadline, clock.monotonic() + left)
        if left <= 0:
            self.refuse(Rejection.DEADLINE)
        return left > 0

    def _begin(self) -> None:
        """From here on the request is load."""
        self.counted = True
        self.gateway.begin(self.entry)
        self._admit()

    def _admit(self) -> None:
        entry = self.entry
        admitted = entry.activator.admit(self, self.gateway.clock.now())
        if isinstance(admitted, Backend):
            self.dispatch(admitted)
        elif admitted is None:
            self._wait()
        elif isinstance(admitted, Rejection):
            self.refuse(admitted)
        else:
            self.refuse_by(admitted)
        if entry.stats.in_flight > entry.poke_above:
            self.gateway.poke(entry)

    def _wait(self) -> None:
        """It is in the queue; one that cannot make its deadline does not stay there."""
        entry, gateway = self.entry, self.gateway
        self.cold = self.cold or not entry.activator.backends
        left = self.deadline - gateway.clock.monotonic()
        forecast = gateway.forecast(entry)
        if forecast is not None and forecast.earliest > left:
            entry.activator.leave(self)
            gateway.poke(entry)  # whoever comes again finds what this one asked for
            self._refuse(Rejection.DEADLINE, forecast.likely)
            return
        self.exchange.on_gone = self._gone
        self.timer = gateway.timers.schedule(max(0.0, left), self._expired_waiting)

    def dispatch(self, backend: Backend) -> None:
        """Send the request to `backend`, whose slot it holds."""
        gateway = self.gateway
        if self.timer is not None:
            self.timer.cancel()
        self.backend = backend
        self.replica_name = backend.replica.name
        self.attempts += 1
        self.dispatched_at = gateway.clock.monotonic()
        exchange = self.exchange
        timeout = exchange.received_at + self.entry.activator.limits.timeout_seconds
        # A replica answers its own 504 at its own deadline; of the caller's it knows nothing.
        margin = gateway.settings.replica_margin_seconds if self.deadline >= timeout else 0.0
        left = self.deadline + margin - self.dispatched_at
        self.timer = gateway.timers.schedule(max(0.0, left), self._expired_forwarding)
        self._send(backend)

    def _send(self, backend: Backend) -> None:
        add, drop, target, host = self.outgoing(self.path)
        self.forwarding = forward(
            self.exchange, backend.pool, add=add, drop=drop, observer=self, target=target, host=host
        )

    def outgoing(self, path: RequestPath) -> Changes:
        """What a replica that it goes to by `path` gets otherwise than the client sent it."""
        exchange = self.exchange
        host = path.rule.rewrite_host
        told = self.gateway.forwarded.fields(exchange, path.origin, host)
        drop = dropped_fields(exchange.request, path.target, keeps_tag=path.vhost.keeps_tag)
        return Changes([*path.target.headers, PROXIED, *told], drop, None, host)

    def response_head(self, status: int, headers: Headers) -> None:
        """Tell a caller who waited for a replica what the time went into."""
        complete_answer(self.exchange, headers)
        if self.cold:
            headers.append((b"server-timing", self._server_timing().encode()))

    def completed(self, outcome: Outcome) -> None:
        """The exchange with the replica is over, well or not."""
        self.forwarding = None
        kind = outcome.kind
        backend = self.backend
        if backend is None or kind is OutcomeKind.CANCELLED:  # our own doing
            return
        if kind is OutcomeKind.COMPLETE or (kind is OutcomeKind.CLIENT_GONE and self.exchange.switched):
            self._finish(outcome.status, "")
        elif kind is OutcomeKind.CLIENT_GONE:
            self._finish_gone()
        elif kind is OutcomeKind.CONNECT_FAILED and self.attempts < self.gateway.settings.connect_attempts:
            self.gateway.suspend(backend)
            self._again()
        elif kind is OutcomeKind.LOST_BEFORE_RESPONSE:
            # Most likely its process has ended and we shall be told in a moment: send it nothing more.
            self.gateway.suspend(backend)
            if self._may_retry(outcome):
                self.retried = True
                self._again()
            else:
                self._failed(outcome)
        else:
            self._failed(outcome)

    def _failed(self, outcome: Outcome) -> None:
        """No replica answers this request any more, or none to its end."""
        kind = outcome.kind
        self.flag = _FLAGS[kind]
        if self.exchange.responded:
            self._finish(self.exchange.status, kind.name.lower())
        else:
            self._answer(502, kind.name.lower(), "the replica failed before it answered\n")

    def _may_retry(self, outcome: Outcome) -> bool:
        exchange = self.exchange
        idempotent = exchange.request.method in IDEMPOTENT
        return idempotent and outcome.reused and not self.retried and exchange.body_replayable

    def _again(self) -> None:
        self._give_back()
        self._admit()

    def refuse(self, rejection: Rejection) -> None:
        """Answer a call that is not (any more) in the queue, with the reason and when to come again."""
        seconds = 1.0
        if rejection is Rejection.START_FAILED:
            seconds = self.entry.activator.retry_at - self.gateway.clock.now()
        self._refuse(rejection, seconds)

    def refuse_by(self, refusal: Refusal) -> None:
        """Answer a call that is not (any more) in the queue, as a policy says."""
        self.refused = (refusal.policy, refusal.cause)
        self.flag = refusal.flag
        headers = self._answer_headers(refusal.headers)
        if refusal.cause is not Cause.ANSWERED:
            headers = self.gateway.signed(headers, refusal.policy, refusal.cause)
        self.exchange.respond(refusal.status, headers, refusal.body)
        self._finish(refusal.status, refusal.cause.value)

    def _answer_headers(self, headers: Headers) -> Headers:
        """What an answer that no replica gave has besides."""
        return headers

    def _refuse(self, rejection: Rejection, seconds: float) -> None:
        self.flag, text = _REFUSALS[rejection]
        self._answer(503, rejection.value, text, retry_after=math.ceil(max(1.0, seconds)))

    def _expired_waiting(self) -> None:
        self.entry.activator.leave(self)
        self.flag = "DT"
        self._answer(504, "timeout_waiting", "activator request timeout\n")

    def _expired_forwarding(self) -> None:
        """The whole of the request has taken too long, its wait in the queue included.

        A replica that had its full time has let its own deadline and the margin pass: its event loop is blocked.
        That cannot be told of one whose connection speaks another protocol.
        """
        forwarding, backend, exchange = self.forwarding, self.backend, self.exchange
        assert forwarding is not None
        assert backend is not None
        at_replica = self.gateway.clock.monotonic() - self.dispatched_at
        blocked = at_replica >= self.entry.activator.limits.timeout_seconds and not forwarding.held_up
        blocked = blocked and not exchange.switched
        answered = exchange.responded
        self.flag = "UT"
        forwarding.cancel()
        if answered:
            self._finish(exchange.status, "timeout_replica")
        else:
            self._answer(504, "timeout_replica", "activator request timeout\n")
        if blocked:
            self.gateway.replace(backend.replica)

    def _gone(self) -> None:
        if self.forwarding is None:
            self.entry.activator.leave(self)
            self._finish_gone()

    def _finish_gone(self) -> None:
        """The client left; or the server answered in our place, as when the body breaks off or is malformed."""
        status = self.exchange.status
        if status >= 400 and not self.exchange.responded:
            self.flag = "DPE"
            self._finish(status, BAD_REQUEST)
        else:
            self.flag = "DC"
            self._finish(CLIENT_CLOSED, "client_gone")

    def _answer(self, status: int, reason: str, text: str, *, retry_after: int = 0) -> None:
        named = self.policy if self.policy and self.gateway.policing.settings.name_policies else reason
        headers: Headers = [_PLAIN, (b"x-upwell-rejected-by", named.encode("latin-1", "replace"))]
        if retry_after:
            headers.append((b"retry-after", str(retry_after).encode()))
        self.exchange.respond(status, self._answer_headers(headers), text.encode())
        self._finish(status, reason)

    def _finish(self, status: int, reason: str) -> None:
        self.exchange.on_gone = None
        self.reason = reason
        self._give_back()
        self.gateway.end(self, status)

    def _give_back(self) -> None:
        """Return the slot and the timer, and let the next waiting call have the slot."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        backend = self.backend
        if backend is not None:
            self.backend = None
            activator = self.entry.activator
            activator.release(backend)
            if activator.waiting:
                self.gateway.serve_waiting(activator)

    def _server_timing(self) -> str:
        waited = (self.dispatched_at - self.exchange.received_at) * 1000
        phases = self.backend.replica.phases if self.backend is not None else {}
        return ", ".join([f"queue;dur={waited:.1f}", *(f"{name};dur={ms:.1f}" for name, ms in phases.items())])

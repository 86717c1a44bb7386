"""The queue-proxy: what stands between a revision's callers and a program that knows nothing of us.

A request is a small state machine without a task of its own, a `Passage`:

    start → forward → completed             a slot was free, or none are counted
    start → (breaker's queue) → forward     held until one was
    completed → forward                     sent again: the connection had been used before and broke
    expired, gone                           a timeout or the caller ended it, wherever it was

Order, from outside: `OPTIONS *`, probes, accounting, the three timeouts, the breaker, the container. All of it
follows Knative's queue-proxy on the wire (docs/queue-proxy.md says where not). Every path ends in `_finish`,
exactly once. One proxy belongs to one event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from upwell.autoscaler.stats import RequestStats
from upwell.runtime.clock import Clock
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Outcome, OutcomeKind
from upwell.runtime.http.messages import BodyFraming, Headers, RequestHead
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream import UpstreamPool
from upwell.runtime.queue import probes
from upwell.runtime.queue.breaker import Breaker, QueueFull
from upwell.runtime.queue.metrics import QueueMetrics
from upwell.runtime.queue.settings import QueueSettings
from upwell.runtime.sidecar.relay import Relay
from upwell.runtime.timers import Timer, TimerWheel

TIMEOUT_TEXT: Final = b"request timeout"
QUEUE_FULL_TEXT: Final = b"pending request queue full\n"
CLIENT_CLOSED: Final = 499
"""Counted, never sent: the caller left first."""

_REPLAYABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
_REPLAY_KEYS: Final = (b"idempotency-key", b"x-idempotency-key")
_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
_FAILURES: Final = {
    OutcomeKind.CONNECT_FAILED: b"nothing listens on the container's port\n",
    OutcomeKind.LOST_BEFORE_RESPONSE: b"the container closed the connection before it answered\n",
    OutcomeKind.BAD_RESPONSE: b"the container's answer was malformed\n",
}


class Readiness(Protocol):
    """Knows whether the container is ready."""

    def ask(self, told: Callable[[bool], None]) -> None:
        """Have `told` called once, at once or later; later within a time that the one who asks may wait."""
        ...


class _AlwaysReady:
    """Nobody declared a probe."""

    def ask(self, told: Callable[[bool], None]) -> None:
        told(True)


class QueueProxy:
    """Forwards to `upstream` within `settings`' limits. `woke` is called when a request comes after silence, which
    the owner declares by setting `silent`; `draining` is the owner's to set and answers probes with 503."""

    def __init__(
        self,
        upstream: Endpoint,
        settings: QueueSettings,
        stats: RequestStats,
        timers: TimerWheel,
        clock: Clock,
        *,
        http: HttpSettings = HttpSettings(),  # noqa: B008  # frozen
        woke: Callable[[], None] = lambda: None,
        readiness: Readiness = _AlwaysReady(),  # noqa: B008  # without state
    ) -> None:
        self.settings = settings
        self.stats = stats
        self.timers = timers
        self.clock = clock
        self.metrics = QueueMetrics()
        self.breaker = Breaker(settings.container_concurrency) if settings.container_concurrency else None
        self.pool = UpstreamPool(upstream, http, clock, timers)
        self.authority = str(upstream).encode() if upstream.host else b"localhost"
        self.draining = False
        self.silent = True
        self.last_request_at = clock.monotonic()
        """When the last request came, probes left out; in the clock's monotonic time."""
        self._woke = woke
        self._readiness = readiness

    def __repr__(self) -> str:
        waiting = f", {self.breaker!r}" if self.breaker is not None else ""
        return f"<QueueProxy [{self.stats.in_flight} in flight, {self.metrics.total} done{waiting}]>"

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, or see to it that it is answered."""
        request = exchange.request
        if request.target == b"*":
            exchange.respond(200, [])
            return
        header = request.header
        agent, mark = header(b"user-agent") or b"", header(probes.MARK) or b""
        if mark or agent.startswith(probes.AGENTS):
            answer = probes.answer_to(agent, mark, header(probes.HASH) or b"", draining=self.draining)
            if answer is probes.READY:
                self._readiness.ask(_ProbeWaiting(exchange).told)
                return
            if answer is not None:
                respond(exchange, answer.status, _without_length(answer.headers), answer.body)
                return
        self.last_request_at = exchange.received_at
        if self.silent:
            self.silent = False
            self._woke()
        Passage(self, exchange).start()

    async def aclose(self) -> None:
        """Close the connections to the container; what is under way on them fails."""
        await self.pool.aclose()


class _ProbeWaiting:
    """A probe that the container's readiness decides."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def told(self, ready: bool) -> None:
        if ready:
            self._exchange.respond(200, [_PLAIN], b"queue")
        else:
            respond(self._exchange, 503, [])


class Passage:
    """One request on its way through. Implements the forwarder's observer."""

    __slots__ = (
        "_admitted",
        "_exchange",
        "_progressed_at",
        "_proxied",
        "_proxy",
        "_relay",
        "_timer",
        "_timers",
        "watched",
        "watches_idleness",
    )

    def __init__(self, proxy: QueueProxy, exchange: Exchange) -> None:
        self._proxy = proxy
        self._exchange = exchange
        self._proxied = exchange.request.header(b"k-proxy-request") == b"activator"
        self._relay: Relay | None = None
        self._admitted = False
        self._timer: Timer | None = None
        self._timers: list[Timer] | None = None
        self._progressed_at = 0.0
        self.watches_idleness = proxy.settings.idle_timeout_seconds > 0
        self.watched = self.watches_idleness or proxy.settings.response_start_timeout_seconds > 0

    def start(self) -> None:
        """Count the request, set its timers, and forward it once it may run."""
        proxy = self._proxy
        proxy.stats.start(proxy.clock.now(), self._proxied)
        settings = proxy.settings
        if settings.timeout_seconds:
            self._timer = proxy.timers.schedule(settings.timeout_seconds, self._expired)
        if self.watched:
            self._set_further_timers(settings)
        breaker = proxy.breaker
        if breaker is None:
            self._forward()
        elif breaker.try_enter():
            self._admitted = True
            self._forward()
        else:
            self._queue(breaker)

    def _set_further_timers(self, settings: QueueSettings) -> None:
        self._timers = []
        schedule = self._proxy.timers.schedule
        if settings.response_start_timeout_seconds:
            self._timers.append(schedule(settings.response_start_timeout_seconds, self._start_overdue))
        if settings.idle_timeout_seconds:
            self._timers.append(schedule(settings.idle_timeout_seconds, self._look_idle))

    def _queue(self, breaker: Breaker) -> None:
        self._exchange.on_gone = self._gone_waiting
        try:
            breaker.wait(self, self._admit)
        except QueueFull:
            self._answer(503, QUEUE_FULL_TEXT)

    def _admit(self) -> bool:
        self._exchange.on_gone = None
        self._admitted = True
        self._forward()
        return True

    def _forward(self) -> None:
        proxy = self._proxy
        self._relay = Relay(self, self._exchange, proxy.pool, proxy.authority)
        self._relay.start()

    # As the observer of its relay.

    def response_head(self, status: int, headers: Headers) -> None:
        """The answer begins, or another protocol, in which silence means nothing."""
        if status == 101:
            self.progressed()
            self.watches_idleness = False

    def progressed(self) -> None:
        """The container has said something."""
        self._progressed_at = self._proxy.clock.monotonic()

    def completed(self, outcome: Outcome) -> None:
        """The exchange with the container is over, well or not."""
        relay, self._relay = self._relay, None
        kind = outcome.kind
        if kind is OutcomeKind.CANCELLED:  # our own doing
            return
        if kind is OutcomeKind.COMPLETE:
            self._finish(outcome.status)
        elif kind is OutcomeKind.CLIENT_GONE:
            self._finish(self._exchange.status or CLIENT_CLOSED)
        elif kind is OutcomeKind.LOST_DURING_RESPONSE or self._exchange.responded:
            self._finish(self._exchange.status or 502)
        elif kind is OutcomeKind.LOST_BEFORE_RESPONSE and outcome.reused and self._may_repeat():
            assert relay is not None
            self._forward()
        else:
            self._answer(502, _FAILURES[kind])

    def _may_repeat(self) -> bool:
        """As Go does: no body, and a method that is safe or a key that makes repetitions known.

        It ends with the connections that were used before, each of which can break once.
        """
        request = self._exchange.request
        return _has_no_body(request) and (
            request.method in _REPLAYABLE or any(request.header(name) is not None for name in _REPLAY_KEYS)
        )

    # Timers and the caller's leaving.

    def _start_overdue(self) -> None:
        if not self._progressed_at:
            self._expired()

    def _look_idle(self) -> None:
        if self._exchange.switched:
            return
        proxy = self._proxy
        left = self._progressed_at + proxy.settings.idle_timeout_seconds - proxy.clock.monotonic()
        if left <= 0 or not self._progressed_at:
            self._expired()
        elif self._timers is not None:
            self._timers.append(proxy.timers.schedule(left, self._look_idle))

    def _expired(self) -> None:
        proxy = self._proxy
        proxy.metrics.timeouts += 1
        relay, exchange = self._relay, self._exchange
        if relay is None:
            assert proxy.breaker is not None
            proxy.breaker.forget(self)
            self._answer(504, TIMEOUT_TEXT)
        elif exchange.switched:
            relay.cancel()
            self._finish(exchange.status)
        elif relay.begun:
            relay.cut(TIMEOUT_TEXT)
            self._finish(exchange.status)
        else:
            relay.cancel()
            self._answer(504, TIMEOUT_TEXT)

    def _gone_waiting(self) -> None:
        assert self._proxy.breaker is not None
        self._proxy.breaker.forget(self)
        self._finish(CLIENT_CLOSED)

    # Ends.

    def _answer(self, status: int, text: bytes) -> None:
        self._exchange.on_gone = None
        self._exchange.respond(status, [_PLAIN] if status == 504 else [_PLAIN, _NO_SNIFFING], text)
        self._finish(status)

    def _finish(self, status: int) -> None:
        """Give back slot, timers and accounting."""
        proxy, exchange = self._proxy, self._exchange
        exchange.on_gone = None
        if self._timer is not None:
            self._timer.cancel()
        if self._timers is not None:
            timers, self._timers = self._timers, None
            for timer in timers:
                timer.cancel()
        proxy.stats.finish(proxy.clock.now(), self._proxied)
        proxy.metrics.observe(status, proxy.clock.monotonic() - exchange.received_at)
        if self._admitted:
            assert proxy.breaker is not None
            self._admitted = False
            proxy.breaker.leave()


def respond(exchange: Exchange, status: int, headers: Headers, body: bytes = b"") -> None:
    """A complete answer as Go's server writes it: to HEAD it tells no length when there is nothing to be long."""
    if body or exchange.request.method != b"HEAD":
        exchange.respond(status, headers, body)
    elif not exchange.finished:
        exchange.begin_answer(status, headers, None, b"", ended=True)
        exchange.close_answer()


def _without_length(headers: Headers) -> Headers:
    """The server writes it."""
    return [field for field in headers if field[0] != b"content-length"]


def _has_no_body(request: RequestHead) -> bool:
    return request.framing is BodyFraming.NONE or request.content_length == 0

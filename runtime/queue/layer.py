"""The queue layer: an ASGI application around another that does what Knative's queue-proxy does beside it.

From outside to inside: probes, accounting, the request timeout, the breaker, the error boundary, the handler. A
request that is well costs one dictionary of its headers, two readings of the clock, a timer and one call around
each message; it gets no task of its own. Only a request whose time is up does: its 504 goes out at once, whatever
the handler does, and then the handler is cancelled. What has not ended a while after that is told as stuck: a
handler that swallows its cancellation, or a thread, which nothing can end. A response begins with the first
message of its body, its head being held until then, as ASGI asks: a handler that fails or takes too long before it
is answered for in full.

A WebSocket is a request that lasts as long as it is open, and has no more time than another: when its time is up,
it is answered 504 before it was accepted, and closed with 1001 later. Silence does not end it.

One layer belongs to one event loop. Accounting follows Knative: a request counts from its arrival, time in the
breaker's queue included, until its handler has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable
from types import TracebackType

from upwell.autoscaler.stats import RequestStats
from upwell.functions.asgi import DEADLINE, GONE, Application, Message, Receive, Scope, Send
from upwell.functions.errors import UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.queue import probes
from upwell.runtime.queue.breaker import Breaker, QueueFull
from upwell.runtime.queue.metrics import QueueMetrics
from upwell.runtime.queue.settings import QueueSettings
from upwell.runtime.timers import Timer, TimerWheel

TIMEOUT_TEXT = b"request timeout"
QUEUE_FULL_TEXT = b"pending request queue full\n"
ERROR_TEXT = b"Internal Server Error"

CLIENT_CLOSED = 499
"""Counted, never sent: the caller left while it waited."""
GOING_AWAY = 1001
"""Closes a WebSocket whose time is up."""
INTERNAL_ERROR = 1011
"""Closes a WebSocket whose handler failed."""
TRY_AGAIN_LATER = 1013
"""Refuses a WebSocket where the server cannot answer with a status."""

FLUSH_SECONDS = 1.0
"""For a client that does not read to take the message of its timeout."""

_log = logging.getLogger("upwell.function")

_PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")


class AlreadyLogged(Exception):
    """Ends a response that cannot be completed, of which the log tells already."""


class RequestTimedOut(AlreadyLogged):
    """Raised in a handler that goes on sending after its time was up, as Go's ErrHandlerTimeout is."""


class Invocation:
    """One HTTP request on its way through the layer."""

    watches_idleness = True

    __slots__ = (
        "_head",
        "_send",
        "admitted",
        "cutting",
        "done",
        "gone",
        "is_stuck",
        "layer",
        "sent_at",
        "status",
        "stuck_timer",
        "task",
        "timers",
        "truncated",
        "unsendable",
    )

    def __init__(self, layer: QueueLayer, send: Send, started: float, task: asyncio.Task[object] | None) -> None:
        self.layer = layer
        self._send = send
        self._head: Message | None = None
        self.sent_at = started
        self.status = 0
        self.task = task
        self.timers: list[Timer] = []
        self.admitted = False
        self.cutting: asyncio.Task[None] | None = None
        self.truncated = False
        self.unsendable = False
        """The server refused the head: no other can follow it, and nothing has been sent."""
        self.gone = False
        self.done = False
        self.is_stuck = False
        self.stuck_timer: Timer | None = None

    async def send(self, message: Message) -> None:
        """The handler's `send`. Raises RequestTimedOut once the request's time is up."""
        if self.cutting is not None:
            raise RequestTimedOut
        if self.layer.idle_timeout:
            self.sent_at = self.layer.clock.monotonic()
        head = self._head
        if head is not None:
            self._head = None
            self.unsendable = True
            await self._send(head)
            self.unsendable = False
            self.status = head["status"]
        elif self.status == 0 and message["type"] == "http.response.start":
            self._head = message
            return
        await self._send(message)

    async def answer(self, status: int, body: bytes) -> None:
        """A whole plain-text answer in the handler's place."""
        self.status = status
        headers = [_PLAIN_TEXT, (b"content-length", b"%d" % len(body))]
        if status != 504:
            headers.append((b"x-content-type-options", b"nosniff"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def failed(self, error: BaseException) -> None:
        """The handler raised `error`."""
        await self.layer.failed(self, error)

    def caller_gone(self) -> None:
        """The connection was lost while the request waited for a slot."""
        self.gone = True
        if self.task is not None:
            self.task.cancel()

    # Timers: called by the wheel

    def time_up(self) -> None:
        """The whole request has taken too long."""
        if not self.done and self.cutting is None:
            self.cutting = self.layer.expire(self)

    def start_overdue(self) -> None:
        """No response has begun in time."""
        if self.status == 0:
            self.time_up()

    def look_idle(self) -> None:
        """The response may have been silent for too long; else look again when it would have been."""
        left = self.sent_at + self.layer.idle_timeout - self.layer.clock.monotonic()
        if left <= 0:
            self.time_up()
        elif not self.done and self.cutting is None:
            self.timers.append(self.layer.timers.schedule(left, self.look_idle))

    def look_stuck(self) -> None:
        """The handler was cancelled a while ago."""
        if not self.done:
            self.is_stuck = True
            self.layer.overdue += 1
        if self.layer.stuck_calls:
            self.layer.stuck()

    def end(self) -> None:
        """The handler has ended, though maybe not its thread."""
        self.done = True
        for timer in self.timers:
            timer.cancel()
        if self.stuck_timer is not None and not self.layer.stuck_calls:
            self.stuck_timer.cancel()
        self.layer.overdue -= self.is_stuck

    async def cut(self) -> None:
        """Tell the client of the timeout, then end the handler."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                if self.status == 0:
                    await self.answer(504, TIMEOUT_TEXT)
                else:
                    await self.end_response()
        except (TimeoutError, RuntimeError):
            # The client does not read, or the response's length leaves no room for the text.
            self.truncated = True
        if self.task is not None and not self.done:
            self.task.cancel()

    async def end_response(self) -> None:
        """Say in a response that has begun that the time is up, and end it."""
        await self._send({"type": "http.response.body", "body": TIMEOUT_TEXT, "more_body": False})


class Conversation(Invocation):
    """One WebSocket on its way through the layer. `refusable`: the server can answer it with a status."""

    watches_idleness = False

    __slots__ = ("refusable",)

    def __init__(
        self,
        layer: QueueLayer,
        send: Send,
        started: float,
        task: asyncio.Task[object] | None,
        *,
        refusable: bool,
    ) -> None:
        super().__init__(layer, send, started, task)
        self.refusable = refusable

    async def send(self, message: Message) -> None:
        """The handler's `send`. Raises RequestTimedOut once the WebSocket's time is up."""
        if self.cutting is not None:
            raise RequestTimedOut
        if self.status == 0:
            self.status = 101 if message["type"] == "websocket.accept" else message.get("status", 403)
        await self._send(message)

    async def answer(self, status: int, body: bytes) -> None:
        """Refuse it in the handler's place."""
        self.status = status
        if not self.refusable:
            await self._send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
            return
        headers = [_PLAIN_TEXT]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def failed(self, error: BaseException) -> None:
        """Close it for what it is, and raise the error again for the server to log."""
        await self._close(INTERNAL_ERROR, "")
        raise error

    async def end_response(self) -> None:
        """Close it, unless the handler or the client has."""
        await self._close(GOING_AWAY, TIMEOUT_TEXT.decode())

    async def _close(self, code: int, reason: str) -> None:
        if self.status == 101:
            with contextlib.suppress(RuntimeError, OSError):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})


class QueueLayer:
    """Wraps `app`. `woke` is called when a request arrives after silence, `stuck` when one that was cut off is
    still running a while later; `abandoned` says how many threads run calls that nobody waits for."""

    def __init__(
        self,
        app: Application,
        settings: QueueSettings,
        stats: RequestStats,
        timers: TimerWheel,
        clock: Clock,
        *,
        abandoned: Callable[[], int] = lambda: 0,
        woke: Callable[[], None] = lambda: None,
        stuck: Callable[[], None] = lambda: None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.stats = stats
        self.timers = timers
        self.clock = clock
        self.metrics = QueueMetrics()
        self.breaker = Breaker(settings.container_concurrency) if settings.container_concurrency else None
        self.idle_timeout = settings.idle_timeout_seconds
        self.draining = False
        self.silent = True
        self.stuck = stuck
        self.overdue = 0
        """Calls that have not ended though they were cancelled a while ago; they count as in flight."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timeout = settings.timeout_seconds
        self._start_timeout = settings.response_start_timeout_seconds
        self._abandoned = abandoned
        self._woke = woke

    def __repr__(self) -> str:
        return f"<QueueLayer [{self.stats.in_flight} in flight, {self.metrics.total} done] {self.breaker or ''}>"

    @property
    def stuck_calls(self) -> int:
        """Calls that run although their time was up, with abandoned threads, whose requests have ended: they end
        some day, or with the process."""
        return self.overdue + self._abandoned()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if kind == "http" and (probes.MARK in headers or probes.is_probe_agent(headers)):
            answer = probes.answer(headers, draining=self.draining)
            if answer is not None:
                await probes.send_answer(send, answer)
                return
        proxied = b"k-proxy-request" in headers
        if proxied and b"x-forwarded-for" in headers:
            # The gateway's word: a Unix socket has no peer address of its own.
            scope["client"] = (headers[b"x-forwarded-for"].decode("latin-1"), 0)
        await self._serve(scope, receive, send, proxied)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, proxied: bool) -> None:
        clock = self.clock
        started = clock.monotonic()
        self.stats.start(clock.now(), proxied)
        if self.silent:
            self.silent = False
            self._woke()
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        # Told its loop, current_task need not look for it, which on Python 3.11 is a system call.
        task = asyncio.current_task(loop)
        if scope["type"] == "http":
            invocation = Invocation(self, send, started, task)
        else:
            refusable = "websocket.http.response" in (scope.get("extensions") or ())
            invocation = Conversation(self, send, started, task, refusable=refusable)
        invocation.timers.append(self.timers.schedule(self._timeout, invocation.time_up))
        scope[DEADLINE] = (clock, started + self._timeout)
        if self._start_timeout or self.idle_timeout:
            self._set_further_timers(invocation)
        try:
            if self.breaker is None:
                invocation.admitted = True
                await self.app(scope, receive, invocation.send)
            else:
                await self._serve_admitted(self.breaker, scope, receive, invocation)
        except asyncio.CancelledError:
            if invocation.cutting is None and not invocation.gone:
                raise
        except BaseException as error:
            if invocation.cutting is None:
                await invocation.failed(error)
        finally:
            invocation.end()
            try:
                if invocation.cutting is not None:
                    await self._cut(invocation, invocation.cutting)
            finally:
                self.stats.finish(clock.now(), proxied)
                status = invocation.status or (CLIENT_CLOSED if invocation.gone else 500)
                self.metrics.observe(status, clock.monotonic() - started)

    async def _serve_admitted(
        self, breaker: Breaker, scope: Scope, receive: Receive, invocation: Invocation
    ) -> None:
        if not breaker.try_enter():
            # A caller that leaves while it waits leaves the queue, or the dead would keep the living out.
            scope[GONE] = invocation.caller_gone
            try:
                await breaker.enter()
            except QueueFull:
                await invocation.answer(503, QUEUE_FULL_TEXT)
                return
            finally:
                del scope[GONE]
        invocation.admitted = True
        try:
            await self.app(scope, receive, invocation.send)
        finally:
            breaker.leave()

    def _set_further_timers(self, invocation: Invocation) -> None:
        if self._start_timeout:
            invocation.timers.append(self.timers.schedule(self._start_timeout, invocation.start_overdue))
        if self.idle_timeout and invocation.watches_idleness:
            invocation.timers.append(self.timers.schedule(self.idle_timeout, invocation.look_idle))

    def expire(self, invocation: Invocation) -> asyncio.Task[None]:
        """Answer for a request whose time is up, in a task that ends within `FLUSH_SECONDS`."""
        self.metrics.timeouts += 1
        if invocation.admitted:
            invocation.stuck_timer = self.timers.schedule(self.settings.cancel_seconds, invocation.look_stuck)
        return asyncio.get_running_loop().create_task(invocation.cut(), name="request-timeout")

    async def _cut(self, invocation: Invocation, cutting: asyncio.Task[None]) -> None:
        """Wait for the timeout's answer to be out: the server ends the response when the handler has ended."""
        await asyncio.wait((cutting,))
        if invocation.truncated:
            _log.warning("a response was cut off: its time was up and its length left no room to say so")
            raise RequestTimedOut("the response was cut off")  # the server closes the connection

    async def failed(self, invocation: Invocation, error: BaseException) -> None:
        """The handler of an HTTP request raised: log it, and answer if nothing has been sent."""
        if isinstance(error, UpwellError) and error.status != 500 and invocation.status == 0:
            _log.warning("%s", error)
            await invocation.answer(error.status, f"{error.what}\n".encode())
            return
        trace = _from_the_function_on(error)
        _log.error("the function failed", exc_info=(type(error), error, trace))
        if invocation.status != 0 or invocation.unsendable:
            # The response is not whole: the server cuts the connection, or answers 500 when nothing was sent.
            raise AlreadyLogged("the response cannot be completed") from error
        body = ERROR_TEXT
        if self.settings.show_errors:
            body = "".join(traceback.format_exception(type(error), error, trace)).encode("utf-8", "replace")
        await invocation.answer(500, body)


def _from_the_function_on(error: BaseException) -> TracebackType | None:
    trace: TracebackType | None = error.__traceback__
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    return trace


def _is_ours(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__", "")).startswith("upwell.")

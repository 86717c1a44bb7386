"""What a function may ask of upwell, and need not: its request's context, two refusals, and its replica's hooks.

    from upwell.functions.sdk import Context, Reject, Retry, on_start, on_stop

A parameter annotated `Context` (or named `ctx` or `context`, without annotation) gets one. Nothing here is
registered anywhere: a decorator marks its function, and the host looks for the marks in the module that it loaded.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from upwell.functions.asgi import DEADLINE, Clock, Scope

_MARK = "__upwell_hooks__"
_Function = TypeVar("_Function", bound=Callable[..., object])


class Retry(Exception):
    """Raised by a function that cannot do it now: 503, with Retry-After when `after_seconds` is given.

    Whoever delivers events tries again; `reason` is the body of the answer.
    """

    def __init__(self, after_seconds: float | None = None, reason: str = "try again later") -> None:
        if after_seconds is not None and not 0 <= after_seconds < float("inf"):
            raise ValueError(f"after_seconds is a time to come, not {after_seconds}")
        super().__init__(reason)
        self.after_seconds = after_seconds
        self.reason = reason


class Reject(Exception):
    """Raised by a function that will never take this request: a status of 400 to 499, `reason` being the body.

    Whoever delivers events does not try again, except with 408, 425 and 429, which ask for it.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        if not 400 <= status <= 499:
            raise ValueError(f"a refusal has a status from 400 to 499, not {status}")
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream: a generator that yields these is answered as `text/event-stream`.

    `data` is text as it is, anything else as JSON; `retry_milliseconds` tells the client when to connect again.
    """

    data: Any
    event: str | None = None
    id: str | None = None
    retry_milliseconds: int | None = None


class Cancellation:
    """Whether the caller has left, or the request's time is up. Safe to ask from any thread."""

    __slots__ = ("_event", "_waiters")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<Cancellation {'set' if self.is_set() else 'unset'}>"

    def is_set(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once it is set; for async functions, which are cancelled then unless they shield themselves."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            if not self._event.is_set():
                await waiter
        finally:
            self._waiters.remove(waiter)

    def wait_blocking(self, timeout: float | None = None) -> bool:
        """Wait in a thread, at most `timeout` seconds; whether it is set."""
        return self._event.wait(timeout)

    def set(self) -> None:
        """For whoever serves the request; idempotent."""
        self._event.set()
        for waiter in self._waiters.copy():
            waiter.get_loop().call_soon_threadsafe(_wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class HeaderView(Mapping[str, str]):
    """Headers by name in any case; several of one name are joined with commas. Iterates in lower case."""

    __slots__ = ("_values",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        values: dict[str, str] = {}
        for name_bytes, value_bytes in raw:
            name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
            values[name] = f"{values[name]}, {value}" if name in values else value
        self._values = values

    def __repr__(self) -> str:
        return f"HeaderView({self._values!r})"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Context:
    """What is known of one request beside its body. A view: nothing in it can be changed.

    In a test of a function, `Context({})` will do, or one of an ASGI scope.
    """

    __slots__ = ("_event", "_headers", "_request_id", "_scope", "cancelled")

    cancelled: Cancellation
    """Set when the caller has left or the time is up; then an async function has been cancelled too."""

    def __init__(
        self,
        scope: Scope,
        *,
        cancelled: Cancellation | None = None,
        event: Mapping[str, Any] | None = None,
    ) -> None:
        self._scope = scope
        self._event = event
        self._headers: HeaderView | None = None
        self._request_id = ""
        self.cancelled = cancelled or Cancellation()

    def __repr__(self) -> str:
        return f"<Context {self.method} {self.path} {self.request_id}>"

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, by name in any case."""
        if self._headers is None:
            self._headers = HeaderView(self._scope.get("headers", []))
        return self._headers

    @property
    def method(self) -> str:
        """In capitals."""
        method: str = self._scope.get("method", "GET")
        return method

    @property
    def path(self) -> str:
        """Decoded, without the query."""
        path: str = self._scope.get("path", "/")
        return path

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters, decoded; the last one of a name."""
        text = self._scope.get("query_string", b"").decode("latin-1")
        return MappingProxyType(dict(parse_qsl(text, keep_blank_values=True)))

    @property
    def event(self) -> Mapping[str, Any] | None:
        """The attributes of the CloudEvent that the function was called with, or with whose data."""
        return None if self._event is None else MappingProxyType(dict(self._event))

    @property
    def traceparent(self) -> str | None:
        """The trace that the request belongs to, as W3C Trace Context writes it."""
        return self.headers.get("traceparent")

    @property
    def request_id(self) -> str:
        """`X-Request-Id`, else the trace's id, else one made up for this request."""
        if not self._request_id:
            trace = (self.traceparent or "").split("-")
            given = self.headers.get("x-request-id") or (trace[1] if len(trace) == 4 else "")
            self._request_id = given or uuid.uuid4().hex
        return self._request_id

    @property
    def deadline(self) -> datetime | None:
        """When the request's time is up, in UTC; None where nobody set it a time."""
        found: tuple[Clock, float] | None = self._scope.get(DEADLINE)
        if found is None:
            return None
        clock, monotonic = found
        return datetime.fromtimestamp(clock.now() + monotonic - clock.monotonic(), UTC)

    @property
    def remaining_seconds(self) -> float | None:
        """Until the deadline, never less than 0; None without one."""
        found: tuple[Clock, float] | None = self._scope.get(DEADLINE)
        return None if found is None else max(0.0, found[1] - found[0].monotonic())

    @property
    def service(self) -> str:
        """The Service's name, empty outside a platform."""
        return os.environ.get("K_SERVICE", "")

    @property
    def revision(self) -> str:
        """The revision's name, empty outside a platform."""
        return os.environ.get("K_REVISION", "")

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs under the Service's name, each record with `request_id` and `revision` as fields."""
        return _BoundLogger(
            logging.getLogger(self.service or "function"),
            {"request_id": self.request_id, "revision": self.revision},
        )


class _BoundLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds its fields to those of the caller, where the standard one would replace them."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def on_start(function: _Function) -> _Function:
    """Run this in each replica before it takes requests; sync or async, without arguments.

    It runs after the fork, so here is the place for connections and threads. What it raises fails the start.
    """
    return _mark(function, "start")


def on_stop(function: _Function) -> _Function:
    """Run this in each replica when its last request is answered; sync or async, without arguments."""
    return _mark(function, "stop")


def _mark(function: _Function, hook: str) -> _Function:
    setattr(function, _MARK, getattr(function, _MARK, frozenset()) | {hook})
    return function


def is_hook(value: object) -> bool:
    """Whether `value` is marked by `on_start` or `on_stop`, and so is not the function itself."""
    return bool(_marks(value))


def _marks(value: object) -> frozenset[str]:
    if not callable(value):
        return frozenset()
    try:
        marks = vars(value).get(_MARK)
    except Exception:  # a proxy that stands for nothing yet, as Flask's `request`; it raises what it likes
        return frozenset()
    return marks if isinstance(marks, frozenset) else frozenset()


@dataclass(frozen=True, slots=True)
class LifecycleHooks:
    """Functions to run before the first request and after the last, in the order of their definition."""

    start: tuple[Callable[[], object], ...] = ()
    stop: tuple[Callable[[], object], ...] = ()


def lifecycle_hooks(*modules: ModuleType) -> LifecycleHooks:
    """The functions in `modules`, defined or imported there, that `on_start` and `on_stop` have marked."""
    values = [value for module in modules for value in vars(module).values()]
    marked = list({id(value): value for value in values if is_hook(value)}.values())
    return LifecycleHooks(
        tuple(value for value in marked if "start" in _marks(value)),
        tuple(value for value in marked if "stop" in _marks(value)),
    )

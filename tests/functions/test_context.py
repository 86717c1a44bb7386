"""What a function may ask of upwell: its context, refusals, and hooks that are found in its module."""

from __future__ import annotations

import asyncio
import logging
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from support.functions import answer, handler, reached, request, run, unannotated
from upwell.functions.asgi import DEADLINE, GONE, Message, Scope
from upwell.functions.errors import InvalidFunction
from upwell.functions.handler import adapt
from upwell.functions.sdk import (
    Cancellation,
    Context,
    LifecycleHooks,
    Reject,
    Retry,
    is_hook,
    lifecycle_hooks,
    on_start,
    on_stop,
)
from upwell.functions.signature import Kind, read_signature

EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/s",
    "ce-type": "t",
    "ce-time": "2020-01-02T03:04:05Z",
}


class FixedClock:
    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 100.0


def alone(ctx: Context) -> str:
    return f"{ctx.method} {ctx.path}"


async def alone_async(anything: Context) -> str:
    return f"{anything.method} {anything.path}"


@unannotated
def by_name(ctx: Any) -> Any:
    return f"{ctx.method} {ctx.path}"


@unannotated
def by_longer_name(context: Any = None) -> Any:
    return f"{context.method} {context.path}"


def first(ctx: Context, request: Request) -> str:
    return f"{request.method} {ctx.path}"


def second(request: Request, ctx: Context) -> str:
    return f"{request.method} {ctx.path}"


async def keyword_only(*, request: Request, ctx: Context) -> str:
    return f"{request.method} {ctx.path}"


async def optional(request: Request, ctx: Context | None = None) -> str:
    return f"{request.method} {ctx.path if ctx else 'none'}"


def positional_only(ctx: Context, request: Request, /) -> str:
    return f"{request.method} {ctx.path}"


def after_defaults(request: Request, limit: int = 3, ctx: Context | None = None) -> str:
    return f"{request.method} {ctx.path if ctx and limit == 3 else 'none'}"


@pytest.mark.parametrize(
    "function",
    [
        alone,
        alone_async,
        by_name,
        by_longer_name,
        first,
        second,
        keyword_only,
        optional,
        positional_only,
        after_defaults,
    ],
)
def test_context_is_passed_wherever_it_is_asked_for(function: object) -> None:
    assert answer(function, "POST", "/path").text == "POST /path"


@pytest.mark.parametrize(
    "function", [alone, second, lambda ctx: "", lambda event, context: "", lambda context="prod": ""]
)
def test_context_is_named_in_the_signature(function: object) -> None:
    signature = read_signature(function)
    assert signature.context in ("ctx", "context") or signature.kind is Kind.NULLARY


def test_default_text_for_a_context_is_left_alone() -> None:
    assert answer(lambda context="prod": context).text == "prod"


def test_positional_only_context_behind_a_default_cannot_be_passed() -> None:
    def function(limit: int = 3, ctx: Context | None = None, /) -> None: ...

    with pytest.raises(InvalidFunction):
        read_signature(function)


def test_request_is_seen_in_it() -> None:
    def function(ctx: Context) -> Any:
        return {
            "query": dict(ctx.query),
            "header": ctx.headers["X-One"],
            "names": [name for name in ctx.headers if name.startswith("x-")],
            "id": ctx.request_id,
            "trace": ctx.traceparent,
            "event": ctx.event,
        }

    headers = {"x-one": "1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    response = answer(function, path="/?a=1&b=&a=2", headers=headers)
    assert response.json() == {
        "query": {"a": "2", "b": ""},
        "header": "1",
        "names": ["x-one"],
        "id": "0af7651916cd43dd8448eb211c80319c",
        "trace": headers["traceparent"],
        "event": None,
    }
    assert answer(function, headers={**headers, "x-request-id": "mine"}).json()["id"] == "mine"


def test_made_up_request_id_stays_the_same_for_the_request() -> None:
    context = Context({})
    assert context.request_id == context.request_id != Context({}).request_id


def test_attributes_of_the_event_are_in_it() -> None:
    @unannotated
    def with_event(event: Any, ctx: Any) -> Any:
        return {"type": ctx.event["type"], "time": ctx.event["time"], "id": event["id"]}

    def with_data(body: bytes, ctx: Context) -> Any:
        return dict(ctx.event or {})

    assert answer(with_event, "POST", headers=EVENT).json() == {
        "type": "t",
        "time": EVENT["ce-time"],
        "id": "1",
    }
    assert answer(with_data, "POST", headers=EVENT).json()["source"] == "/s"


def test_deadline_is_the_servers() -> None:
    context = Context({DEADLINE: (FixedClock(), 103.5)})
    assert context.remaining_seconds == 3.5
    assert context.deadline is not None
    assert context.deadline.timestamp() == 1_700_000_003.5
    assert Context({DEADLINE: (FixedClock(), 99.0)}).remaining_seconds == 0
    assert (Context({}).deadline, Context({}).remaining_seconds) == (None, None)


def test_names_are_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SERVICE", "hello")
    monkeypatch.setenv("K_REVISION", "hello-00001")
    assert (Context({}).service, Context({}).revision) == ("hello", "hello-00001")


def test_logger_tells_the_request(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SERVICE", "hello")
    context = Context({"headers": [(b"x-request-id", b"mine")]})
    with caplog.at_level(logging.INFO):
        context.logger.info("greeted", extra={"name_of": "Ada"})
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("hello", "greeted")
    assert (vars(record)["request_id"], vars(record)["name_of"]) == ("mine", "Ada")


def test_context_cannot_be_changed() -> None:
    context = Context({"method": "PUT"}, event={"type": "t"})
    for name in ("method", "headers", "event"):
        with pytest.raises(AttributeError):
            setattr(context, name, "other")
    assert context.event is not None
    with pytest.raises(TypeError):
        context.event["type"] = "other"  # type: ignore[index]
    assert repr(context).startswith("<Context PUT / ")


async def never() -> Message:
    raise AssertionError("it does not read")


async def silent(message: Message) -> None:
    raise AssertionError("nobody is there")


async def leaving(function: Callable[..., object], ready: Callable[[], bool]) -> None:
    """A request whose caller leaves once `ready`; returns when it has ended."""
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    with handler(function, threads=1) as adapted:
        serving = asyncio.ensure_future(adapted.app(scope, never, silent))
        await reached(ready)
        scope[GONE]()
        await serving
        assert GONE not in scope


def test_async_function_is_cancelled_when_its_caller_leaves() -> None:
    seen: list[object] = []

    async def function(ctx: Context) -> None:
        seen.append("waiting")
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append(ctx.cancelled.is_set())
            raise

    run(leaving(function, lambda: seen == ["waiting"]))
    assert seen == ["waiting", True]


def test_sync_function_is_told_and_waited_for_when_its_caller_leaves() -> None:
    seen: list[object] = []

    def function(ctx: Context) -> str:
        seen.append("waiting")
        seen.append(ctx.cancelled.wait_blocking(20))
        return "nobody reads this"

    run(leaving(function, lambda: seen == ["waiting"]))
    assert seen == ["waiting", True]


def test_sync_function_that_waits_for_a_thread_is_not_called_when_its_caller_has_left() -> None:
    gate = threading.Event()
    called: list[str] = []

    def function(ctx: Context) -> str:
        called.append(ctx.path)
        gate.wait(20)
        return ""

    async def scenario() -> None:
        with handler(function, threads=1) as adapted:
            first = asyncio.create_task(request(adapted.app, path="/first"))
            await reached(lambda: called == ["/first"])
            scope: Scope = {"type": "http", "method": "GET", "path": "/second", "headers": []}
            second = asyncio.ensure_future(adapted.app(scope, never, silent))
            await reached(lambda: GONE in scope)
            scope[GONE]()
            await second
            gate.set()
            await first
            assert (called, adapted.abandoned_threads) == (["/first"], 0)

    run(scenario())


def test_thread_of_a_request_that_is_cut_off_is_told_and_counted_as_abandoned_until_it_ends() -> None:
    told = threading.Event()
    go = threading.Event()

    def function(ctx: Context) -> None:
        if ctx.cancelled.wait_blocking(20):
            told.set()
        go.wait(20)

    async def scenario() -> None:
        with handler(function) as adapted:
            scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            serving = asyncio.ensure_future(adapted.app(scope, never, silent))
            await reached(lambda: adapted.busy_threads == 1)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            await reached(told.is_set)
            assert adapted.abandoned_threads == 1
            go.set()
            await reached(lambda: adapted.abandoned_threads == 0)

    run(scenario())


def test_cancellation_can_be_awaited() -> None:
    async def scenario() -> None:
        cancellation = Cancellation()
        waiting = asyncio.create_task(cancellation.wait())
        await asyncio.sleep(0)
        assert repr(cancellation) == "<Cancellation unset>"
        cancellation.set()
        cancellation.set()
        await waiting
        await cancellation.wait()
        assert cancellation.is_set()

    run(scenario())


def raising(error: Exception) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_retry_asks_for_another_try() -> None:
    response = answer(raising(Retry(1.5, "the database is away")))
    assert (response.status_code, response.text) == (503, "the database is away\n")
    assert response.headers["retry-after"] == "2"
    assert "retry-after" not in answer(raising(Retry())).headers


def test_reject_is_a_final_refusal() -> None:
    response = answer(raising(Reject("no such order", 404)))
    assert (response.status_code, response.text) == (404, "no such order\n")
    assert answer(raising(Reject("no"))).status_code == 400


@pytest.mark.parametrize("wrong", [lambda: Retry(-1), lambda: Reject("", 200), lambda: Retry(float("nan"))])
def test_refusals_that_mean_nothing_are_errors_where_they_are_made(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="not"):
        wrong()


def test_hooks_are_found_in_the_module_in_their_order() -> None:
    module = types.ModuleType("function")

    @on_start
    def connect() -> None: ...

    @on_stop
    @on_start
    async def both() -> None: ...

    def main() -> None: ...

    vars(module).update(connect=connect, both=both, again=connect, main=main, number=3, kind=type)
    assert lifecycle_hooks(module) == LifecycleHooks((connect, both), (both,))
    assert is_hook(connect)
    assert not is_hook(main)
    assert connect.__name__ == "connect"


def test_hooks_run_in_order_and_a_failing_one_ends_the_start() -> None:
    ran: list[str] = []

    def failing() -> None:
        ran.append("failing")
        raise LookupError("missing")

    async def scenario() -> None:
        start = (lambda: ran.append("sync"), failing, lambda: ran.append("never"))
        stop = (failing, lambda: ran.append("stop"))
        adapted = adapt(lambda: "", threads=1, hooks=LifecycleHooks(start, stop))
        with pytest.raises(
            InvalidFunction, match="failing, which runs at the start, failed: LookupError: missing"
        ) as raised:
            await adapted.start()
        assert isinstance(raised.value.__cause__, LookupError)
        await adapted.stop()
        adapted.close()

    run(scenario())
    assert ran == ["sync", "failing", "failing", "stop"]

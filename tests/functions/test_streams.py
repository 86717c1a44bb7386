"""Generators become streams of what they yield, as Server-Sent Events for those who ask."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.functions import answer, handler, reached, request, run
from upwell.functions import streaming
from upwell.functions.asgi import GONE, Message, Scope
from upwell.functions.errors import InvalidResult
from upwell.functions.sdk import Context, Reject, ServerSentEvent
from upwell.functions.streaming import encode_event
from upwell.runtime.testing.loop import run_fake

EVENTS = {"accept": "text/event-stream"}


@dataclass
class Point:
    x: int


def yielding(*items: object) -> Callable[[], Iterator[object]]:
    def function() -> Iterator[object]:
        yield from items

    return function


def yielding_async(*items: object) -> Callable[[], AsyncIterator[object]]:
    async def function() -> AsyncIterator[object]:
        for item in items:
            yield item

    return function


@pytest.mark.parametrize("make", [yielding, yielding_async])
@pytest.mark.parametrize(
    ("items", "content_type", "body"),
    [
        (["a", "é", ""], "text/plain; charset=utf-8", "aé".encode()),
        ([b"\x00", bytearray(b"\xff")], "application/octet-stream", b"\x00\xff"),
        ([{"a": 1}, Point(2), 3], "application/x-ndjson", b'{"a":1}\n{"x":2}\n3\n'),
        ([], "text/plain; charset=utf-8", b""),
    ],
)
def test_items_are_sent_as_the_first_of_them_says(
    make: Callable[..., object], items: list[object], content_type: str, body: bytes
) -> None:
    response = answer(make(*items))
    assert (response.status_code, response.headers["content-type"], response.content) == (200, content_type, body)
    assert ("content-length" in response.headers) == (items == [])


@pytest.mark.parametrize("make", [yielding, yielding_async])
def test_many_items_come_in_order(make: Callable[..., object]) -> None:
    assert answer(make(*(f"{number}\n" for number in range(1000)))).text.split() == [*map(str, range(1000))]


@pytest.mark.parametrize("make", [yielding, yielding_async])
def test_events_are_sent_to_who_asks_for_them(make: Callable[..., object]) -> None:
    response = answer(make("a\nb", {"a": "é"}, Point(1), b"c"), headers=EVENTS)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.text == 'data: a\ndata: b\n\ndata: {"a":"é"}\n\ndata: {"x":1}\n\ndata: c\n\n'


def test_yielded_event_makes_the_response_a_stream_of_events() -> None:
    event = ServerSentEvent({"a": 1}, event="news", id="7", retry_milliseconds=10)
    response = answer(yielding_async(event))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text == 'event: news\nid: 7\nretry: 10\ndata: {"a":1}\n\n'


@given(st.text())
def test_data_of_an_event_comes_through_but_for_its_kind_of_line_end(text: str) -> None:
    try:
        encoded = encode_event(text).decode()
    except UnicodeEncodeError:
        return
    lines = encoded.removesuffix("\n\n").split("\n")
    assert "\n".join(line.removeprefix("data: ") for line in lines) == text.replace("\r\n", "\n").replace(
        "\r", "\n"
    )


@pytest.mark.parametrize("event", [ServerSentEvent("", id="a\nb"), ServerSentEvent("", event="a\0")])
def test_name_of_an_event_that_would_break_the_stream_is_refused(event: ServerSentEvent) -> None:
    with pytest.raises(InvalidResult):
        encode_event(event)


def test_function_that_returns_a_generator_streams_it() -> None:
    async def function(ctx: Context) -> AsyncIterator[object]:
        return yielding_async(ctx.path, "!")()

    assert answer(function, path="/x").text == "/x!"
    assert answer(lambda: iter(["a", "b"])).text == "ab"


def test_sync_generator_runs_in_one_thread_and_context_of_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def function() -> Iterator[str]:
        yield f"{threading.current_thread().name} {variable.get()}\n"
        variable.set("set")
        yield f"{threading.current_thread().name} {variable.get()}\n"

    first, second = answer(function).text.splitlines()
    assert first == "upwell-function-0 unset"
    assert second == "upwell-function-0 set"


def refuse() -> str:
    raise Reject("no", 409)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_fails_before_the_first_item_is_answered_as_ever(is_async: bool) -> None:
    def refusing() -> Iterator[str]:
        yield refuse()

    async def refusing_async() -> AsyncIterator[str]:
        yield refuse()

    response = answer(refusing_async if is_async else refusing)
    assert (response.status_code, response.text) == (409, "no\n")


@pytest.mark.parametrize("items", [[object()], [{"a": object()}]])
def test_first_item_that_cannot_be_sent_sends_nothing(items: list[object]) -> None:
    with pytest.raises(InvalidResult):
        answer(yielding(*items))


class Exchange:
    """One request by messages, whose sending can be held up."""

    def __init__(self, function: object, method: str = "GET", **headers: str) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.scope: Scope = {"type": "http", "method": method, "path": "/", "headers": pairs}
        self.sent: list[Message] = []
        self.room = asyncio.Event()
        self.room.set()
        self._function = function

    async def serve(self) -> None:
        async def receive() -> Message:
            raise AssertionError("it does not read")

        with handler(self._function, threads=1) as adapted:
            await adapted.app(self.scope, receive, self.send)
            await reached(lambda: adapted.busy_threads == 0)

    async def send(self, message: Message) -> None:
        await self.room.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@pytest.mark.parametrize("is_async", [False, True])
def test_failure_after_the_first_item_leaves_the_response_unfinished_and_closes_the_generator(
    is_async: bool,
) -> None:
    closed: list[bool] = []

    def function() -> Iterator[str]:
        try:
            yield "first"
            raise LookupError("secret")
        finally:
            closed.append(True)

    async def function_async() -> AsyncIterator[str]:
        for each in function():
            yield each

    async def scenario() -> None:
        exchange = Exchange(function_async if is_async else function)
        with pytest.raises(LookupError):
            await exchange.serve()
        assert exchange.body == b"first"
        assert exchange.sent[-1]["more_body"]

    run(scenario())
    assert closed == [True]


@pytest.mark.parametrize("is_async", [False, True])
def test_generator_is_not_asked_for_more_than_the_connection_takes(is_async: bool) -> None:
    made: list[int] = []

    def function() -> Iterator[str]:
        for number in range(200):
            made.append(number)
            yield "x"

    async def function_async() -> AsyncIterator[str]:
        for each in function():
            yield each

    async def scenario() -> None:
        exchange = Exchange(function_async if is_async else function)
        exchange.room.clear()
        serving = asyncio.create_task(exchange.serve())
        ahead = 1 if is_async else streaming.BUFFERED_ITEMS + 2
        await reached(lambda: len(made) == ahead)
        await asyncio.sleep(0.05)  # no state to wait for: it is to stay
        assert len(made) == ahead
        exchange.room.set()
        await serving
        assert exchange.body == b"x" * 200

    run(scenario())


@pytest.mark.parametrize("ending", ["leaves", "cancelled"])
@pytest.mark.parametrize("is_async", [False, True])
def test_generator_is_closed_when_nobody_waits_for_it(is_async: bool, ending: str) -> None:
    closed = threading.Event()

    def function() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    async def function_async() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def scenario() -> None:
        exchange = Exchange(function_async if is_async else function)
        serving = asyncio.create_task(exchange.serve())
        await reached(lambda: len(exchange.sent) > 3)
        if ending == "leaves":
            exchange.scope[GONE]()
            await serving
        else:
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        await reached(closed.is_set)

    run(scenario())


def test_head_is_answered_without_running_through_the_generator() -> None:
    made: list[int] = []

    async def function() -> AsyncIterator[str]:
        for number in range(5):
            made.append(number)
            yield "x"

    async def scenario() -> None:
        exchange = Exchange(function, method="HEAD")
        await exchange.serve()
        assert exchange.sent[0]["status"] == 200

    run(scenario())
    assert made == [0]


def test_busy_generator_leaves_the_loop_its_turns() -> None:
    turns: list[int] = []

    async def function() -> AsyncIterator[str]:
        for number in range(1000):
            if number == 0:
                asyncio.get_running_loop().call_soon(turns.append, number)
            if turns:
                yield "soon"
                return
            yield "x"

    assert answer(function).text.endswith("soon")


def test_silent_stream_of_events_is_kept_alive_by_comments() -> None:
    async def function() -> AsyncIterator[str]:
        await asyncio.sleep(35)
        yield "first"
        await asyncio.sleep(10)
        yield "second"
        await asyncio.sleep(16)

    async def main() -> None:
        exchange = Exchange(function, accept="text/event-stream")
        await exchange.serve()
        comment = ": keep-alive\n\n"
        assert exchange.body.decode() == f"{comment}{comment}data: first\n\ndata: second\n\n{comment}"
        assert [each["type"] for each in exchange.sent].count("http.response.start") == 1

    run_fake(main())


def test_stream_of_text_is_not_kept_alive() -> None:
    async def function() -> AsyncIterator[str]:
        await asyncio.sleep(35)
        yield "first"

    async def main() -> None:
        exchange = Exchange(function)
        await exchange.serve()
        assert exchange.body == b"first"

    run_fake(main())


def test_failure_after_a_comment_is_not_answered_again() -> None:
    async def function() -> AsyncIterator[str]:
        await asyncio.sleep(20)
        yield refuse()

    async def main() -> None:
        exchange = Exchange(function, accept="text/event-stream")
        with pytest.raises(Reject):
            await exchange.serve()
        assert exchange.body == b": keep-alive\n\n"

    run_fake(main())


def test_threads_of_streams_are_bounded() -> None:
    gate = threading.Event()

    def function() -> Iterator[str]:
        yield "begun"
        gate.wait(20)

    async def scenario() -> None:
        with handler(function, threads=2) as adapted:
            requests = [asyncio.create_task(request(adapted.app)) for _ in range(4)]
            await reached(lambda: adapted.busy_threads == 2)
            gate.set()
            responses: list[Any] = await asyncio.gather(*requests)
            assert [response.text for response in responses] == ["begun"] * 4

    run(scenario())

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from support.queue import Layer, Response
from upwell.functions.asgi import GONE, Message, Receive, Scope, Send
from upwell.functions.errors import Unavailable
from upwell.functions.sdk import Context
from upwell.runtime.queue.layer import AlreadyLogged, RequestTimedOut
from upwell.runtime.testing.loop import run_fake

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
OPEN_HEAD: Message = {"type": "http.response.start", "status": 200, "headers": []}
OK: Message = {"type": "http.response.body", "body": b"ok"}
PIECE: Message = {"type": "http.response.body", "body": b"first", "more_body": True}


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send(HEAD)
    await send(OK)


async def answer_in_a_second(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(1)
    await answer_ok(scope, receive, send)


async def never_end(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(10_000)


def test_a_request_passes_and_is_counted() -> None:
    async def main() -> None:
        layer = Layer(answer_in_a_second)
        response = await layer.request()
        assert (response.status, response.body) == (200, b"ok")
        averages = layer.stats.report(asyncio.get_running_loop().time() + 1)
        assert (averages.request_count, averages.proxied_request_count) == (1, 0)
        assert averages.average_concurrency == pytest.approx(0.5)
        metrics = layer.layer.metrics.snapshot(layer.stats.in_flight)
        assert metrics["responses"] == {"200": 1}
        assert metrics["seconds"] == pytest.approx(1.0)
        assert metrics["buckets"].index(1) == 9  # at most 1 s
        assert metrics["queue_depth"] == 0
        assert layer.wheel.statistics().pending == 0

    run_fake(main())


def test_requests_of_an_activator_are_counted_apart() -> None:
    async def main() -> None:
        layer = Layer(answer_ok)
        await layer.request({"K-Proxy-Request": "activator"})
        await layer.request()
        averages = layer.stats.report(asyncio.get_running_loop().time() + 1)
        assert (averages.request_count, averages.proxied_request_count) == (2, 1)

    run_fake(main())


def test_the_first_request_after_silence_is_told_at_once() -> None:
    async def main() -> None:
        layer = Layer(answer_ok)
        await layer.request()
        await layer.request()
        assert layer.told.woke == 1
        layer.layer.silent = True
        await layer.request()
        assert layer.told.woke == 2

    run_fake(main())


def test_hard_concurrency_queues_ten_times_as_many_and_refuses_the_rest_as_knative_does() -> None:
    async def main() -> None:
        layer = Layer(answer_in_a_second, container_concurrency=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        responses = await asyncio.gather(*(layer.request() for _ in range(14)))
        assert [response.status for response in responses] == [200] * 11 + [503] * 3
        refused = responses[-1]
        assert refused.body == b"pending request queue full\n"
        assert refused.headers == {
            b"content-type": b"text/plain; charset=utf-8",
            b"content-length": b"27",
            b"x-content-type-options": b"nosniff",
        }
        assert [response.times[0] - began for response in responses[:11]] == pytest.approx(range(1, 12))
        assert layer.layer.metrics.responses == {200: 11, 503: 3}

    run_fake(main())


def test_time_in_the_breakers_queue_counts_as_concurrency() -> None:
    async def main() -> None:
        layer = Layer(answer_in_a_second, container_concurrency=1)
        await asyncio.gather(layer.request(), layer.request())
        averages = layer.stats.report(asyncio.get_running_loop().time())
        assert averages.average_concurrency == pytest.approx(1.5)

    run_fake(main())


def test_a_request_whose_time_is_up_gets_504_and_its_handler_is_cancelled() -> None:
    async def main() -> None:
        layer = Layer(never_end, timeout_seconds=3)
        began = asyncio.get_running_loop().time()
        response = await layer.request()
        assert (response.status, response.body) == (504, b"request timeout")
        assert response.headers == {b"content-type": b"text/plain; charset=utf-8", b"content-length": b"15"}
        assert response.times[0] - began == pytest.approx(3, abs=0.06)
        assert layer.layer.metrics.responses == {504: 1}
        assert layer.stats.in_flight == 0
        assert layer.told.stuck == 0
        assert layer.wheel.statistics().pending == 0

    run_fake(main())


def test_after_the_head_the_timeouts_text_is_appended_and_the_rest_dropped() -> None:
    caught: list[BaseException] = []

    async def drip(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OPEN_HEAD)
        await send(PIECE)
        try:
            await asyncio.sleep(3)
        except asyncio.CancelledError:
            try:
                await send(OK)
            except RequestTimedOut as error:
                caught.append(error)
            raise

    async def main() -> None:
        layer = Layer(drip, timeout_seconds=1)
        response = await layer.request()
        assert (response.status, response.body) == (200, b"firstrequest timeout")
        assert response.is_whole
        assert len(caught) == 1
        assert layer.layer.metrics.responses == {200: 1}

    run_fake(main())


def test_a_response_whose_length_leaves_no_room_for_the_text_is_cut_off() -> None:
    async def announce(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send(PIECE)
        await asyncio.sleep(3)

    class Strict(Response):
        async def send(self, message: Message) -> None:
            if message.get("body") == b"request timeout":
                raise RuntimeError("Response content longer than Content-Length")
            await super().send(message)

    async def main() -> None:
        layer = Layer(announce, timeout_seconds=1)
        with pytest.raises(RequestTimedOut):
            await layer.serve(Strict())
        assert layer.stats.in_flight == 0

    run_fake(main())


def test_a_response_begins_with_its_body_so_that_a_timeout_before_that_is_a_504() -> None:
    async def announce(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await asyncio.sleep(3)

    async def main() -> None:
        limits_each: list[dict[str, Any]] = [
            {"timeout_seconds": 1},
            {"timeout_seconds": 9, "response_start_timeout_seconds": 1},
        ]
        for limits in limits_each:
            layer = Layer(announce, **limits)
            response = await layer.request()
            assert (response.status, response.body, len(response.messages)) == (504, b"request timeout", 2)
            assert layer.layer.metrics.responses == {504: 1}

    run_fake(main())


def test_the_head_leaves_with_the_first_message_of_the_body_even_an_empty_one() -> None:
    response = Response()
    seen: list[int] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OPEN_HEAD)
        seen.append(len(response.messages))
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        seen.append(len(response.messages))
        await send(OK)

    async def main() -> None:
        await Layer(stream).serve(response)
        assert seen == [0, 2]
        assert (response.status, response.body) == (200, b"ok")

    run_fake(main())


def test_a_client_that_does_not_read_does_not_hold_the_timeout() -> None:
    class Blocked(Response):
        async def send(self, message: Message) -> None:
            await asyncio.sleep(10_000)

    async def main() -> None:
        layer = Layer(never_end, timeout_seconds=1)
        began = asyncio.get_running_loop().time()
        with pytest.raises(RequestTimedOut):
            await layer.serve(Blocked())
        assert asyncio.get_running_loop().time() - began == pytest.approx(2, abs=0.06)

    run_fake(main())


def test_a_timeout_while_queued_leaves_the_queue_to_the_others() -> None:
    async def main() -> None:
        layer = Layer(never_end, container_concurrency=1, timeout_seconds=1)
        first = asyncio.create_task(layer.request())
        await asyncio.sleep(0.5)
        second = asyncio.create_task(layer.request())
        assert (await first).status == 504
        await asyncio.sleep(0)
        assert repr(layer.layer.breaker) == "<Breaker [1/1 running, 0/10 waiting]>"
        assert (await second).status == 504
        assert repr(layer.layer.breaker) == "<Breaker [0/1 running, 0/10 waiting]>"

    run_fake(main())


def test_a_queued_request_whose_time_is_up_is_answered_while_the_one_ahead_goes_on() -> None:
    async def main() -> None:
        layer = Layer(never_end, container_concurrency=1, timeout_seconds=1)
        assert layer.layer.breaker is not None
        await layer.layer.breaker.enter()
        assert (await layer.request()).status == 504
        assert repr(layer.layer.breaker) == "<Breaker [1/1 running, 0/10 waiting]>"
        assert layer.told.stuck == 0

    run_fake(main())


def test_the_response_start_timeout_ends_with_the_first_byte() -> None:
    async def drip(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OPEN_HEAD)
        await send(PIECE)
        await asyncio.sleep(3)
        await send(OK)

    async def main() -> None:
        late = Layer(never_end, timeout_seconds=10, response_start_timeout_seconds=1)
        began = asyncio.get_running_loop().time()
        response = await late.request()
        assert response.status == 504
        assert response.times[0] - began == pytest.approx(1, abs=0.06)
        in_time = Layer(drip, timeout_seconds=10, response_start_timeout_seconds=1)
        assert (await in_time.request()).body == b"firstok"

    run_fake(main())


def test_the_idle_timeout_counts_from_the_last_byte_and_before_the_first() -> None:
    async def drip(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.8)
        await send(OPEN_HEAD)
        for _ in range(3):
            await asyncio.sleep(0.8)
            await send(PIECE)
        await asyncio.sleep(3)
        await send(OK)

    async def main() -> None:
        silent = await Layer(never_end, timeout_seconds=10, idle_timeout_seconds=1).request()
        assert silent.status == 504
        layer = Layer(drip, timeout_seconds=10, idle_timeout_seconds=1)
        response = await layer.request()
        assert response.body == b"firstfirstfirstrequest timeout"
        assert response.times[-1] - response.times[-2] == pytest.approx(1, abs=0.12)
        assert layer.wheel.statistics().pending == 0

    run_fake(main())


def test_a_handler_that_swallows_its_cancellation_is_answered_for_and_told_as_stuck() -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10_000)
        except asyncio.CancelledError:
            await asyncio.sleep(30)

    async def main() -> None:
        layer = Layer(stubborn, timeout_seconds=1)
        response = Response()
        began = asyncio.get_running_loop().time()
        task = asyncio.create_task(layer.serve(response))
        await asyncio.sleep(1.5)
        assert (response.status, response.is_whole) == (504, True)
        assert (layer.told.stuck, layer.stats.in_flight) == (0, 1)
        await asyncio.sleep(1)
        assert (layer.told.stuck, layer.layer.stuck_calls) == (1, 1)
        await task
        assert layer.layer.stuck_calls == 0
        assert asyncio.get_running_loop().time() - began == pytest.approx(31, abs=0.1)
        assert len(response.messages) == 2

    run_fake(main())


def test_a_thread_that_goes_on_after_its_requests_time_is_told_as_stuck_a_while_later() -> None:
    threads = 1

    async def main() -> None:
        nonlocal threads
        layer = Layer(never_end, abandoned=lambda: threads, timeout_seconds=1)
        assert (await layer.request()).status == 504
        assert (layer.told.stuck, layer.layer.stuck_calls, layer.stats.in_flight) == (0, 1, 0)
        await asyncio.sleep(1.1)
        assert (layer.told.stuck, layer.layer.stuck_calls) == (1, 1)
        threads = 0
        assert (await layer.request()).status == 504
        assert (layer.layer.stuck_calls, layer.wheel.statistics().pending) == (0, 0)
        await asyncio.sleep(1.1)
        assert layer.told.stuck == 1

    run_fake(main())


def test_a_handler_that_ends_just_as_its_time_is_up_does_not_confuse_the_response() -> None:
    async def ends_in_time(scope: Scope, receive: Receive, send: Send) -> None:
        with_lateness = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1.0, with_lateness.set_result, None)
        await with_lateness
        await answer_ok(scope, receive, send)

    async def main() -> None:
        for hundredths in range(90, 106):
            layer = Layer(ends_in_time, timeout_seconds=hundredths / 100)
            response = await layer.request()
            assert (response.status, response.body) in ((200, b"ok"), (504, b"request timeout"))
            assert len(response.messages) == 2

    run_fake(main())


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_exception_gives_a_bare_500_and_a_logged_traceback(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    async def main() -> None:
        layer = Layer(fail)
        response = await layer.request()
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert layer.layer.metrics.responses == {500: 1}
        assert layer.stats.in_flight == 0

    with caplog.at_level(logging.ERROR, "upwell.function"):
        run_fake(main())
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


def test_a_handler_that_fails_between_head_and_body_is_answered_for_with_500() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        raise ValueError("before the body")

    async def main() -> None:
        layer = Layer(fail)
        response = await layer.request()
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert layer.layer.metrics.responses == {500: 1}

    run_fake(main())


def test_with_errors_shown_the_body_is_the_traceback_from_the_functions_code_on() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("told to the developer")

    async def main() -> None:
        body = (await Layer(fail, show_errors=True).request()).body.decode()
        assert body.endswith("ValueError: told to the developer\n")
        assert "in fail" in body
        assert "queue/layer.py" not in body

    run_fake(main())


def test_an_error_of_our_own_answers_with_its_status() -> None:
    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        raise Unavailable("no thread is free")

    async def main() -> None:
        response = await Layer(busy).request()
        assert (response.status, response.body) == (503, b"no thread is free\n")

    run_fake(main())


def test_an_exception_amid_the_response_is_passed_on_so_that_the_connection_ends() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send(PIECE)
        raise ValueError("half a response")

    async def main() -> None:
        layer = Layer(fail, container_concurrency=1)
        response = Response()
        with pytest.raises(AlreadyLogged) as raised:
            await layer.serve(response)
        assert str(raised.value.__cause__) == "half a response"
        assert response.messages == [HEAD, PIECE]
        assert repr(layer.layer) == "<QueueLayer [0 in flight, 1 done] <Breaker [0/1 running, 0/10 waiting]>>"

    run_fake(main())


ACCEPT: Message = {"type": "websocket.accept"}


async def talk(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that is accepted and stays open."""
    assert scope["type"] == "websocket"
    await send(ACCEPT)
    await asyncio.sleep(500)


def test_a_websocket_counts_while_it_is_open_and_silence_does_not_end_it() -> None:
    async def main() -> None:
        layer = Layer(talk, timeout_seconds=600, idle_timeout_seconds=1, response_start_timeout_seconds=1)
        open_ = asyncio.create_task(layer.request(kind="websocket"))
        await asyncio.sleep(400)
        assert layer.stats.in_flight == 1
        assert (await open_).messages == [ACCEPT]
        assert layer.stats.in_flight == 0
        assert layer.layer.metrics.responses == {101: 1}

    run_fake(main())


def test_a_websocket_whose_time_is_up_is_closed_and_its_handler_cancelled() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        layer = Layer(talk, timeout_seconds=5, container_concurrency=1)
        response = await layer.request(kind="websocket")
        assert response.messages == [
            ACCEPT,
            {"type": "websocket.close", "code": 1001, "reason": "request timeout"},
        ]
        assert 5 <= loop.time() - response.times[0] < 6
        assert layer.layer.metrics.timeouts == 1
        assert layer.told.stuck == 0
        assert repr(layer.layer) == "<QueueLayer [0 in flight, 1 done] <Breaker [0/1 running, 0/10 waiting]>>"

    run_fake(main())


@pytest.mark.parametrize("setting", ["timeout_seconds", "response_start_timeout_seconds"])
def test_a_websocket_that_is_not_accepted_in_time_is_answered_504(setting: str) -> None:
    async def dawdle(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(500)

    async def main() -> None:
        settings: dict[str, Any] = {setting: 5}
        layer = Layer(dawdle, **settings)
        start, body = (await layer.request(kind="websocket")).messages
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 504)
        assert (body["type"], body["body"]) == ("websocket.http.response.body", b"request timeout")
        layer.extensions = {}
        assert (await layer.request(kind="websocket")).messages == [{"type": "websocket.close", "code": 1013}]
        assert layer.layer.metrics.responses == {504: 2}

    run_fake(main())


def test_a_websocket_beyond_the_queue_is_refused_with_503() -> None:
    async def main() -> None:
        layer = Layer(talk, container_concurrency=1)
        tasks = [asyncio.create_task(layer.request(kind="websocket")) for _ in range(11)]
        await asyncio.sleep(0.1)
        start, body = (await layer.request(kind="websocket")).messages
        assert (start["status"], body["body"]) == (503, b"pending request queue full\n")
        layer.extensions = {}
        assert (await layer.request(kind="websocket")).messages == [{"type": "websocket.close", "code": 1013}]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run_fake(main())


def test_a_websocket_whose_client_leaves_the_queue_makes_room_in_it() -> None:
    async def main() -> None:
        layer = Layer(talk, container_concurrency=1)
        tasks = [asyncio.create_task(layer.request(kind="websocket")) for _ in range(11)]
        await asyncio.sleep(0.1)
        layer.scopes[5][GONE]()
        await asyncio.sleep(0.1)
        assert tasks[5].result().messages == []
        assert layer.layer.metrics.responses == {499: 1}
        assert repr(layer.layer) == "<QueueLayer [10 in flight, 1 done] <Breaker [1/1 running, 9/10 waiting]>>"
        assert GONE not in layer.scopes[0]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run_fake(main())


def test_a_handler_may_refuse_a_websocket_and_one_that_fails_closes_it_with_1011() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1000})

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        raise ValueError("of its own")

    async def main() -> None:
        layer = Layer(refuse)
        assert len((await layer.request(kind="websocket")).messages) == 1
        assert layer.layer.metrics.responses == {403: 1}
        layer = Layer(fail)
        response = Response()
        with pytest.raises(ValueError, match="of its own"):
            await layer.serve(response, kind="websocket")
        assert response.messages == [ACCEPT, {"type": "websocket.close", "code": 1011, "reason": ""}]
        assert layer.stats.in_flight == 0

    run_fake(main())


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_who_asks_is_told_by_the_gateway_alone(kind: str) -> None:
    clients: list[object] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        clients.append(scope.get("client"))
        await send(ACCEPT if kind == "websocket" else HEAD)

    async def main() -> None:
        layer = Layer(note)
        forwarded = {"X-Forwarded-For": "192.0.2.1"}
        await layer.request({**forwarded, "K-Proxy-Request": "activator"}, kind)
        await layer.request(forwarded, kind)
        assert clients == [("192.0.2.1", 0), None]

    run_fake(main())


def test_the_lifespan_reaches_the_handler_untouched() -> None:
    seen: list[str] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def main() -> None:
        layer = Layer(note)
        await layer.layer({"type": "lifespan"}, note_receive, Response().send)
        assert seen == ["lifespan"]
        assert layer.stats.report(asyncio.get_running_loop().time() + 1).request_count == 0

    async def note_receive() -> Message:
        raise AssertionError("nobody asked")

    run_fake(main())


def test_the_handler_finds_its_deadline_in_the_scope() -> None:
    left: list[float | None] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(2)
        left.append(Context(scope).remaining_seconds)
        await answer_ok(scope, receive, send)

    async def main() -> None:
        await Layer(look, timeout_seconds=5).request()
        await Layer(look, timeout_seconds=5, container_concurrency=1).request()
        assert left == pytest.approx([3, 3])

    run_fake(main())

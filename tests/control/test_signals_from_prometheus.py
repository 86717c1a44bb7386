"""A query gives one number or is missing, whatever the server that is asked does, and in bounded time."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler.decision import Missing, Reading
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.functions.errors import InvalidSettings, Unavailable
from upwell.runtime.control.prometheus import (
    ANSWER_BYTES,
    ANSWER_SECONDS,
    POLL_SECONDS,
    QUERIES,
    PrometheusServer,
    PrometheusSource,
    ask,
    value_of,
)
from upwell.runtime.control.signals import LASTING, SignalBoard, SignalPoller
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

FAILED = Reading(missing=Missing.METRICS_FAILED)
REVISION = "default/one-00001"


def vector(*values: str) -> bytes:
    result = [{"metric": {"pod": str(number)}, "value": [1.7e9, value]} for number, value in enumerate(values)]
    return answer({"resultType": "vector", "result": result})


def answer(data: object) -> bytes:
    return json.dumps({"status": "success", "data": data}).encode()


def whole(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(body: bytes) -> bytes:
    parts = [body[:7], body[7:], b""]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks


Does = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Playing:
    """A server that answers each query with what `answers` has for it, or does what it says."""

    answers: dict[str, bytes] = field(default_factory=dict)
    does: Does | None = None
    asked: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            target = urlsplit(head.split()[1])
            self.paths.append(target.path)
            (query,) = parse_qs(target.query)["query"]
            self.asked.append(query)
            if self.does is None:
                await asyncio.sleep(0.01)
                writer.write(self.answers[query])
            else:
                await self.does(writer)
        except ConnectionError:
            pass
        finally:
            self.at_once -= 1
            writer.close()

    def server(self, path: str = "") -> PrometheusServer:
        return PrometheusServer.parse(f"http://127.0.0.1:{self.port}{path}", "a test")


@asynccontextmanager
async def playing(prometheus: Playing) -> AsyncIterator[PrometheusServer]:
    server = await asyncio.start_server(prometheus.serve, "127.0.0.1", 0)
    prometheus.port = server.sockets[0].getsockname()[1]
    try:
        yield prometheus.server()
    finally:
        server.close()


def asked(prometheus: Playing, query: str = "queue") -> tuple[float | str, float]:
    """The value, or why there is none; and how long that took."""

    async def scenario() -> tuple[float | str, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with playing(prometheus) as server:
            try:
                return await ask(server, query), loop.time() - began
            except Unavailable as error:
                return error.what, loop.time() - began

    return run_fake(scenario())


@pytest.mark.parametrize("framed", [whole, chunked])
@pytest.mark.parametrize(
    ("body", "value"),
    [
        (vector("3.5"), 3.5),
        (vector("3", "4.5"), 7.5),
        (answer({"resultType": "scalar", "result": [1.7e9, "12"]}), 12.0),
        (vector("-4"), 0.0),
    ],
)
def test_a_vector_counts_as_its_sum_and_a_scalar_as_itself(
    body: bytes, value: float, framed: Callable[[bytes], bytes]
) -> None:
    assert asked(Playing({"queue": framed(body)}))[0] == value


def test_a_query_is_asked_as_it_is_written() -> None:
    query = 'sum(rate(x{job="a b",q="+&="}[1m])) or vector(0) # ü'
    prometheus = Playing({query: whole(vector("1"))})
    assert asked(prometheus, query)[0] == 1.0
    assert prometheus.asked == [query]
    assert prometheus.paths == ["/api/v1/query"]


def test_a_server_below_a_path_is_asked_there() -> None:
    async def scenario() -> list[str]:
        prometheus = Playing({"queue": whole(vector("1"))})
        async with playing(prometheus):
            await ask(prometheus.server("/teams/a/"), "queue")
        return prometheus.paths

    assert run_fake(scenario()) == ["/teams/a/api/v1/query"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (whole(vector()), "found nothing"),
        (whole(vector("NaN")), "no number"),
        (whole(vector("1", "+Inf")), "no number"),
        (whole(vector("many")), "no number"),
        (whole(answer({"resultType": "matrix", "result": []})), "gives a matrix"),
        (whole(answer({"resultType": "string", "result": [1, "a"]})), "gives a string"),
        (whole(answer(None)), "gives a None"),
        (whole(b"<html>"), "answered 200 and no JSON"),
        (whole(b"[]"), "answered 200"),
        (whole(b'{"status":"error","error":"parse error"}', "400 Bad Request"), "answered 400: 'parse error'"),
        (whole(vector("1"), "503 Busy"), "answered 503"),
        (whole(b"", "302 Found"), "answered 302 and no JSON"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (ANSWER_BYTES + 1), "too large"),
        (b"", "without an answer"),
    ],
)
def test_an_answer_that_is_no_number_says_what_it_is(written: bytes, said: str) -> None:
    reason, _ = asked(Playing({"queue": written}))
    assert isinstance(reason, str)
    assert said in reason


async def trickles(writer: asyncio.StreamWriter) -> None:
    """Never stops, and never says anything for long enough."""
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(1)


async def sleeps(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(1000)


@pytest.mark.parametrize("does", [trickles, sleeps])
def test_a_slow_server_is_left_when_its_time_is_over(
    does: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    reason, seconds = asked(Playing(does=does))
    assert reason == f"did not answer in {ANSWER_SECONDS:g} s"
    assert ANSWER_SECONDS <= seconds < ANSWER_SECONDS + 0.5


def test_a_server_that_is_not_there_is_missing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens on it
        server = PrometheusServer.parse(f"http://127.0.0.1:{taken.getsockname()[1]}", "a test")
        with pytest.raises(Unavailable, match="Prometheus at 127"):
            run_fake(ask(server, "queue"))


def test_samples_whose_sum_is_beyond_all_numbers_are_missing() -> None:
    with pytest.raises(ValueError, match="no number"):
        value_of(200, vector("1e308", "1e308"))


@pytest.mark.parametrize(
    "hostile",
    [
        whole(b"[" * 900_000),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"",
    ],
    ids=["nested", "another protocol", "nothing"],
)
def test_a_hostile_answer_to_one_query_leaves_the_others_their_values(hostile: bytes) -> None:
    answers = {"hostile": hostile, "queue": whole(vector("4"))}
    targets = [MetricTarget("prometheus", 5.0, query) for query in answers]
    assert polled(Playing(answers), targets, [REVISION]) == [FAILED, Reading(4.0)]


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just("success") | st.just("vector"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["status", "data", "resultType", "result", "value"]), inner, max_size=4),
))  # fmt: skip
def test_no_answer_gives_anything_but_a_number_or_a_value_error(data: Any) -> None:
    body = json.dumps(data).encode()
    try:
        value = value_of(200, body)
    except ValueError:
        return
    assert isinstance(value, float)


def polled(prometheus: Playing, targets: list[MetricTarget], revisions: list[str]) -> list[Reading]:
    async def scenario() -> list[Reading]:
        clock = FakeClock(loop=asyncio.get_running_loop())
        board = SignalBoard(clock)
        keys = [(revision, target) for revision in revisions for target in targets]
        for revision, target in keys:
            board.read(revision, target, 0.0)
        async with playing(prometheus) as server:
            await SignalPoller(board, PrometheusSource(server), clock).step()
        return [board.read(revision, target, 0.0) for revision, target in keys]

    return run_fake(scenario())


def test_a_query_of_many_revisions_is_asked_once_and_few_at_a_time() -> None:
    queries = [f"queue_{number}" for number in range(3 * QUERIES)]
    prometheus = Playing({query: whole(vector(str(number))) for number, query in enumerate(queries)})
    prometheus.answers["queue_5"] = whole(vector())
    targets = [MetricTarget("prometheus", 5.0, query) for query in queries]
    readings = polled(prometheus, targets, [REVISION, "default/other-00001"])
    expected = [Reading(float(number)) for number in range(len(queries))]
    expected[5] = FAILED
    assert readings == [*expected, *expected]
    assert sorted(prometheus.asked) == sorted(queries)
    assert 1 < prometheus.most_at_once <= QUERIES


def test_a_server_that_comes_and_goes_is_told_of_at_each_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "upwell.autoscaler")
    target = MetricTarget("prometheus", 5.0, "queue")

    async def scenario() -> list[tuple[float, Missing | None]]:
        clock = FakeClock(loop=asyncio.get_running_loop())
        board = SignalBoard(clock)
        prometheus = Playing()
        readings = []
        async with playing(prometheus) as server:
            poller = SignalPoller(board, PrometheusSource(server), clock)
            for value in ("4", "", "", "6", "7"):
                prometheus.answers["queue"] = whole(vector(value)) if value else whole(b"", "503 Busy")
                board.read(REVISION, target, 0.0)
                await poller.step()
                reading = board.read(REVISION, target, 0.0)
                readings.append((reading.value, reading.missing))
                clock.advance(POLL_SECONDS)
        clock.advance(POLL_SECONDS * LASTING)
        reading = board.read(REVISION, target, 0.0)
        return [*readings, (reading.value, reading.missing)]

    failed = (0.0, Missing.METRICS_FAILED)
    assert run_fake(scenario()) == [(4.0, None), failed, failed, (6.0, None), (7.0, None), failed]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_without_a_server_the_reason_says_how_to_name_one(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    board = SignalBoard(clock)
    target = MetricTarget("prometheus", 5.0, "queue")
    board.read(REVISION, target, 0.0)
    asyncio.run(SignalPoller(board, PrometheusSource(None), clock).step())
    assert board.read(REVISION, target, 0.0) == FAILED
    (record,) = caplog.records
    assert "--prometheus" in record.__dict__["reason"]


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://127.0.0.1:9091", PrometheusServer("127.0.0.1", 9091, "", False)),
        ("http://prometheus", PrometheusServer("prometheus", 80, "", False)),
        ("https://metrics.example.com/a/b/", PrometheusServer("metrics.example.com", 443, "/a/b", True)),
        ("http://[::1]:9090/", PrometheusServer("::1", 9090, "", False)),
    ],
)
def test_addresses_of_servers(url: str, server: PrometheusServer) -> None:
    assert PrometheusServer.parse(url, "--prometheus") == server


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:9091",
        "ftp://a",
        "http://",
        "http://a:port",
        "http://a?b",
        "http://a/b\r\nc: d",
        "http://u@a",
        "http://a..b",
    ],
)
def test_what_is_no_address_is_refused_with_its_flag(url: str) -> None:
    with pytest.raises(InvalidSettings, match="--prometheus"):
        PrometheusServer.parse(url, "--prometheus")

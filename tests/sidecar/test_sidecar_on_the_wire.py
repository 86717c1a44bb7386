"""The sidecar between raw clients and a container: what the recorded cases do not reach."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.sidecar import Received, Stage, stage
from support.wire import Answer, answers_in
from upwell.runtime.testing.loop import run_fake

CLOSE = "Connection: close\r\n"


def request(
    target: str = "/", fields: str = "", method: str = "GET", version: str = "1.1", body: str = ""
) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/{version}\r\nHost: h\r\n{fields}{length}\r\n{body}".encode()


def on_stage(act: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with stage(**settings) as running:
            await act(running)

    run_fake(main())


def only(received: Received, method: str = "GET") -> Answer:
    (answer,) = answers_in(received.raw, [method])
    return answer


async def idle_connections(running: Stage, count: int) -> None:
    """Leave that many connections to the container open, and forget what it saw."""
    for task in [running.begin(request("/sleep/0.1")) for _ in range(count)]:
        await asyncio.wait((task,), timeout=0.5)
    assert running.container.connections == count
    running.container.seen.clear()


def test_an_answer_that_breaks_off_before_it_is_whole_was_never_seen() -> None:
    async def act(running: Stage) -> None:
        received = await running.ask(request("/half"))
        assert (received.raw, received.end) == (b"", "closed")
        assert len(running.container.seen) == 1

    on_stage(act)


def test_a_body_in_two_pieces_comes_whole() -> None:
    async def act(running: Stage) -> None:
        answer = only(await running.ask(request("/piece/1", CLOSE)))
        assert answer.body == b"first" + b"x" * 25
        assert ("content-type", "text/plain; charset=utf-8") in answer.fields

    on_stage(act)


@pytest.mark.parametrize("size", [2048, 2049, 70_000, 3_000_000])
def test_bodies_of_every_size_come_whole(size: int) -> None:
    async def act(running: Stage) -> None:
        answer = only(await running.ask(request(f"/large/{size}", CLOSE)))
        assert answer.body == bytes(size)
        assert answer.whole

    on_stage(act)


def test_a_body_that_takes_too_long_in_its_midst_is_seen_to_be_cut() -> None:
    async def act(running: Stage) -> None:
        received = await running.ask(request("/piece/9"))
        answer = only(received)
        assert (answer.status, answer.body, answer.whole) == (200, b"firstrequest timeout", False)
        assert received.end == "closed"
        assert received.total_s == pytest.approx(1, abs=0.1)

    on_stage(act, revision_timeout_seconds=1)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (500, (("content-length", "1"), ("content-type", "text/plain; charset=utf-8"))),
        (204, ()),
        (304, ()),
    ],
)
def test_a_status_goes_on_with_the_fields_that_fit_it(status: int, fields: tuple[tuple[str, str], ...]) -> None:
    async def act(running: Stage) -> None:
        received = await running.ask(request(f"/status/{status}"))
        assert (only(received).status, only(received).fields) == (status, fields)
        assert received.end == "still open"

    on_stage(act)


def test_an_answer_to_head_tells_the_length_and_guesses_nothing() -> None:
    async def act(running: Stage) -> None:
        received = await running.ask(request("/status/404", CLOSE, method="HEAD"))
        assert only(received, "HEAD").fields == (("connection", "close"), ("content-length", "1"))
        assert received.raw.endswith(b"\r\n\r\n")

    on_stage(act)


def test_a_timeout_of_head_tells_the_length_of_what_it_leaves_out() -> None:
    async def act(running: Stage) -> None:
        answer = only(await running.ask(request("/sleep/3", method="HEAD")), "HEAD")
        assert answer.status == 504
        assert ("content-length", "15") in answer.fields

    on_stage(act, revision_timeout_seconds=1)


def test_a_client_of_http_1_0_is_spoken_to_as_one() -> None:
    async def act(running: Stage) -> None:
        received = await running.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert only(received).fields == (("content-length", "2"), ("content-type", "text/plain"))
        assert received.end == "closed"
        assert running.container.seen[0].values("host") == [f"127.0.0.1:{running.container.port}"]
        received = await running.ask(request("/", "Connection: keep-alive\r\n", version="1.0"))
        assert ("connection", "keep-alive") in only(received).fields
        assert received.end == "still open"
        received = await running.ask(request("/drip/1", version="1.0"))
        assert (only(received).fields, only(received).body, received.end) == ((), b"firstend", "closed")

    on_stage(act)


def test_requests_sent_ahead_are_answered_in_order() -> None:
    async def act(running: Stage) -> None:
        raw = request("/sleep/1") + request("/status/404") + request("/", "User-Agent: kube-probe/1\r\n" + CLOSE)
        received = await running.ask(raw)
        assert [answer.status for answer in answers_in(received.raw, ["GET"] * 3)] == [200, 404, 400]
        assert [seen.path for seen in running.container.seen] == ["/sleep/1", "/status/404"]

    on_stage(act)


@pytest.mark.parametrize(
    ("idle", "raw", "attempts"),
    [
        (0, request("/reset"), 1),
        (1, request("/reset"), 2),
        (3, request("/reset"), 4),
        (1, request("/reset", method="HEAD"), 2),
        (1, request("/reset", method="POST"), 1),
        (1, request("/reset", method="DELETE"), 1),
        (1, request("/reset", "Idempotency-Key: 1\r\n", method="POST"), 2),
        (1, request("/reset", "Idempotency-Key: 1\r\n", method="POST", body="x"), 1),
        (1, request("/reset", body="x"), 1),
    ],
)
def test_a_request_is_sent_again_only_where_go_sends_it_again(idle: int, raw: bytes, attempts: int) -> None:
    async def act(running: Stage) -> None:
        await idle_connections(running, idle)
        answer = only(await running.ask(raw), raw.split(b" ")[0].decode())
        assert answer.status == 502
        assert len(running.container.seen) == attempts

    on_stage(act)


def test_a_request_that_times_out_in_the_queue_never_reaches_the_container() -> None:
    async def act(running: Stage) -> None:
        first = running.begin(request("/drip/0.9", CLOSE))
        await asyncio.sleep(0.1)
        second = running.begin(request("/sleep/0.5", CLOSE))
        third = running.begin(request("/third", CLOSE))
        assert [only(await task).status for task in (first, second, third)] == [200, 504, 504]
        assert [seen.path for seen in running.container.seen] == ["/drip/0.9", "/sleep/0.5"]
        assert running.server.proxy.stats.in_flight == 0
        assert running.server.proxy.breaker is not None
        assert running.server.proxy.breaker.statistics().running == 0

    on_stage(act, container_concurrency=1, revision_timeout_seconds=1)


def test_who_leaves_the_queue_makes_room_in_it() -> None:
    async def act(running: Stage) -> None:
        running.begin(request("/sleep/30"))
        await asyncio.sleep(0.1)
        leaving = []
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port())
            writer.write(request())
            leaving.append((reader, writer))
        await asyncio.sleep(0.1)
        assert only(await running.ask(request("/", CLOSE))).status == 503
        for _, writer in leaving:
            writer.transport.abort()
        await asyncio.sleep(2)  # one that may only have ended its side is asked first
        waiting = running.begin(request("/last", CLOSE))
        await asyncio.sleep(40)
        assert only(await waiting).status == 200
        assert [seen.path for seen in running.container.seen] == ["/sleep/30", "/last"]
        assert running.server.proxy.metrics.responses == {200: 2, 499: 10, 503: 1}

    on_stage(act, container_concurrency=1)


def test_a_begun_answer_is_not_cut_by_the_time_to_begin() -> None:
    async def act(running: Stage) -> None:
        assert only(await running.ask(request("/drip/3", CLOSE))).body == b"firstend"

    on_stage(act, revision_response_start_timeout_seconds=1)


def test_signs_of_life_put_the_idle_timeout_off() -> None:
    async def act(running: Stage) -> None:
        assert only(await running.ask(request("/drip/0.8", CLOSE))).body == b"firstend"
        received = await running.ask(request("/drip/3", CLOSE))
        assert only(received).body == b"firstrequest timeout"
        assert received.total_s == pytest.approx(1, abs=0.1)

    on_stage(act, revision_idle_timeout_seconds=1)


async def websocket(running: Stage) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port())
    writer.write(request("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


def test_another_protocol_passes_and_counts_until_it_ends() -> None:
    async def act(running: Stage) -> None:
        reader, writer = await websocket(running)
        writer.write(b"ping")
        assert await reader.readexactly(9) == b"echo:ping"
        await asyncio.sleep(20)
        assert running.server.proxy.stats.in_flight == 1
        writer.close()
        await asyncio.sleep(1)
        assert running.server.proxy.stats.in_flight == 0
        assert running.server.proxy.metrics.responses == {101: 1}

    on_stage(act, revision_idle_timeout_seconds=5, revision_response_start_timeout_seconds=5)


def test_another_protocol_ends_when_the_requests_time_is_up() -> None:
    async def act(running: Stage) -> None:
        began = asyncio.get_running_loop().time()
        reader, writer = await websocket(running)
        assert await reader.read() == b""
        assert asyncio.get_running_loop().time() - began == pytest.approx(3, abs=0.1)
        assert running.server.proxy.stats.in_flight == 0
        writer.close()

    on_stage(act, revision_timeout_seconds=3)


def test_a_probe_that_asks_to_upgrade_is_a_probe() -> None:
    async def act(running: Stage) -> None:
        fields = "User-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\nConnection: Upgrade\r\nUpgrade: a\r\n"
        assert only(await running.ask(request("/", fields))).body == b"queue"
        assert running.container.seen == []

    on_stage(act)


def test_a_probe_by_head_is_told_the_length_of_what_there_is() -> None:
    async def act(running: Stage) -> None:
        fields = "K-Network-Probe: probe\r\nK-Network-Hash: a\r\n" + CLOSE
        answer = only(await running.ask(request("/", fields, method="HEAD")), "HEAD")
        assert (answer.status, answer.fields) == (200, (("connection", "close"), ("k-network-hash", "a")))
        fields = "User-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n" + CLOSE
        answer = only(await running.ask(request("/", fields, method="HEAD")), "HEAD")
        assert ("content-length", "5") in answer.fields

    on_stage(act)


def test_a_chunked_body_and_its_announced_trailers_go_on_without_the_trailers() -> None:
    async def act(running: Stage) -> None:
        fields = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n" + CLOSE
        raw = request("/", fields, method="POST") + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
        assert only(await running.ask(raw)).status == 200
        (seen,) = running.container.seen
        assert (seen.body, seen.values("trailer")) == (b"3\r\nabc\r\n0\r\n\r\n", ["X-Sum"])

    on_stage(act)


def test_a_large_request_body_goes_on_whole() -> None:
    async def act(running: Stage) -> None:
        assert only(await running.ask(request("/", CLOSE, method="PUT", body="z" * 2_000_000))).status == 200
        assert running.container.seen[0].body == b"z" * 2_000_000

    on_stage(act)


def test_requests_are_counted_with_and_without_an_activator() -> None:
    async def act(running: Stage) -> None:
        running.begin(request("/sleep/9", "K-Proxy-Request: activator\r\n"))
        running.begin(request("/sleep/9", "K-Proxy-Request: someone\r\n"))
        await running.ask(
            request("/", "User-Agent: Knative-Activator-Probe\r\nK-Network-Probe: queue\r\n" + CLOSE)
        )
        averages = running.server.proxy.stats.report(2e9)
        assert (averages.request_count, averages.proxied_request_count) == (2, 1)

    on_stage(act)


MOVES = st.tuples(
    st.sampled_from(["/", "/sleep/0.5", "/sleep/9", "/drip/2", "/piece/1", "/reset", "/half", "/status/304"]),
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.floats(min_value=0, max_value=2),
    st.one_of(st.none(), st.floats(min_value=0.1, max_value=3)),
)
"""Where to, how, after what pause, and when the client leaves."""


@settings(max_examples=40, deadline=None)
@given(moves=st.lists(MOVES, max_size=30), concurrency=st.integers(min_value=0, max_value=3))
def test_whatever_happens_every_slot_and_every_count_is_given_back(
    moves: list[tuple[str, str, float, float | None]], concurrency: int
) -> None:
    async def one(running: Stage, target: str, method: str, leaves: float | None) -> None:
        asking = running.begin(request(target, CLOSE, method=method))
        if leaves is not None:
            await asyncio.sleep(leaves)
            asking.cancel()
        await asyncio.wait((asking,))

    async def act(running: Stage) -> None:
        proxy = running.server.proxy
        asked = []
        for target, method, pause, leaves in moves:
            asked.append(asyncio.create_task(one(running, target, method, leaves)))
            await asyncio.sleep(pause)
        await asyncio.gather(*asked)
        await asyncio.sleep(10)
        assert proxy.stats.in_flight == 0
        assert proxy.metrics.total == sum(proxy.metrics.responses.values()) == len(moves)
        if proxy.breaker is not None:
            assert (proxy.breaker.statistics().running, proxy.breaker.statistics().waiting) == (0, 0)

    on_stage(act, container_concurrency=concurrency, revision_timeout_seconds=4, revision_idle_timeout_seconds=3)


@pytest.mark.parametrize(
    ("port", "path", "status"),
    [("admin", "/", 404), ("stat", "/other", 404), ("metrics", "/", 404), ("metrics", "/metrics", 200)],
)
def test_the_other_ports_have_one_page_each(port: str, path: str, status: int) -> None:
    async def act(running: Stage) -> None:
        assert only(await running.ask(request(path, CLOSE), port)).status == status

    on_stage(act)


def test_the_revisions_metrics_tell_durations_answers_and_timeouts() -> None:
    async def act(running: Stage) -> None:
        await running.ask(request("/status/404", CLOSE))
        await running.ask(request("/sleep/9", CLOSE))
        running.begin(request("/sleep/0.5"))
        await asyncio.sleep(0.1)
        page = only(await running.ask(request("/metrics", CLOSE), "metrics")).body.decode()
        lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        own = 'k8s_namespace_name="n",kn_revision_name="r",k8s_pod_name="pod-1"'
        name = "kn_serving_invocation_duration_seconds"
        assert lines[f'{name}_bucket{{{own},le="0.5"}}'] == "1"
        assert lines[f'{name}_bucket{{{own},le="+Inf"}}'] == lines[f"{name}_count{{{own}}}"] == "2"
        assert lines[f'upwell_replica_responses_total{{{own},http_response_status_code="504"}}'] == "1"
        assert lines[f"upwell_replica_timeouts_total{{{own}}}"] == "1"
        assert lines[f"kn_serving_queue_depth{{{own}}}"] == "1"

    on_stage(act, serving_namespace="n", serving_revision="r", revision_timeout_seconds=1)


def test_the_autoscalers_page_is_text_for_who_asks_for_text() -> None:
    async def act(running: Stage) -> None:
        await asyncio.sleep(1.5)
        answer = only(await running.ask(request("/metrics", "Accept: text/plain\r\n" + CLOSE), "stat"))
        assert b'queue_requests_per_second{destination_pod="pod-1"} 0.0' in answer.body
        assert ("content-type", "text/plain; version=0.0.4; charset=utf-8") in answer.fields

    on_stage(act)

"""Knative's queue-proxy on the wire: each recorded case is replayed against our sidecar and compared.

The rule of comparison is `tests/golden/README.md`'s. What a case needs to be set up first is read from its name.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from support import golden
from support.container import Seen
from support.http import run
from support.sidecar import Received, Stage, stage
from support.wire import Answer, answers_in, decode_chunks, methods_of
from upwell.runtime.sidecar.stat import Stat
from upwell.runtime.testing.loop import run_fake

SUITE = "queue_proxy_http.json"
CASES: list[dict[str, Any]] = golden.rows(SUITE, "cases")
REPLAYED = [case for case in CASES if "request" in case]
BURSTS = [case for case in CASES if re.match(r"\d+ at once, each ", case["case"])]
METRICS = [case for case in CASES if "stat" in case]
DRAINS = [case for case in CASES if "wait_for_drain_returned_at_s" in case]
HOOKS = [case for case in CASES if case["case"] == "/wait-for-drain without TERM"]

RECORDED_PORT = "127.0.0.1:9001"
IDLE = b"GET /sleep/0.1 HTTP/1.1\r\nHost: hello.example\r\n\r\n"
NUMBERS = {
    "CONTAINER_CONCURRENCY": "container_concurrency",
    "REVISION_TIMEOUT_SECONDS": "revision_timeout_seconds",
    "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "revision_response_start_timeout_seconds",
    "REVISION_IDLE_TIMEOUT_SECONDS": "revision_idle_timeout_seconds",
}
STATES = (
    "backend down",
    "backend never up",
    "backend resets",
    "while the breaker is full",
    "while queued",
    "after TERM",
    "/wait-for-drain",
)


def name_of(case: dict[str, Any]) -> str:
    name: str = case["case"]
    return name


def settings_of(case: dict[str, Any]) -> dict[str, Any]:
    """The environment of the recorded process as our settings; the probe's port is filled in by the stage."""
    given: dict[str, str] = dict(case.get("settings", {}))
    probe = given.pop("readiness", "")
    settings: dict[str, Any] = {NUMBERS[name]: int(value) for name, value in given.items()}
    if probe:
        settings["serving_readiness_probe"] = _probe(probe)
    return settings


def _probe(text: str) -> str:
    """`tcpSocket, periodSeconds 0` as Kubernetes writes it; without a port it is the container's."""
    kind, *numbers = re.split(r", *", text)
    pairs = ", ".join('"{}": {}'.format(*each.split(" ")) for each in numbers)
    return '{"%s": {}%s}' % (kind, f", {pairs}" if pairs else "")  # noqa: UP031


async def set_up(case: dict[str, Any], running: Stage) -> list[asyncio.Task[Received]]:
    """Bring about what the case's name speaks of; gives the requests that were begun for it."""
    name = name_of(case)
    if "backend resets" in name or "backend down" in name:
        # Connections that were used before: as many as broke under the recorded request.
        idle = max(1, len(case["backend_saw"]) - 1) if "GET" in case["request"] else 1
        warm = [running.begin(IDLE) for _ in range(idle)]
        await asyncio.sleep(1)
        running.container.seen.clear()
        if "backend down" in name:
            running.container.refuse()
        return warm
    if "while the breaker is full" in name or "while queued" in name:
        slots = running.server.proxy.settings.container_concurrency
        count = slots * 11 if "breaker is full" in name else slots
        fill = [running.begin(b"GET /sleep/3 HTTP/1.1\r\nHost: fill\r\n\r\n") for _ in range(count)]
        await asyncio.sleep(0.1)
        return fill
    if term := re.search(r"(?:([\d.]+) s )?after TERM", name):
        running.terminate()
        await asyncio.sleep(float(term[1] or 0.5))
    elif "while /wait-for-drain is held" in name:
        running.begin(b"GET /wait-for-drain HTTP/1.1\r\nHost: h\r\n\r\n", "admin")
        await asyncio.sleep(0.5)
    elif "after /wait-for-drain" in name:
        await running.ask(b"GET /wait-for-drain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "admin")
    return []


def compare(case: dict[str, Any], received: Received, seen: list[Seen], port: int) -> None:
    """Assert that what came and what the container saw are as recorded."""
    recorded = case["response"]
    methods = methods_of(case["request"].encode("latin-1"))
    wanted = [relieved(answer) for answer in answers_in(raw_of(recorded), methods)]
    assert [relieved(answer) for answer in answers_in(received.raw, methods)] == wanted
    assert received.end == ("still open" if recorded["connection_end"] == "still open" else "closed")
    tolerance = 1.0 if any(state in name_of(case) for state in STATES) else 0.5
    if wanted:
        assert received.first_byte_s == pytest.approx(recorded["first_byte_s"], abs=tolerance)
    if recorded["connection_end"] != "still open":
        assert received.total_s == pytest.approx(recorded["total_s"], abs=tolerance)
    saw = case["backend_saw"]
    if "while queued" in name_of(case) and len(saw) > len(seen):
        saw = saw[-len(seen) :]  # the request that was in its way is not compared
    assert [request_of(each, port) for each in seen] == [recorded_request(each, port) for each in saw]


def raw_of(recorded: dict[str, Any]) -> bytes:
    if not recorded["status"]:
        return b""
    head = "\r\n".join([recorded["status"], *recorded["headers"], "", ""])
    text: str = head + recorded["body"]
    return text.encode("latin-1")


def relieved(answer: Answer) -> Answer:
    """Without what is free to differ: the text of a 502, and so its length."""
    if answer.status != 502:
        return answer
    fields = tuple((name, "" if name == "content-length" else value) for name, value in answer.fields)
    return Answer(answer.status, fields, b"", answer.whole)


def request_of(seen: Seen, port: int) -> tuple[str, list[tuple[str, str]], bytes]:
    return comparable(seen.line, seen.headers, seen.body, port)


def recorded_request(recorded: dict[str, Any], port: int) -> tuple[str, list[tuple[str, str]], bytes]:
    pairs = [(name, value.replace(RECORDED_PORT, f"127.0.0.1:{port}")) for name, value in recorded["headers"]]
    return comparable(recorded["line"], pairs, recorded["body"].encode("latin-1"), port)


def comparable(
    line: str, headers: list[tuple[str, str]], body: bytes, port: int
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Method and path, fields by lower-case name, and the decoded body."""
    fields = sorted((name.lower(), value) for name, value in headers)
    if ("transfer-encoding", "chunked") in fields:
        body, _, _ = decode_chunks(body)
    return line.rpartition(" ")[0], fields, body


async def replay(case: dict[str, Any]) -> None:
    never = "backend never up" in name_of(case)
    async with stage(listening=not never, **settings_of(case)) as running:
        before = await set_up(case, running)
        already = len(running.container.seen)
        received = await running.ask(case["request"].encode("latin-1"))
        seen = [each for each in running.container.seen[already:] if each.values("host") != ["fill"]]
        compare(case, received, seen, running.container.port)
        for task in before:
            task.cancel()


@pytest.mark.parametrize("case", REPLAYED, ids=name_of)
def test_the_sidecar_answers_as_the_queue_proxy_did(case: dict[str, Any]) -> None:
    run_fake(replay(case))


def test_it_does_so_on_the_loop_of_production() -> None:
    """The cases that take no time; the others differ in timers alone."""
    for case in REPLAYED:
        recorded = case["response"]
        stateful = any(state in name_of(case) for state in STATES)
        if recorded["connection_end"] == "closed" and recorded["total_s"] < 0.1 and not stateful:
            run(replay(case), "uvloop")


@pytest.mark.parametrize("case", BURSTS, ids=name_of)
def test_a_burst_is_queued_and_refused_as_the_queue_proxy_did(case: dict[str, Any]) -> None:
    described = re.match(r"(\d+) at once, each ([\d.]+) s", name_of(case))
    assert described is not None
    request = f"GET /sleep/{described[2]} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()

    async def main() -> None:
        async with stage(**settings_of(case)) as running:
            received = await asyncio.gather(*(running.ask(request) for _ in range(int(described[1]))))
            answers = [answers_in(each.raw, ["GET"])[0] for each in received]
            assert sorted(answer.status for answer in answers) == sorted(
                int(status.split(" ")[1]) for status in case["statuses"]
            )
            refused = [answer for answer in answers if answer.status == 503]
            (wanted,) = answers_in(raw_of(case["refused"][0]), ["GET"]) if case.get("refused") else (None,)
            assert all(answer == wanted for answer in refused)
            assert sorted(each.total_s for each in received) == pytest.approx(case["finish_s"], abs=0.5)

    run_fake(main())


@pytest.mark.parametrize("case", METRICS, ids=name_of)
def test_the_autoscaler_is_told_what_the_queue_proxy_told(case: dict[str, Any]) -> None:
    described = re.search(r"(\d+) direct \+ (\d+) proxied .* of ([\d.]+) s", name_of(case))
    direct, proxied, seconds = described.groups() if described else ("0", "0", "0")
    plain = f"GET /sleep/{seconds} HTTP/1.1\r\nHost: h\r\n\r\n"
    marked = plain.replace("Host", "K-Proxy-Request: activator\r\nHost")
    uptime = case["stat"]["process_uptime"]

    async def loop_of(running: Stage, request: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port())
        try:
            while True:
                writer.write(request.encode())
                await reader.readuntil(b"ok")
        finally:
            writer.close()

    async def main() -> None:
        async with stage(**settings_of(case)) as running:
            requests = [plain] * int(direct) + [marked] * int(proxied)
            clients = [asyncio.create_task(loop_of(running, request)) for request in requests]
            running.tasks += clients
            await asyncio.sleep(uptime + 0.5)
            scraped = await running.ask(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "stat")
            (answer,) = answers_in(scraped.raw, ["GET"])
            for line in case.get("content_type", []):
                name, _, value = line.partition(": ")
                assert (name.lower(), value) in answer.fields
            stat = Stat.decode(answer.body)
            for name, value in case["stat"].items():
                # Clients of the recording lost a tenth of their time between requests.
                assert getattr(stat, name) == (value if isinstance(value, str) else pytest.approx(value, rel=0.15))
            silent = {name for name in Stat.__dataclass_fields__ if name not in case["stat"]}
            assert all(getattr(stat, name) == 0 for name in silent)

    run_fake(main())


@pytest.mark.parametrize("case", HOOKS, ids=name_of)
def test_a_hook_without_term_is_let_go_as_the_queue_proxy_did(case: dict[str, Any]) -> None:
    async def main() -> None:
        async with stage() as running:
            received = await running.ask(
                b"GET /wait-for-drain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "admin"
            )
            assert answers_in(received.raw, ["GET"]) == answers_in(raw_of(case["response"]), ["GET"])
            assert received.total_s == pytest.approx(case["response"]["total_s"], abs=0.5)

    run_fake(main())


@pytest.mark.parametrize("case", DRAINS, ids=name_of)
def test_the_drain_takes_the_time_that_the_queue_proxy_took(case: dict[str, Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with stage() as running:
            port = running.port()
            began = loop.time()
            ended = running.terminate()
            await asyncio.sleep(0.5)
            close = b"Host: h\r\nConnection: close\r\n\r\n"
            hook = running.begin(b"GET /wait-for-drain HTTP/1.1\r\n" + close, "admin")
            await asyncio.sleep(began + case["request_at_s"] - loop.time())
            asked = await running.ask(b"GET / HTTP/1.1\r\n" + close)
            assert answers_in(asked.raw, ["GET"])[0].status == 200
            await asyncio.sleep(began + case["long_request_40s_at_s"] - loop.time())
            long = running.begin(b"GET /sleep/40 HTTP/1.1\r\n" + close)
            waited = await hook
            assert loop.time() - began == pytest.approx(case["wait_for_drain_returned_at_s"], abs=1.0)
            assert answers_in(waited.raw, ["GET"]) == answers_in(raw_of(case["wait_for_drain"]), ["GET"])
            await asyncio.sleep(began + case["new_connection_at_s"] - loop.time())
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            assert answers_in((await long).raw, ["GET"]) == answers_in(raw_of(case["long_request"]), ["GET"])
            await ended
            assert loop.time() - began == pytest.approx(case["exit_at_s"], abs=1.0)

    run_fake(main())


def test_every_recorded_case_is_compared() -> None:
    golden.load(SUITE)
    compared = [*REPLAYED, *BURSTS, *METRICS, *DRAINS, *HOOKS]
    assert sorted(map(name_of, compared)) == sorted(map(name_of, CASES))

"""Probes of programs and functions: HTTP, TCP, commands and gRPC's health protocol, by the kubelet's rules."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.host import hosting, reached, run
from support.programs import program, serving
from upwell.functions.errors import InvalidFunction
from upwell.runtime.host.source import FunctionSource, ProgramSource, source_from_wire
from upwell.runtime.sidecar.checks import USER_AGENT, Target, carry_out
from upwell.runtime.sidecar.grpc_health import decode_answer, encode_request, framed
from upwell.runtime.sidecar.probing import (
    EAGER_PAUSE,
    Exec,
    GrpcCheck,
    HttpGet,
    Lifecycle,
    Probe,
    Probes,
    Sleep,
    Tally,
    TcpConnect,
    Verdict,
    pause,
    startup_seconds,
)

DECLARED: list[tuple[dict[str, Any], Any]] = [
    ({}, TcpConnect()),
    ({"tcpSocket": {"port": 0}}, TcpConnect()),
    ({"tcpSocket": {"port": 8080}}, TcpConnect()),
    ({"tcpSocket": {"port": "http1"}}, TcpConnect()),
    ({"tcpSocket": {"port": 9999, "host": "other"}}, TcpConnect(9999, "other")),
    ({"httpGet": {"path": "healthz", "scheme": "HTTPS"}}, HttpGet("/healthz", secure=True)),
    (
        {"httpGet": {"path": "/a", "port": "9000", "httpHeaders": [{"name": "X-A", "value": "1"}]}},
        HttpGet("/a", 9000, headers=(("X-A", "1"),)),
    ),
    ({"exec": {"command": ["cat", "/tmp/ready"]}}, Exec(("cat", "/tmp/ready"))),
    ({"grpc": {"port": 8080, "service": "shop"}}, GrpcCheck(None, "shop")),
    ({"sleep": {"seconds": 3}}, Sleep(3.0)),
]


@pytest.mark.parametrize(("declared", "action"), DECLARED)
def test_a_declared_probe_is_read_with_its_defaults(declared: dict[str, Any], action: Any) -> None:
    assert Probe.read(declared, 8080, "default/program") == Probe(action)


def test_thresholds_and_times_are_read_and_zero_is_the_default_as_in_kubernetes() -> None:
    declared = {"periodSeconds": 3, "timeoutSeconds": 2, "failureThreshold": 5, "successThreshold": 0}
    found = Probe.read({**declared, "initialDelaySeconds": 7}, 8080, "here")
    assert found == Probe(TcpConnect(), 7, 3, 2, 1, 5)


@pytest.mark.parametrize(
    "declared", [{"exec": {}}, {"httpGet": 3}, {"sleep": {}}, {"httpGet": {"httpHeaders": [{}]}}]
)
def test_a_probe_that_cannot_be_read_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(InvalidFunction, match="cannot be read"):
        Probe.read(declared, 8080, "default/program")


@pytest.mark.parametrize("action", [action for _, action in DECLARED])
def test_probes_and_lifecycles_survive_the_wire(action: Any, tmp_path: Path) -> None:
    probes = Probes(Probe(action), Probe(action, 1.0, 3.0), None)
    lifecycle = Lifecycle(action, Sleep(1.5))
    program = ProgramSource("n/p", ("a", "b"), tmp_path, probes=probes, lifecycle=lifecycle, log=tmp_path)
    function = FunctionSource("n/f", tmp_path, "main", probes=probes, environment={"A": "b"})
    for source in (program, function):
        assert source_from_wire(json.loads(json.dumps(source.to_wire()))) == source


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_only_answers_in_a_row_count(answers: list[bool], successes: int, failures: int) -> None:
    probe = Probe(TcpConnect(), success_threshold=successes, failure_threshold=failures)
    tally = Tally()
    for answer in answers:
        tally = tally.after(answer)
    row = 0
    for answer in reversed(answers):
        if answer is not answers[-1]:
            break
        row += 1
    enough = bool(answers) and row >= (successes if answers[-1] else failures)
    expected = (Verdict.PASSED if answers and answers[-1] else Verdict.FAILED) if enough else Verdict.UNDECIDED
    assert tally.verdict(probe) is expected


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.1, 600))
def test_one_that_starts_is_asked_often_at_first_and_never_less_often_than_declared(
    earlier: float, later: float, period: float
) -> None:
    earlier, later = sorted((earlier, later))
    assert EAGER_PAUSE <= pause(earlier, period) <= pause(later, period) <= period
    assert pause(0.0, period) == EAGER_PAUSE


def test_a_startup_probe_asked_more_often_fails_no_sooner() -> None:
    assert startup_seconds(Probe(TcpConnect(), initial_delay=5, period=10, failure_threshold=30)) == 305


async def answering(status: int, seen: list[bytes]) -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("status", "passed"),
    [(200, True), (204, True), (302, True), (399, True), (400, False), (503, False), (199, False)],
)
def test_a_get_passes_with_200_to_399(status: int, passed: bool) -> None:
    async def main() -> None:
        seen: list[bytes] = []
        server, port = await answering(status, seen)
        async with server:
            action = HttpGet("/healthz?full=1", headers=(("X-Probe", "1"), ("Host", "shop.test")))
            check = await carry_out(action, Target(port), 5.0)
        assert check.passed is passed
        assert passed or check.reason == f"GET /healthz?full=1 was answered with {status}"
        lines = seen[0].decode().split("\r\n")
        assert lines[0] == "GET /healthz?full=1 HTTP/1.1"
        assert {"X-Probe: 1", "Host: shop.test", f"User-Agent: {USER_AGENT}"} < set(lines)
        assert sum(line.lower().startswith("host:") for line in lines) == 1

    run(main())


def test_what_does_not_answer_in_time_or_at_all_fails_with_a_reason(tmp_path: Path) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
            silent = Target(server.sockets[0].getsockname()[1])
            assert (await carry_out(HttpGet(), silent, 0.1)).reason == "GET / took longer than 0.1 s"
            assert (await carry_out(TcpConnect(), silent, 5.0)).passed
        nobody = Target(1)
        assert (await carry_out(TcpConnect(), nobody, 5.0)).reason == "a connection: Connection refused"

    run(main())


def test_a_command_passes_with_0_and_tells_its_output_when_it_does_not() -> None:
    async def main() -> None:
        target = Target(environment={"PATH": "/usr/bin:/bin", "WORD": "given"})
        assert (await carry_out(Exec(("sh", "-c", "test $WORD = given")), target, 5.0)).passed
        failed = await carry_out(Exec(("sh", "-c", "echo not yet; exit 4")), target, 5.0)
        assert failed == (False, "the command sh ended with 4: not yet")
        slow = await carry_out(Exec(("sleep", "100")), target, 0.1)
        assert slow == (False, "the command sleep took longer than 0.1 s")
        absent = await carry_out(Exec(("no-such-thing",)), target, 5.0)
        assert absent.reason == "the command no-such-thing cannot be run: No such file or directory"

    run(main())


async def grpc_server(
    answer: bytes, seen: list[tuple[dict[str, str], bytes]], status: str = "0"
) -> asyncio.Server:
    """A server of gRPC's health protocol that gives every call the same answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(False, header_encoding="utf-8"))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        fields: dict[str, str] = {}
        body = b""
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    fields = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    seen.append((fields, body))
                    head = [(":status", "200"), ("content-type", "application/grpc")]
                    connection.send_headers(event.stream_id, head)
                    if answer:
                        connection.send_data(event.stream_id, framed(answer))
                    connection.send_headers(event.stream_id, [("grpc-status", status)], end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()
        await writer.wait_closed()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b"\x08\x01", "0", ""),
        (b"\x08\x02", "0", "a gRPC health check was answered with NOT_SERVING"),
        (b"", "0", "a gRPC health check was answered with a message that cannot be read"),
        (b"", "5", "a gRPC health check was answered with gRPC status NOT_FOUND (it does not know the service)"),
    ],
)
def test_a_grpc_health_check_passes_with_serving(answer: bytes, status: str, reason: str) -> None:
    async def main() -> None:
        seen: list[tuple[dict[str, str], bytes]] = []
        async with await grpc_server(answer, seen, status) as server:
            target = Target(server.sockets[0].getsockname()[1])
            check = await carry_out(GrpcCheck(service="shop"), target, 5.0)
        assert check == (not reason, reason)
        fields, body = seen[0]
        assert fields[":path"] == "/grpc.health.v1.Health/Check"
        assert (fields["te"], fields["content-type"]) == ("trailers", "application/grpc")
        assert body == framed(b"\x0a\x04shop")

    run(main())


def test_a_grpc_check_of_what_is_no_grpc_server_fails() -> None:
    async def main() -> None:
        server, port = await answering(200, [])
        async with server:
            check = await carry_out(GrpcCheck(), Target(port), 5.0)
        assert not check.passed

    run(main())


@given(st.text(max_size=300))
def test_the_name_of_a_service_is_written_as_protobuf_does(name: str) -> None:
    message = encode_request(name)
    if not name:
        assert message == b""
        return
    length, shift, index = 0, 0, 1
    while True:
        length |= (message[index] & 0x7F) << shift
        shift += 7
        index += 1
        if message[index - 1] < 0x80:
            break
    assert (message[0], length, message[index:]) == (0x0A, len(name.encode()), name.encode())


@given(st.binary(max_size=20))
def test_an_answer_that_is_no_health_message_is_refused_and_nothing_else_raised(body: bytes) -> None:
    try:
        assert decode_answer(body) >= 0
    except ValueError:
        assert body != framed(b"\x08\x01")


def test_a_program_gets_requests_only_once_its_readiness_probe_has_passed(tmp_path: Path) -> None:
    text = """
        began = time.monotonic()
        asked = []
        def answer(request):
            if request.path == "/ready":
                asked.append(request.headers["User-Agent"])
                return (200 if time.monotonic() - began > 0.4 else 503), ""
            return 200, str(len(asked))
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            probes = Probes(readiness=Probe(HttpGet("/ready")))
            running = await serving(host, program(tmp_path / "p", text, probes=probes))
            assert int((await running.get()).body) >= 3
            assert sum(report.request_count for report in running.recorder.reports) <= 1

    run(main())


def test_a_command_decides_readiness_with_the_program_s_environment_and_directory(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            action = Exec(("sh", "-c", "test -f ready-$PORT"))
            text = "open(f'ready-{os.environ[\"PORT\"]}', 'w').close()"
            source = program(tmp_path / "p", text, probes=Probes(readiness=Probe(action)))
            assert (await (await serving(host, source)).get()).status == 200

    run(main())


def test_a_startup_probe_that_fails_for_its_time_ends_the_program(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            startup = Probe(HttpGet("/never"), period=0.3, failure_threshold=2)
            text = "def answer(request):\n    return 404, ''"
            source = program(tmp_path / "p", text, probes=Probes(startup=startup))
            status = await host.start(host.launcher.load(source)).recorder.exit()
            assert status.reason.endswith("its startup probe failed for 0.6 s: GET /never was answered with 404")
            assert (status.was_ready, status.cause) == (False, "Unhealthy")

    run(main())


def test_a_program_whose_liveness_probe_fails_says_so_and_why(tmp_path: Path) -> None:
    text = """
        well = True
        def answer(request):
            global well
            if request.path == "/fall-ill":
                well = False
            return (200 if well or request.path != "/live" else 500), ""
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            probes = Probes(liveness=Probe(HttpGet("/live"), period=0.05, failure_threshold=3))
            running = await serving(host, program(tmp_path / "p", text, probes=probes))
            assert running.recorder.sick == []
            await running.get("/fall-ill")
            await reached(lambda: bool(running.recorder.sick), "the liveness probe's failure")
            reason = "its liveness probe failed 3 times in a row: GET /live was answered with 500"
            assert running.recorder.sick == [reason]
            running.process.drain()
            assert (await running.recorder.exit()).reason == f"exited with code 0: {reason}"

    run(main())


ASGI = """
    import pathlib
    asked = []
    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError
        probed = scope["path"] == "/health"
        asked.extend([dict(scope["headers"]).get(b"user-agent")] * probed)
        status = 200 if not probed or pathlib.Path("well").exists() else 503
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"%d" % min(9, len(asked))})
"""


def test_a_function_s_probes_reach_its_handler_past_the_queue_and_count_as_no_load(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            liveness = Probe(HttpGet("/health"), period=0.05, failure_threshold=2)
            probes = Probes(Probe(HttpGet("/health")), liveness, Probe(TcpConnect()))
            source = host.source(ASGI, probes=probes, container_concurrency=1)
            running = host.start(host.launcher.load(source))
            await reached(lambda: running.process.pid is not None)
            assert not running.recorder.is_ready
            (source.root / "well").touch()
            await running.recorder.became_ready()
            assert int((await running.get()).body) >= 1
            (source.root / "well").unlink()
            await reached(lambda: bool(running.recorder.sick), "the liveness probe's failure")
            assert "GET /health was answered with 503" in running.recorder.sick[0]
            await reached(lambda: bool(running.recorder.metrics))
            assert running.recorder.metrics["responses"] == {"200": 1}

    run(main())


def test_a_function_s_command_decides_its_readiness(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            script = tmp_path / "ready.sh"
            script.write_text('#!/bin/sh\n[ "$WORD" = given ] && [ -f here ]\n')
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
            probes = Probes(readiness=Probe(Exec((str(script),))))
            source = host.source("open('here', 'w').close()\ndef main(): return 'hi'", probes=probes)
            source.environment["WORD"] = "given"  # type: ignore[index]  # a dictionary
            running = host.start(host.launcher.load(source))
            await running.recorder.became_ready()
            assert (await running.get()).body == b"hi"

    run(main())

"""What counts as a whole answer, and what becomes of the connection."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from support.load import OK, Answer, Scripted, answer, loaded, outlined, plain, scripted
from upwell.functions.errors import Unavailable
from upwell.runtime.load.dial import Place
from upwell.runtime.load.precise import precise_loop
from upwell.runtime.load.report import LoadReport
from upwell.runtime.load.requests import Outline

COUNT = 5
SWITCH = b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
CERTIFICATE = Path(__file__).parents[1] / "http" / "certificates" / "first.pem"


def asked(given: Answer, outline: Outline | None = None) -> tuple[LoadReport, Scripted]:
    """One connection's worth of requests that are all answered so, on the loop of production."""

    async def main() -> tuple[LoadReport, Scripted]:
        async with scripted(lambda number, request: given) as server:
            load = replace(plain(server.port), count=COUNT, connections=1, timeout=5.0)
            return await loaded(outlined(load, outline or Outline("GET", "/", "test"))), server

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    "data",
    [
        OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
        answer(200, body=b"x" * 300_000),
    ],
    ids=["length", "chunks", "no-content", "not-modified", "informational", "large"],
)
def test_a_connection_is_used_again_behind_a_whole_answer(data: bytes) -> None:
    report, server = asked(Answer(data))
    assert (report.total.outcomes["succeeded"], server.connections) == (COUNT, 1)
    assert "103" not in report.total.statuses


def test_an_answer_to_head_has_no_body_whatever_it_says() -> None:
    given = Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    report, server = asked(given, Outline("HEAD", "/", "test"))
    assert (report.total.outcomes["succeeded"], server.connections) == (COUNT, 1)


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        (Answer(b"HTTP/1.1 200 OK\r\n\r\nto the end", closes=True), {}),
        (Answer(OK + OK), {}),
        (Answer(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", closes=True), {}),
        (Answer(b"", closes=True), {"closed before the answer": COUNT}),
        (Answer(answer(200, body=b"whole")[:-1], closes=True), {"closed during the answer": COUNT}),
        (Answer(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), {"malformed answer": COUNT}),
        (Answer(SWITCH), {"malformed answer": COUNT}),
    ],
    ids=["endless", "surplus", "http-1.0", "nothing", "cut", "no-http", "upgrade"],
)
def test_a_connection_ends_behind_any_other(given: Answer, errors: dict[str, int]) -> None:
    report, server = asked(given)
    assert report.total.errors == errors
    assert report.total.outcomes["succeeded"] == COUNT - sum(errors.values())
    assert server.connections == COUNT


def test_causes_are_read_from_the_answers() -> None:
    def script(number: int, request: bytes) -> Answer:
        broken = answer(498, "X-Envoy-Overload: true", body=b"delay break!")
        return Answer([OK, answer(429), broken, answer(503)][number % 4])

    async def main() -> LoadReport:
        async with scripted(script) as server:
            return await loaded(replace(plain(server.port), count=8))

    total = asyncio.run(main()).total
    assert total.outcomes == {"succeeded": 2, "limited": 2, "broken": 2, "failed": 2}
    assert total.statuses == {"200": 2, "429": 2, "498": 2, "503": 2}


def test_tls_is_spoken_and_certificates_are_checked() -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(CERTIFICATE)

    async def main(client: ssl.SSLContext) -> LoadReport:
        async with scripted(lambda number, request: Answer(), tls=served) as server:
            load = replace(plain(server.port), count=COUNT, place=Place("localhost", server.port, client))
            return await loaded(load)

    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        assert runner.run(main(trusting)).total.outcomes["succeeded"] == COUNT
        with pytest.raises(Unavailable, match="certificate"):
            runner.run(main(ssl.create_default_context()))

"""`upwell load` as a person types it: against a platform, against a URL, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.command import Shell

EXAMPLES = Path(__file__).parents[2] / "examples"


class Backend(ThreadingHTTPServer):
    """Keeps the events that it gets: their ids and data."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.events: list[tuple[str, bytes]] = []


class Answers(BaseHTTPRequestHandler):
    """By what it is asked: 498 as a breaker would, 429 to guests, else 200."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = 498 if self.path == "/broken" else 429 if self.headers["user_type"] == "guest" else 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Backend)
        self.server.events.append((self.headers["ce-id"], body))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Its URL, and the events that it got."""
    server = Backend()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.events
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, tmp_path / "data")


def test_fortios_spellings_are_taken(shell: Shell) -> None:
    with serving() as (url, _):
        out = shell.fine("load", "-qps", "100", "-c", "8", "-t", "10s", "-n", "10", "-H", "user_type: guest", url)
    assert "10 requests in 0.1 s, open loop of 100 a second on up to 8 connections" in out
    assert re.search(r"^limited +10 +100\.0%", out, re.MULTILINE)
    assert "Code 429 : 10 (100.0%)" in out


def test_zero_a_second_is_as_fast_as_connections_answer(shell: Shell) -> None:
    with serving() as (url, _):
        out = shell.fine("load", "-qps", "0", "-c2", "-n", "50", f"{url}/broken")
    assert "50 requests" in out
    assert "closed loop on 2 connections" in out
    assert "Code 498 : 50 (100.0%)" in out
    assert re.search(r"^broken +50 ", out, re.MULTILINE)


def test_classes_are_shown_apart_and_the_report_is_json_on_request(shell: Shell) -> None:
    classes = ("--class", "guest:user_type: guest", "--class", "subscriber:user_type: subscriber:4")
    with serving() as (url, _):
        told = json.loads(shell.fine("load", url, "-qps", "200", "-n", "50", *classes, "--json"))
        out = shell.fine("load", url, "-qps", "200", "-n", "50", *classes)
    guest, subscriber = told["classes"]
    assert (guest["outcomes"]["limited"], subscriber["outcomes"]["succeeded"]) == (10, 40)
    assert "guest: Code 429 : 10 (100.0%)" in out
    assert re.search(r"^total +all +50 +100\.0%", out, re.MULTILINE)


def test_events_are_sent_with_ids_that_count_up(shell: Shell) -> None:
    with serving() as (url, events):
        shell.fine("load", url, "-c", "1", "-n", "3", "--event", "t", "--id", "a-", "--data", "{}")
    assert events == [(f"a-{number}", b"{}") for number in (1, 2, 3)]


def test_a_condition_that_is_met_fails_the_command(shell: Shell) -> None:
    with serving() as (url, _):
        fine = shell.run("load", url, "-c", "1", "-n", "3", "--fail-on", "failed>0")
        bad = shell.run("load", f"{url}/broken", "-c", "1", "-n", "3", "--fail-on", "broken>10%")
        guest = ("--class", "guest:user_type: guest", "--fail-on", "guest:limited<3")
        alone = shell.run("load", url, "-c", "1", "-n", "3", *guest)
    assert fine.code == alone.code == 0, alone.err
    assert bad.code == 1
    assert "Failed: broken>10%: it is 100 %" in bad.err
    assert "Code 498 : 3" in bad.out


@pytest.mark.parametrize("name", ["load.png", "load.svg"])
def test_a_plot_is_written(shell: Shell, name: str) -> None:
    with serving() as (url, _):
        assert shell.run("load", url, "-c", "1", "-n", "3", "--plot", name).code == 0
    assert (shell.directory / name).stat().st_size > 1000


def test_an_interrupt_ends_the_run_and_shows_what_there_is(shell: Shell) -> None:
    with serving() as (url, events), shell.started("load", url, "-qps", "50", "-t", "0", "-d", "x") as running:
        while len(events) < 5:
            assert running.process.poll() is None, running.output
            threading.Event().wait(0.01)
        assert running.end(signal.SIGINT) == 0
        assert "Interrupted" in running.output
        assert "Code 200 : " in running.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("ftp://127.0.0.1/",),
        ("http://",),
        ("http://user@127.0.0.1/",),
        ("http://127.0.0.1:99999/",),
        ("http://127.0.0.1/", "--path", "/there"),
        ("http://127.0.0.1/", "-c", "0"),
        ("http://127.0.0.1/", "-qps", "-1"),
        ("http://127.0.0.1/", "-H", "no header"),
        ("http://127.0.0.1/", "--class", "guest"),
        ("http://127.0.0.1/", "--class", "a:b: c", "--class", "a:b: d"),
        ("http://127.0.0.1/", "--fail-on", "failed"),
        ("http://127.0.0.1/", "--fail-on", "member:failed>0", "--class", "guest:b: c"),
        ("http://127.0.0.1/", "--extension", "a=b"),
        ("http://127.0.0.1/", "--timeout", "0"),
        ("http://127.0.0.1/", "--plot", "x.gif"),
        ("http://127.0.0.1/", "--data", "@missing"),
        ("https://127.0.0.1/", "--cacert", "missing"),
        ("http://127.0.0.1/", "-X", "GET /"),
    ],
)
def test_wrong_input_is_refused_with_two(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run("load", *arguments)
    assert done.code == 2, done.err
    assert done.out == ""


def test_where_nothing_listens_the_command_says_so(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = shell.run("load", f"http://127.0.0.1:{port}/")
    assert done.code == 1
    assert "nothing takes a connection: connection refused" in done.err


def test_a_functions_name_becomes_its_host_at_the_gateway(shell: Shell) -> None:
    with shell.up() as platform:
        shell.fine("deploy", str(EXAMPLES / "httpbin"), "--wait")
        out = shell.fine("load", "httpbin", "--path", "/status/503", "-c", "4", "-n", "20")
        port = platform.port()
        url = f"http://httpbin.default.localhost:{port}/status/429"
        told = json.loads(shell.fine("load", url, "-qps", "100", "-n", "20", "-o", "json"))
    assert f"http://httpbin.default.localhost:{port}/status/503: 20 requests" in out
    assert re.search(r"^failed +20 ", out, re.MULTILINE)
    assert told["total"]["statuses"] == {"429": 20}
    assert told["total"]["outcomes"]["limited"] == 20

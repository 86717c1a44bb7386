"""`upwell topology` of a platform with a limited function."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import UPWELL, Shell, Started

FUNCTION = """\
def main():
    return "done"
"""
LIMITER = """\
apiVersion: istio.alibabacloud.com/v1
kind: ASMLocalRateLimiter
metadata:
  name: two
  namespace: istio-system
spec:
  workloadSelector:
    labels:
      istio: ingressgateway
  isGateway: true
  configs:
  - match:
      vhost:
        name: quick.default.example.com
        port: 80
    limit:
      fill_interval:
        seconds: 3600
      quota: 2
"""
NAME = "ASMLocalRateLimiter istio-system/two"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, Started]]:
    directory = tmp_path_factory.mktemp("platform")
    shell = Shell(directory, directory / "data")
    shell.write("quick.py", FUNCTION)
    with shell.up() as platform:
        shell.fine("deploy", "quick.py", "--wait")
        shell.fine("apply", "-f", "-", given=LIMITER)
        yield shell, platform


def ask(port: int, host: str = "quick.default.example.com") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            return error.code


def test_what_is_asked_meanwhile_is_told_with_the_policy_that_refused(running: tuple[Shell, Started]) -> None:
    shell, platform = running
    page = shell.directory / "topology.html"
    with shell.started("topology", "-w", "--interval", "1s", "-o", "json", "--html", str(page)) as watching:
        watching.wait_for("}\n")
        statuses = [ask(platform.port()) for _ in range(5)] + [ask(platform.port(), "nobody.example.com")]
        watching.wait_for(r'"limited": 3, [^\n]*\n')
        told = [json.loads(line) for line in watching.output.splitlines(keepends=True) if line.endswith("\n")]
    assert statuses == [200, 200, 429, 429, 429, 404]
    assert told[0]["edges"][0]["total"] == 0
    whole, edge = told[-1]["edges"]
    assert edge["target"].startswith("revision default/quick-")
    assert (edge["totals"]["succeeded"], edge["totals"]["limited"]) == (2, 3)
    assert [(each["policy"], each["total"]) for each in edge["refusals"]] == [(NAME, 3)]
    assert {"policy": NAME, "place": "route default/quick"} in edge["policies"]
    assert whole["totals"]["unrouted"] == 1
    counted = sum(each["edges"][1]["rates"]["limited"] * each["interval_seconds"] for each in told)
    assert counted == pytest.approx(3)
    assert 'content="1"' in page.read_text()
    assert not page.with_name(".topology.html.part").exists()


def test_the_table_and_dot_name_what_there_is(running: tuple[Shell, Started]) -> None:
    shell, _ = running
    said, header, whole, edge = shell.fine("topology", "--interval", "100ms").splitlines()
    assert said.startswith("0 requests a second, over 0.")
    assert header.split()[:8] == ["FROM", "TO", "ROUTE", "SPLIT", "READY", "A", "SECOND", "SUCCEEDED"]
    assert whole.split()[:2] == ["client", "gateway"]
    assert edge.split()[0] == "gateway"
    assert edge.split()[2:4] == ["default/quick", "100%"]
    assert shell.fine("topology", "--interval", "100ms", "-o", "dot").startswith("digraph topology {\n")
    empty = shell.fine("topology", "--interval", "100ms", "-n", "other").splitlines()
    assert len(empty) == 3


def test_a_terminal_shows_each_picture_in_the_place_of_the_last(running: tuple[Shell, Started]) -> None:
    shell, _ = running
    ours, theirs = pty.openpty()
    arguments = [*UPWELL, "topology", "-w", "--interval", "200ms"]
    process = subprocess.Popen(arguments, env=shell.environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        shown = b""
        while shown.count(b"client") < 3:
            shown += os.read(ours, 4096)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert shown.count(b"\x1b[2J") == 1
    assert shown.count(b"\x1b[H") >= 3


def test_what_cannot_be_is_refused(running: tuple[Shell, Started]) -> None:
    shell, _ = running
    short = shell.run("topology", "--interval", "10ms")
    assert short.code == 2
    assert "shorter than 0.1s" in short.err
    nowhere = shell.run("topology", "--interval", "100ms", "--html", "nowhere/topology.html")
    assert nowhere.code != 0
    assert "the page cannot be written: No such file or directory" in nowhere.err


def test_without_a_platform_the_command_says_so(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "data")
    done = shell.run("topology")
    assert done.code != 0
    assert "no platform is running" in done.err

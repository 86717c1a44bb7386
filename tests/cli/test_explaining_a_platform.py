"""`upwell explain` of a service under load, on a platform of its own."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.command import PATIENCE, Shell, Started

SLOW = """\
import asyncio

async def main():
    await asyncio.sleep(1.0)
    return "done"
"""
MANIFEST = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: slow
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/target: "2"
        autoscaling.knative.dev/target-utilization-percentage: "100"
        autoscaling.knative.dev/max-scale: "3"
    spec:
      containers:
      - image: slow
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, Started]]:
    directory = tmp_path_factory.mktemp("platform")
    shell = Shell(directory, directory / "data")
    shell.write("slow.py", SLOW)
    with shell.up() as platform:
        shell.fine("apply", "-f", "-", "--image", "slow=slow.py", "--wait", given=MANIFEST)
        yield shell, platform


def until(shell: Shell, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What is told of the only revision once it holds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done = shell.run("explain", "slow", "-o", "json")
        if done.code == 0:
            (found,) = json.loads(done.out)["revisions"]
            if holds(found):
                return dict(found)
    raise AssertionError(done)


def ask(port: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": "slow.default.localhost"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.read() == b"done"


def test_a_service_under_load_says_why_it_has_its_replicas(running: tuple[Shell, Started]) -> None:
    shell, platform = running
    until(shell, lambda one: one["latest"]["ready"] == 0)
    assert shell.fine("explain", "slow").startswith("slow-00001 has no replica: nobody asks for it.\n")
    asking = [threading.Thread(target=ask, args=(platform.port(),)) for _ in range(12)]
    for each in asking:
        each.start()
    found = until(shell, lambda one: one["latest"]["ready"] == 3 and one["latest"]["in_flight"] is None)
    for each in asking:
        each.join()
    assert found["latest"]["scale"] == 3
    assert found["latest"]["panic"] in ("renewed", "held")
    assert any("max-scale" in each["bounds"] for each in found["history"])
    assert found["outlook"]["no_more"] == "max-scale"
    assert len(found["starts"]) == 3
    printed = shell.fine("explain", "slow", "--plot", "slow.png")
    picture = (shell.directory / "slow.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 5_000
    assert printed.startswith("slow-00001 has 3 replicas since ")
    assert re.search(r"\n  no more +max-scale is 3\n", printed)
    for part in ("panic", "Starts:  3 replicas were started", "\nDecisions:\n"):
        assert part in printed
    assert "slow-00001 has 3 replicas" in shell.fine("describe", "ksvc", "slow")

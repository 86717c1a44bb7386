"""What docs/routes.md has its readers type: traffic is shared, tagged, rolled back, and rolled out by steps."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import PATIENCE, Shell, Started

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUTES = EXAMPLES / "routes"
PAGE = Path(__file__).parents[2] / "docs" / "routes.md"
IMAGE = ("--image", f"example.com/greeter={EXAMPLES / 'helloworld'}")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, Started]]:
    directory = tmp_path_factory.mktemp("routes")
    shell = Shell(directory, directory / "data")
    with shell.up() as up:
        yield shell, up


def greeting(up: Started, name: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", up.port(), timeout=PATIENCE)
    try:
        connection.request("GET", "/", headers={"Host": f"{name}.default.localhost"})
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


def test_every_manifest_is_told_of() -> None:
    page = PAGE.read_text()
    assert [each.name for each in ROUTES.glob("*.yaml") if f"examples/routes/{each.name}" not in page] == []


def test_a_tenth_goes_to_the_second_revision_and_none_after_the_rollback(platform: tuple[Shell, Started]) -> None:
    shell, up = platform
    shell.fine("apply", "-f", f"{ROUTES / 'first.yaml'}", *IMAGE, "--wait")
    assert {greeting(up, "greeter") for _ in range(20)} == {"Hello first!"}
    shell.fine("apply", "-f", f"{ROUTES / 'split.yaml'}", *IMAGE, "--wait")
    answers = [greeting(up, "greeter") for _ in range(400)]
    assert set(answers) == {"Hello first!", "Hello second!"}
    # Six standard deviations: once in a billion runs.
    assert abs(answers.count("Hello second!") - 40) <= 36
    assert greeting(up, "next-greeter") == "Hello second!"
    shell.fine("apply", "-f", f"{ROUTES / 'rollback.yaml'}", "--wait")
    assert {greeting(up, "greeter") for _ in range(100)} == {"Hello first!"}
    assert greeting(up, "next-greeter") == "Hello second!"


def test_a_gradual_rollout_goes_by_steps_to_the_new_revision(platform: tuple[Shell, Started]) -> None:
    shell, up = platform
    manifest = (ROUTES / "gradual.yaml").read_text().replace("30s", "4s")
    shell.fine("apply", "-f", "-", *IMAGE, "--wait", given=manifest)
    shell.fine("apply", "-f", "-", given=manifest.replace("first", "second"))
    seen: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while not seen or seen[-1] < 100:
        assert time.monotonic() < deadline, f"ended at {seen}"
        ingress = json.loads(shell.fine("get", "king", "gradual", "-o", "json"))
        splits = ingress["spec"]["rules"][0]["http"]["paths"][0]["splits"]
        latest = [each["percent"] for each in splits if each["serviceName"] == "gradual-00002"]
        seen += [percent for percent in latest if percent not in seen]
    assert seen == sorted(seen)
    assert len(seen) >= 2, "not all at once"
    described = shell.fine("describe", "ksvc", "gradual")
    assert re.search(r"100% +gradual-00002 +yes", described)
    assert {greeting(up, "gradual") for _ in range(20)} == {"Hello second!"}

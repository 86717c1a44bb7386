"""A Service whose image stands for a command rises from zero, is mended when it fails, and says what is wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from support.platform import PATIENCE, Function, deploy, platform, run, until
from support.programs import program
from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import Exit, ObjectKey, Replica, StartFailure
from upwell.runtime.cluster.kinds import REVISION
from upwell.runtime.roles.up import Platform

IMAGE = "registry.example.com/shop"
KNOWS_ITSELF = "def answer(request):\n    return 200, str(os.getpid())"
EATER = """
    held = []
    def answer(request):
        while request.path == "/eat":
            held.append(bytearray(b"x" * (8 << 20)))
        return 200, "well"
"""


class Ends:
    """A cluster observer that keeps how replicas ended."""

    def __init__(self) -> None:
        self.exits: list[Exit] = []

    def replica_changed(self, replica: Replica) -> None: ...

    def replica_exited(self, exit: Exit) -> None:
        self.exits.append(exit)

    def start_failed(self, failure: StartFailure) -> None: ...


async def apply(on: Platform, folder: Path, text: str, container: dict[str, Any] | None = None) -> ObjectKey:
    source = program(folder, text)
    manifest = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "shop"},
        "spec": {"template": {"spec": {"containers": [{"image": IMAGE, **(container or {})}]}}},
    }
    command = " ".join(source.command)
    images = {IMAGE: json.dumps({"command": command, "directory": str(folder)})}
    (applied,) = await on.apply([manifest], images=images)
    return applied.key


async def deployed(on: Platform, folder: Path, text: str, container: dict[str, Any] | None = None) -> Function:
    ready = await on.wait_ready(await apply(on, folder, text, container), PATIENCE)
    return Function(on, "shop", f"default/{ready['status']['latestReadyRevisionName']}")


def test_a_program_rises_from_zero_behind_the_gateway_and_falls_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with platform(tmp_path) as on:
            shop = await deployed(on, tmp_path / "p", KNOWS_ITSELF)
            assert on.cluster.replicas(shop.revision) == ()
            answers = await asyncio.gather(*(shop.ask() for _ in range(8)))
            assert {answer.status for answer in answers} == {200}
            await shop.scale(0)
            assert (await shop.ask()).status == 200

    run(main())


def test_the_container_s_fields_reach_the_program(tmp_path: Path) -> None:
    text = """
        import json
        def answer(request):
            names = ("COLOUR", "GREETING", "K_SERVICE", "K_REVISION", "K_CONFIGURATION")
            world = {name: os.environ[name] for name in names}
            return 200, json.dumps(world | {"arguments": sys.argv[1:], "directory": os.getcwd()})
    """
    container = {
        "args": ["--colour", "$(COLOUR)", "$(PORT)"],
        "env": [{"name": "COLOUR", "value": "green"}, {"name": "GREETING", "value": "so $(COLOUR)"}],
        "workingDir": "below",
        "readinessProbe": {"httpGet": {"path": "/ready"}},
    }

    async def main() -> None:
        (tmp_path / "p" / "below").mkdir(parents=True)
        async with platform(tmp_path) as on:
            shop = await deployed(on, tmp_path / "p", text, container)
            world = json.loads((await shop.ask()).text)
            assert (world["COLOUR"], world["GREETING"]) == ("green", "so green")
            assert (world["K_SERVICE"], world["K_CONFIGURATION"], world["K_REVISION"]) == (
                "shop",
                "shop",
                "shop-00001",
            )
            assert world["arguments"][:2] == ["--colour", "green"]
            assert world["arguments"][2].isdigit()
            assert Path(world["directory"]) == (tmp_path / "p" / "below").resolve()

    run(main())


def test_one_that_exits_is_told_in_the_service_s_condition_with_its_last_words(tmp_path: Path) -> None:
    async def main() -> None:
        async with platform(tmp_path, logs=tmp_path / "logs") as on:
            key = await apply(on, tmp_path / "p", "print('no licence found')\nsys.exit(3)")
            with pytest.raises(InvalidFunction) as raised:
                await on.wait_ready(key, PATIENCE)
            assert "exited with code 3" in str(raised.value)
            assert "no licence found" in str(raised.value)
            (revision,) = await on.objects.list(REVISION, "default")
            reasons = {c["type"]: c.get("reason") for c in revision["status"]["conditions"]}
            assert reasons["ContainerHealthy"] == "ExitCode3"

    run(main())


def test_a_replica_that_eats_all_memory_fails_its_caller_and_the_service_recovers(tmp_path: Path) -> None:
    async def main() -> None:
        async with platform(tmp_path) as on:
            ends = Ends()
            on.cluster.observe(ends)
            container = {"resources": {"limits": {"memory": "150Mi"}}}
            shop = await deployed(on, tmp_path / "p", EATER, container)
            answer = await shop.ask("/eat")
            assert (answer.status, answer.text) == (502, "the replica failed before it answered\n")
            await until(lambda: any("OOMKilled" in exit.reason for exit in ends.exits), "the reason")
            assert (await shop.ask()).text == "well"

    run(main())


def test_a_function_that_eats_all_memory_fails_its_caller_and_the_service_recovers(tmp_path: Path) -> None:
    text = """
held = []
def main(request):
    while request.url.path == "/eat":
        held.append(bytearray(b"x" * (8 << 20)))
    return "well"
"""

    async def main() -> None:
        async with platform(tmp_path) as on:
            ends = Ends()
            on.cluster.observe(ends)
            containers = [
                {"image": "upwell.dev/hello", "resources": {"limits": {"memory": "150Mi"}}},
            ]
            hello = await deploy(on, text, containers=containers)
            assert (await hello.ask("/eat")).status in (500, 502)
            await until(lambda: any("OOMKilled" in exit.reason for exit in ends.exits), "the reason")
            assert (await hello.ask()).text == "well"

    run(main())


def test_a_program_that_is_not_alive_any_more_is_replaced_with_the_reason(tmp_path: Path) -> None:
    text = """
        well = True
        def answer(request):
            global well
            well = well and request.path != "/fall-ill"
            return (200 if well or request.path != "/live" else 500), str(os.getpid())
    """
    container = {"livenessProbe": {"httpGet": {"path": "/live"}, "periodSeconds": 1, "failureThreshold": 1}}

    async def main() -> None:
        async with platform(tmp_path) as on:
            ends = Ends()
            on.cluster.observe(ends)
            shop = await deployed(on, tmp_path / "p", text, container)
            before = (await shop.ask("/fall-ill")).text
            await until(lambda: bool(ends.exits), "the end of the one that is ill")
            assert "its liveness probe failed" in ends.exits[0].reason
            assert (await shop.ask()).text != before

    run(main())


def test_other_requests_keep_their_time_when_one_is_stuck_and_then_the_replica_is_replaced(tmp_path: Path) -> None:
    text = """
import os, time
def main(request):
    if request.url.path == "/stuck":
        time.sleep(1000)
    if request.url.path == "/slow":
        time.sleep(1.5)
    return str(os.getpid())
"""

    async def main() -> None:
        async with platform(tmp_path) as on:
            ends = Ends()
            on.cluster.observe(ends)
            hello = await deploy(on, text, timeoutSeconds=2)
            before = (await hello.ask()).text
            stuck = asyncio.create_task(hello.ask("/stuck"))
            await asyncio.sleep(1.5)
            slow = asyncio.create_task(hello.ask("/slow"))
            assert (await stuck).status == 504
            answer = await slow
            assert (answer.status, answer.text) == (200, before)
            await until(lambda: bool(ends.exits), "the end of the one that is stuck")
            assert ends.exits[0].expected
            assert (await hello.ask()).text != before

    run(main())

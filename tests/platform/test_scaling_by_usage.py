"""What replicas use, as it is measured of their processes, decides how many there are."""

from __future__ import annotations

from pathlib import Path

from support.platform import PATIENCE, Function, platform, run, until
from upwell.functions.project import locate
from upwell.runtime.cli.functions import function_image, function_service
from upwell.runtime.roles.up import Platform

HOLDING = """
block = bytearray(b"x") * (48 << 20)

def hello(request):
    return "ok"
"""
HPA = {
    "autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev",
    "autoscaling.knative.dev/metric": "memory",
    "autoscaling.knative.dev/target": "20",
    "autoscaling.knative.dev/max-scale": "2",
}


async def deployed(on: Platform, source: str, annotations: dict[str, str]) -> Function:
    path = on.directory / "sources" / "hello.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    name = locate(str(path)).name
    manifest = function_service(name, {})
    manifest["spec"]["template"].setdefault("metadata", {})["annotations"] = annotations
    (applied,) = await on.apply([manifest], images={function_image(name): str(path)})
    ready = await on.wait_ready(applied.key, PATIENCE)
    return Function(on, name, f"default/{ready['status']['latestReadyRevisionName']}")


def test_replicas_that_hold_more_memory_than_their_target_become_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            hello = await deployed(on, HOLDING, HPA)
            assert (await hello.ask()).status == 200
            await until(lambda: hello.ready() == 2, "two replicas", 40.0)
            decision = on.autoscaler.engine.latest(hello.revision)
            assert decision is not None
            (memory,) = decision.signals
            assert memory.missing is None
            assert memory.value >= 48
            assert memory.want >= 2

    run(scenario())

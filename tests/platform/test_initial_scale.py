"""A revision begins with its initial scale once, whatever platform it began on."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from support.platform import deploy, platform, run
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.interface import ObjectChange, ObjectStore
from upwell.runtime.cluster.kinds import REVISION
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.control.conditions import is_true

READY_SECONDS = 20.0


async def initialized(objects: ObjectStore) -> None:
    """Until the only revision has had its initial scale."""
    async with asyncio.timeout(READY_SECONDS), contextlib.aclosing(objects.watch(REVISION)) as changes:
        async for change in changes:
            manifest = change.manifest if isinstance(change, ObjectChange) else None
            if is_true(manifest or {}, "ScaleTargetInitialized"):
                return


def test_the_initial_scale_is_not_given_again_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        objects = MemoryStore(SystemClock())
        started = []
        for _ in range(2):
            async with platform(tmp_path, objects=objects, initial_scale="1") as on:
                function = await deploy(on, "def main():\n    return 'hello'\n")
                on.autoscaler.tick()
                started.append(len(on.cluster.replicas(function.revision)))
                await initialized(objects)
        return started

    assert run(scenario()) == [1, 0]

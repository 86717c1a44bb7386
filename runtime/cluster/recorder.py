"""Tells the store afterwards what the data plane did at once.

Between a poke and a fork nothing is written; what was scaled, what is ready and whether the function loads is
noted here and written by one task, the latest state of each Deployment once. A note that meets a deleted
Deployment is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from upwell.functions.errors import Conflict, NotFound
from upwell.runtime.cluster.interface import ObjectKey, ObjectStore


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """What is to be seen of a Deployment. `available` is None until its function was loaded or could not be."""

    wanted: int
    replicas: int
    ready: int
    available: bool | None
    reason: str
    message: str

    def status(self) -> dict[str, Any]:
        """The object's status, without its observed generation."""
        counts = {"replicas": self.replicas, "readyReplicas": self.ready}
        if self.available is None:
            return counts
        available = "True" if self.available else "False"
        condition = {"type": "Available", "status": available, "reason": self.reason, "message": self.message}
        return {**counts, "conditions": [condition]}


class Recorder:
    """Writes the states of Deployments; holds at most one note each."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._noted: dict[ObjectKey, DeploymentState] = {}
        self._work = asyncio.Event()

    def note(self, key: ObjectKey, state: DeploymentState) -> None:
        """Have this written soon, in the place of what was noted before."""
        self._noted[key] = state
        self._work.set()

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._noted:
                key = next(iter(self._noted))
                with contextlib.suppress(NotFound, Conflict):
                    await self._write(key, self._noted.pop(key))

    async def _write(self, key: ObjectKey, state: DeploymentState) -> None:
        manifest = await self._objects.get(key)
        if manifest is None:
            return
        manifest["spec"]["replicas"] = state.wanted
        manifest = await self._objects.update(manifest)
        generation = {"observedGeneration": manifest["metadata"]["generation"]}
        await self._objects.update_status(manifest | {"status": generation | state.status()})

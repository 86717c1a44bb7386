"""Tells the store afterwards what the data plane did at once.

Between a poke and a fork nothing is written; what was scaled, what is ready and whether the function loads is
noted here and written through a work queue, the latest state of each Deployment once. A note is kept until it is
written: a write that fails, or that meets another writer, is tried again. Only that of a deleted Deployment goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upwell.runtime.cluster.interface import Manifest, ObjectKey, ObjectStore
from upwell.runtime.workqueue import Controller


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
        available = str(self.available)
        condition = {"type": "Available", "status": available, "reason": self.reason, "message": self.message}
        return {**counts, "conditions": [condition]}


def was_available(manifest: Manifest) -> bool:
    """Whether a Deployment's function could be loaded when its state was last written."""
    conditions = manifest.get("status", {}).get("conditions", ())
    return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)


def shows(manifest: Manifest, state: DeploymentState) -> bool:
    """Whether a Deployment is written as `state` says."""
    status = manifest.get("status", {})
    return bool(
        manifest["spec"].get("replicas") == state.wanted
        and {name: value for name, value in status.items() if name != "observedGeneration"} == state.status()
    )


class Recorder:
    """Writes the states of Deployments; holds at most one note each."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._noted: dict[ObjectKey, DeploymentState] = {}
        self._controller: Controller[ObjectKey] = Controller("recorder", self._write)

    def __repr__(self) -> str:
        return f"<Recorder {len(self._noted)} notes to write>"

    def note(self, key: ObjectKey, state: DeploymentState) -> None:
        """Have this written soon, in the place of what was noted before."""
        self._noted[key] = state
        self._controller.queue.add(key)

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        await self._controller.run()

    async def _write(self, key: ObjectKey) -> None:
        state = self._noted.get(key)
        if state is None:
            return
        manifest = await self._objects.get(key)
        if manifest is not None:
            manifest["spec"]["replicas"] = state.wanted
            manifest = await self._objects.update(manifest)
            generation = {"observedGeneration": manifest["metadata"]["generation"]}
            await self._objects.update_status(manifest | {"status": generation | state.status()})
        if self._noted.get(key) is state:
            del self._noted[key]

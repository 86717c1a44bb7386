"""Service → Revision → Deployment and Ingress: one reconciler, level-triggered.

What to write is decided by `plan`; `ServingController` reads, writes and comes again, whenever something that a
service owns has changed, and not when it was only told what it wrote itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from upwell.functions.errors import UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import DEPLOYMENT, INGRESS, REVISION, SERVICE
from upwell.runtime.cluster.labels import SERVICE_LABEL
from upwell.runtime.control.planning import (
    Observed,
    ServingSettings,
    Verb,
    Write,
    current_revision,
    next_revision,
    plan,
    repaired_revision,
    revision_generation,
)
from upwell.runtime.control.resources import is_controlled_by
from upwell.runtime.workqueue import Controller

TAKEN_NAME_SECONDS: Final = 30.0
"""After which a name that another object has is looked at again: nothing tells when it becomes free."""

HEED_ATTEMPTS: Final = 3
"""The only other writers are this controller's own workers, who do the same."""


def _declared(metadata: Mapping[str, Any]) -> int:
    """Differs, as good as surely, when anything but the status of an object does."""
    texts = (metadata.get(name) or {} for name in ("labels", "annotations"))
    pairs = tuple(tuple(sorted(each.items())) for each in texts)
    return hash((metadata["uid"], metadata.get("generation"), pairs))


class ServingController:
    """Keeps every Service reconciled. Follows Services, Revisions, Deployments and Ingresses."""

    def __init__(self, objects: ObjectStore, clock: Clock, settings: ServingSettings) -> None:
        self.settings = settings
        self._objects = objects
        self._clock = clock
        self._services: dict[ObjectKey, ObjectKey] = {}
        self._declared: dict[ObjectKey, int] = {}
        self._controller: Controller[ObjectKey] = Controller("serving", self.reconcile)

    async def watch(self) -> None:
        """Turn every change into the key of the service that it concerns, until cancelled."""
        watched = self._objects.watch(SERVICE, REVISION, DEPLOYMENT, INGRESS)
        async with contextlib.aclosing(watched) as changes:
            async for change in changes:
                service = self._service_of(change) if isinstance(change, ObjectChange) else None
                if isinstance(change, ObjectChange) and service is not None and self._is_news(change):
                    self._controller.queue.add(service)

    def _is_news(self, change: ObjectChange) -> bool:
        """Whether more changed than a status that this controller wrote itself."""
        if change.key.kind not in (SERVICE, REVISION):
            return True
        if change.manifest is None:
            self._declared.pop(change.key, None)
            return True
        declared = _declared(change.manifest["metadata"])
        before = self._declared.get(change.key)
        self._declared[change.key] = declared
        return declared != before

    def _service_of(self, change: ObjectChange) -> ObjectKey | None:
        if change.key.kind == SERVICE:
            return change.key
        if change.manifest is None:
            return self._services.pop(change.key, None)
        name = change.manifest["metadata"].get("labels", {}).get(SERVICE_LABEL)
        if name is None:
            return None
        return self._services.setdefault(change.key, ObjectKey(SERVICE, change.key.namespace, name))

    async def configure(self, settings: ServingSettings) -> None:
        """Use these settings from now on, for every service."""
        self.settings = settings
        for service in await self._objects.list(SERVICE):
            self._controller.queue.add(ObjectKey.of(service))

    async def work(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def heed(self, key: ObjectKey) -> None:
        """Reconcile a service whose labels have changed before anybody waits for it: where it answers may follow
        them, and what is said of its generation, which stays, would be taken for news."""
        for _ in range(HEED_ATTEMPTS):
            with contextlib.suppress(UpwellError):  # most often another writer was quicker; the queue tries on
                await self.reconcile(key)
                return

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Bring one service nearer to what it declares. Raises Conflict or NotFound when what it read is stale."""
        observed = await self._observe(key)
        if observed is None:
            return None
        for write in plan(observed, self.settings, self._clock.now()):
            await self._write(write)
        return None if observed.namesake is None else TAKEN_NAME_SECONDS

    async def _observe(self, key: ObjectKey) -> Observed | None:
        service = await self._objects.get(key)
        if service is None:
            return None
        labels = {SERVICE_LABEL: key.name}
        labelled = await self._objects.list(REVISION, key.namespace, labels=labels)
        revisions = sorted((r for r in labelled if is_controlled_by(r, service)), key=revision_generation)
        namesake = None
        if current_revision(service, revisions) is None and repaired_revision(service, revisions) is None:
            namesake = await self._objects.get(ObjectKey.of(next_revision(service, revisions)))
        deployments = await self._objects.list(DEPLOYMENT, key.namespace, labels=labels)
        ingress = await self._objects.get(ObjectKey(INGRESS, key.namespace, key.name))
        return Observed(service, revisions, deployments, ingress, namesake)

    async def _write(self, write: Write) -> None:
        if write.verb is Verb.CREATE:
            await self._objects.create(write.manifest)
        elif write.verb is Verb.UPDATE:
            await self._objects.update(write.manifest)
        else:
            await self._objects.update_status(write.manifest)

"""Service → Configuration → Revision → Deployment, and Route → Ingress: one reconciler, level-triggered.

What to write is decided by `plan`, for a family of objects at a time; `ServingController` reads, writes and comes
again, whenever something has changed that the family owns or that its Route refers to, and not when it was only
told what it wrote itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from upwell.functions.errors import UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import CONFIGURATION, DEPLOYMENT, INGRESS, REVISION, ROUTE, SERVICE
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL
from upwell.runtime.control.configuration import (
    current_revision,
    next_revision_name,
    repaired_revision,
    revision_generation,
)
from upwell.runtime.control.planning import Observed, ServingSettings, plan
from upwell.runtime.control.references import FAMILY_KINDS, References, family_of
from upwell.runtime.control.resources import is_controlled_by
from upwell.runtime.control.routing_state import noted
from upwell.runtime.control.traffic import targets_of
from upwell.runtime.control.writes import Verb, Write
from upwell.runtime.workqueue import Controller

HEED_ATTEMPTS: Final = 3
"""The only other writers are this controller's own workers, who do the same."""

LOOKS: Final = 8
"""At one family in a row: more than it takes from a new Service to its Deployment and all statuses."""

_TOLD_BY_ITSELF: Final = (SERVICE, CONFIGURATION, ROUTE, REVISION)


def _declared(metadata: Mapping[str, Any]) -> int:
    """Differs, as good as surely, when anything but the status of an object does."""
    texts = (metadata.get(name) or {} for name in ("labels", "annotations"))
    pairs = tuple(tuple(sorted(each.items())) for each in texts)
    return hash((metadata["uid"], metadata.get("generation"), pairs))


class ServingController:
    """Keeps every Service, Configuration and Route reconciled, with the Revisions, Deployments and Ingresses."""

    def __init__(self, objects: ObjectStore, clock: Clock, settings: ServingSettings) -> None:
        self.settings = settings
        self._objects = objects
        self._clock = clock
        self._references = References()
        self._declared: dict[ObjectKey, int] = {}
        self._controller: Controller[ObjectKey] = Controller("serving", self.reconcile)

    async def watch(self) -> None:
        """Turn every change into the keys of the families that it concerns, until cancelled."""
        watched = self._objects.watch(*FAMILY_KINDS, REVISION, DEPLOYMENT, INGRESS)
        async with contextlib.aclosing(watched) as changes:
            async for change in changes:
                if isinstance(change, ObjectChange):
                    self._changed(change)
                else:  # a route that went while nobody watched has left its notes
                    self._add(self._references.noting())

    def _changed(self, change: ObjectChange) -> None:
        family = self._references.changed(change.key, change.manifest)
        if self._is_news(change):
            self._add([family] if family is not None else [])
            if change.key.kind in (CONFIGURATION, REVISION):
                self._add(self._references.referring(change.key))

    def _add(self, families: Iterable[ObjectKey]) -> None:
        for family in families:
            self._controller.queue.add(family)

    def _is_news(self, change: ObjectChange) -> bool:
        """Whether more changed than a status that this controller wrote itself."""
        if change.key.kind not in _TOLD_BY_ITSELF:
            return True
        if change.manifest is None:
            self._declared.pop(change.key, None)
            return True
        declared = _declared(change.manifest["metadata"])
        before = self._declared.get(change.key)
        self._declared[change.key] = declared
        return declared != before

    async def configure(self, settings: ServingSettings) -> None:
        """Use these settings from now on, for everything."""
        self.settings = settings
        for kind in FAMILY_KINDS:
            manifests = await self._objects.list(kind)
            self._add({family_of(manifest, ObjectKey.of(manifest)): None for manifest in manifests})

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
        """Bring one family nearer to what it declares. Raises Conflict or NotFound when what it read is stale."""
        for _ in range(LOOKS):
            observed = await self._observe(key)
            if observed is None:
                await self._forget(key)
                return None
            planned = plan(observed, self.settings, self._clock.now())
            await self._write_all(key, planned.writes)
            if planned.is_settled:
                return planned.again_after
        return 0.0

    async def _write_all(self, family: ObjectKey, writes: Sequence[Write]) -> None:
        """All at once, so that a journal commits them together; the first that failed is raised."""
        results = await asyncio.gather(*(self._write(write) for write in writes), return_exceptions=True)
        for write in writes:
            key = ObjectKey.of(write.manifest)
            self._add(each for each in self._references.referring(key) if each != family)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _write(self, write: Write) -> None:
        if write.verb is Verb.CREATE:
            await self._objects.create(write.manifest)
        elif write.verb is Verb.UPDATE:
            await self._objects.update(write.manifest)
        elif write.verb is Verb.STATUS:
            await self._objects.update_status(write.manifest)
        else:
            await self._objects.delete(ObjectKey.of(write.manifest))

    # What is there

    async def _observe(self, key: ObjectKey) -> Observed | None:
        """The family of `key`; None when it is gone, or belongs to another by now."""
        head = await self._objects.get(key)
        if head is None or family_of(head, key) != key:
            return None
        if key.kind == ROUTE:
            return await self._with_route(Observed(route=head))
        if key.kind == CONFIGURATION:
            return await self._with_revisions(Observed(configuration=head))
        configuration, route = [
            await self._objects.get(ObjectKey(kind, key.namespace, key.name)) for kind in (CONFIGURATION, ROUTE)
        ]
        observed = Observed(head, configuration, route)
        if configuration is not None and is_controlled_by(configuration, head):
            observed = await self._with_revisions(observed)
        return await self._with_route(observed)

    async def _with_revisions(self, observed: Observed) -> Observed:
        configuration, service = observed.configuration, observed.service
        assert configuration is not None, "the caller's"
        namespace, name = configuration["metadata"]["namespace"], configuration["metadata"]["name"]
        labels = {CONFIGURATION_LABEL: name}
        labelled = await self._objects.list(REVISION, namespace, labels=labels)
        owners = [owner for owner in (configuration, service) if owner is not None]
        own = [revision for revision in labelled if any(is_controlled_by(revision, owner) for owner in owners)]
        revisions = sorted(own, key=revision_generation)
        namesake = None
        if (
            current_revision(configuration, revisions) is None
            and repaired_revision(configuration, revisions) is None
        ):
            wanted = next_revision_name(configuration, revisions)
            namesake = await self._objects.get(ObjectKey(REVISION, namespace, wanted))
        deployments = await self._objects.list(DEPLOYMENT, namespace, labels=labels)
        return replace(observed, revisions=revisions, deployments=deployments, namesake=namesake)

    async def _with_route(self, observed: Observed) -> Observed:
        route = observed.route
        if route is None:
            return observed
        key = ObjectKey.of(route)
        ingress = await self._objects.get(ObjectKey(INGRESS, key.namespace, key.name))
        own = [each for each in (observed.configuration, *observed.revisions) if each is not None]
        known = {ObjectKey.of(each) for each in own}
        told = (route.get("status") or {}).get("traffic") or ()
        named = {ObjectKey(REVISION, key.namespace, each["revisionName"]) for each in told}
        wanted = {*targets_of(route), *named, *self._references.noted(key)}
        others = await self._get_all(wanted - known)
        made = {name for each in others.values() for name in _named_by(each)}
        others |= await self._get_all(made - known - others.keys())
        return replace(observed, ingress=ingress, others=others)

    async def _get_all(self, keys: Iterable[ObjectKey]) -> dict[ObjectKey, Manifest]:
        found = [(key, await self._objects.get(key)) for key in sorted(keys)]
        return {key: manifest for key, manifest in found if manifest is not None}

    async def _forget(self, key: ObjectKey) -> None:
        """Take the notes of a Route that is gone off what it referred to."""
        route = ObjectKey(ROUTE, key.namespace, key.name)
        if key.kind == CONFIGURATION or await self._objects.get(route) is not None:
            return
        for manifest in (await self._get_all(self._references.noted(route))).values():
            changed = noted(manifest, route.name, refers=False, now=self._clock.now())
            if changed is not None:
                await self._objects.update(changed)


def _named_by(manifest: Manifest) -> list[ObjectKey]:
    """The latest revisions of a Configuration; the Configuration of a revision."""
    key = ObjectKey.of(manifest)
    if key.kind == CONFIGURATION:
        status = manifest.get("status") or {}
        names = {status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")} - {None}
        return [ObjectKey(REVISION, key.namespace, str(name)) for name in names]
    name = (manifest["metadata"].get("labels") or {}).get(CONFIGURATION_LABEL)
    return [ObjectKey(CONFIGURATION, key.namespace, name)] if name else []

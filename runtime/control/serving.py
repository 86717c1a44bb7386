"""Service → Revision → Deployment and Ingress: one reconciler, level-triggered.

`plan` looks at a service and at what belongs to it and says what to write, and why; `ServingController` reads,
writes and comes again. A change of the template makes the next revision, named as Knative names them
(`hello-00001`); traffic moves to it once it is ready, and the old one keeps it until then. The service is Ready
when the gateway answers with the revision that its present generation declares.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from upwell.functions.api.names import revision_name
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import DEPLOYMENT, INGRESS, REVISION, SERVICE
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL, GENERATION_LABEL, SERVICE_LABEL
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION
from upwell.runtime.control.conditions import (
    READY,
    StatusCondition,
    find,
    holds_for_generation,
    is_true,
    merge,
    summary,
)
from upwell.runtime.control.domains import Domains
from upwell.runtime.control.ingress import external_hosts, local_hosts, routed_revisions, service_ingress
from upwell.runtime.control.resources import deployment, deployment_name, is_controlled_by, owner_reference
from upwell.runtime.control.revision import revision_status
from upwell.runtime.workqueue import Controller

TAKEN_NAME_SECONDS: Final = 30.0
"""After which a name that another object has is looked at again: nothing tells when it becomes free."""


class Verb(enum.Enum):
    """What to do with an object."""

    CREATE = "create"
    UPDATE = "update"
    STATUS = "status"


class Write(NamedTuple):
    """One write, and why."""

    verb: Verb
    manifest: Manifest
    reason: str


@dataclass(frozen=True, slots=True)
class Observed:
    """A service and what belongs to it, as they are stored."""

    service: Manifest
    revisions: Sequence[Manifest]
    """Its own, in the order of their making."""
    deployments: Sequence[Manifest]
    ingress: Manifest | None
    namesake: Manifest | None = None
    """What has the name that the next revision should have; it may be anybody's."""


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """What a service's objects depend on besides the service."""

    domains: Domains
    port: int
    """Of the gateway, for URLs."""
    pulls_images: bool = False
    """Whether replicas are made of images; else each revision needs a source."""


def plan(observed: Observed, settings: ServingSettings, now: float) -> list[Write]:
    """What to write so that the cluster comes nearer to what the service declares. Empty when it is there."""
    return list(_plan(observed, settings, now))


def _plan(observed: Observed, settings: ServingSettings, now: float) -> Iterator[Write]:
    service = observed.service
    repaired = repaired_revision(service, observed.revisions)
    if repaired is not None:
        yield Write(Verb.UPDATE, repaired, "its image is mapped now")
        return
    revisions = yield from _plan_revisions(observed, settings, now)
    latest = current_revision(service, revisions)
    if latest is None and observed.namesake is None:
        latest = next_revision(service, revisions)
        yield Write(Verb.CREATE, latest, "the template changed" if revisions else "the service is new")
    serving = _serving_revision(observed, revisions, latest)
    domains = settings.domains.of(service["metadata"].get("labels") or {})
    wanted = None if serving is None else service_ingress(service, serving["metadata"]["name"], domains)
    if wanted is not None:
        yield from _plan_ingress(observed, wanted)
    conditions = [_configurations_ready(observed, latest), _routes_ready(observed, wanted)]
    status = {
        "observedGeneration": service["metadata"]["generation"],
        "conditions": merge(service, [*conditions, summary(conditions)], now),
        **_addresses(service, domains, settings.port),
        **_named_revisions(revisions, latest, serving),
    }
    if status != service.get("status"):
        yield Write(Verb.STATUS, service | {"status": status}, "what it owns changed")


def _plan_revisions(
    observed: Observed, settings: ServingSettings, now: float
) -> Generator[Write, None, list[Manifest]]:
    """What to write for the revisions; returns them with the status that they have then."""
    service = observed.service["metadata"]["name"]
    running = {manifest["metadata"]["name"]: manifest for manifest in observed.deployments}
    revisions = []
    for revision in observed.revisions:
        found = running.get(deployment_name(revision["metadata"]["name"]))
        has_source = settings.pulls_images or SOURCE_ANNOTATION in revision["metadata"].get("annotations", {})
        if found is None and has_source:
            yield Write(Verb.CREATE, deployment(revision, service), "the revision has none")
        current = revision | {"status": revision_status(revision, found, now, has_source=has_source)}
        if current["status"] != revision.get("status"):
            yield Write(Verb.STATUS, current, "its deployment changed")
        revisions.append(current)
    return revisions


def _plan_ingress(observed: Observed, wanted: Manifest) -> Iterator[Write]:
    found = observed.ingress
    if found is None:
        yield Write(Verb.CREATE, wanted, "the first revision is ready")
    elif found["spec"] != wanted["spec"] and is_controlled_by(found, observed.service):
        yield Write(Verb.UPDATE, found | {"spec": wanted["spec"]}, "where it answers or what answers has changed")


def current_revision(service: Manifest, revisions: Sequence[Manifest]) -> Manifest | None:
    """The revision of `revisions`, all the service's own, that its template declares; None if it is to be made.

    A given name means the revision of that name, none means the newest; if it was made from the same template.
    """
    candidate = _candidate(service, revisions)
    return candidate if candidate is not None and _is_made_from(service, candidate) else None


def repaired_revision(service: Manifest, revisions: Sequence[Manifest]) -> Manifest | None:
    """The revision that the template declares but for the source that it lacked, with that source; else None.

    A revision without one has never run, so that it may still change.
    """
    candidate = _candidate(service, revisions)
    if candidate is None or SOURCE_ANNOTATION in candidate["metadata"].get("annotations", {}):
        return None
    source = _annotations(service).get(SOURCE_ANNOTATION)
    if source is None:
        return None
    annotations = {**candidate["metadata"].get("annotations", {}), SOURCE_ANNOTATION: source}
    repaired = candidate | {"metadata": candidate["metadata"] | {"annotations": annotations}}
    return repaired if _is_made_from(service, repaired) else None


def _candidate(service: Manifest, revisions: Sequence[Manifest]) -> Manifest | None:
    given = service["spec"]["template"].get("metadata", {}).get("name")
    candidates = [r for r in revisions if given in (None, r["metadata"]["name"])]
    return candidates[-1] if candidates else None


def next_revision(service: Manifest, revisions: Sequence[Manifest]) -> Manifest:
    """The revision that the service's template asks for, under its given name or numbered as Knative does."""
    metadata = service["metadata"]
    template = service["spec"]["template"]
    given = template.get("metadata", {})
    number = _generation(revisions[-1]) + 1 if revisions else 1
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": given.get("name") or revision_name(metadata["name"], number),
            "namespace": metadata["namespace"],
            "labels": {
                **given.get("labels", {}),
                SERVICE_LABEL: metadata["name"],
                CONFIGURATION_LABEL: metadata["name"],
                GENERATION_LABEL: str(number),
            },
            "annotations": dict(given.get("annotations", {})),
            "ownerReferences": [owner_reference(service)],
        },
        "spec": template["spec"],
    }


def _generation(revision: Manifest) -> int:
    return int(revision["metadata"]["labels"][GENERATION_LABEL])


def _is_made_from(service: Manifest, revision: Manifest) -> bool:
    same = revision["metadata"].get("annotations", {}) == _annotations(service)
    return same and bool(revision["spec"] == service["spec"]["template"]["spec"])


def _annotations(service: Manifest) -> dict[str, str]:
    annotations: dict[str, str] = service["spec"]["template"].get("metadata", {}).get("annotations", {})
    return annotations


def _serving_revision(
    observed: Observed, revisions: Sequence[Manifest], latest: Manifest | None
) -> Manifest | None:
    """The revision that should have the traffic: the latest once it is ready, until then the one that has it."""
    ready = {r["metadata"]["name"]: r for r in revisions if is_true(r, READY)}
    if not ready:
        return None
    routed = routed_revisions(observed.ingress) if observed.ingress is not None else []
    names = [*([latest["metadata"]["name"]] if latest is not None else []), *routed, [*ready][-1]]
    return next(ready[name] for name in names if name in ready)


def _configurations_ready(observed: Observed, latest: Manifest | None) -> StatusCondition:
    if latest is None:
        name = next_revision(observed.service, observed.revisions)["metadata"]["name"]
        message = f"the name {name!r} belongs to a revision that was not made from this template"
        return StatusCondition("ConfigurationsReady", "False", "RevisionNameTaken", message)
    health = find(latest, READY)
    return StatusCondition("ConfigurationsReady", *(health[1:] if health else ("Unknown", "Deploying", "")))


def _routes_ready(observed: Observed, wanted: Manifest | None) -> StatusCondition:
    ingress = observed.ingress
    if wanted is None:
        return StatusCondition("RoutesReady", "Unknown", "RevisionMissing", "no revision is ready yet")
    if ingress is not None and not is_controlled_by(ingress, observed.service):
        message = f"an Ingress named {ingress['metadata']['name']!r} belongs to something else"
        return StatusCondition("RoutesReady", "False", "NotOwned", message)
    if ingress is None or ingress["spec"] != wanted["spec"] or not holds_for_generation(ingress, READY):
        return StatusCondition(
            "RoutesReady", "Unknown", "IngressNotConfigured", "the gateway has not taken it yet"
        )
    return StatusCondition("RoutesReady", "True")


def _addresses(service: Manifest, domains: Sequence[str], port: int) -> dict[str, Any]:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    inside = f"http://{local_hosts(name, namespace)[-1]}"
    outside = external_hosts(name, namespace, domains)
    return {"url": service_url(outside[0], port) if outside else inside, "address": {"url": inside}}


def _named_revisions(
    revisions: Sequence[Manifest], latest: Manifest | None, serving: Manifest | None
) -> dict[str, Any]:
    created = latest if latest is not None else revisions[-1] if revisions else None
    named: dict[str, Any] = {}
    if created is not None:
        named["latestCreatedRevisionName"] = created["metadata"]["name"]
    if serving is not None:
        name = serving["metadata"]["name"]
        named["latestReadyRevisionName"] = name
        named["traffic"] = [{"latestRevision": True, "percent": 100, "revisionName": name}]
    return named


def service_url(host: str, port: int) -> str:
    """The address a person types; port 80 is left out."""
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"


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
        revisions = sorted((r for r in labelled if is_controlled_by(r, service)), key=_generation)
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

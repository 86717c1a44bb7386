"""Service → Revision → Deployment and Ingress: one reconciler, level-triggered.

`plan` looks at a service and at what belongs to it and says what to write, and why; `ServingController` reads,
writes and comes again. A change of the template makes the next revision, named as Knative names them
(`hello-00001`); traffic moves to it once it is ready, and the old one keeps it until then.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from upwell.functions.api.names import child_name
from upwell.functions.errors import Conflict, NotFound
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.deployments import deployment, owner_reference
from upwell.runtime.cluster.interface import Manifest, ObjectKey, ObjectStore
from upwell.runtime.control.conditions import READY, Condition, find, is_true, merge, summary
from upwell.runtime.control.ingress import external_hosts, local_hosts, service_ingress
from upwell.runtime.control.workqueue import Controller

SERVICE_LABEL: Final = "serving.knative.dev/service"
CONFIGURATION_LABEL: Final = "serving.knative.dev/configuration"
GENERATION_LABEL: Final = "serving.knative.dev/configurationGeneration"


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
    deployments: Sequence[Manifest]
    ingress: Manifest | None


def plan(observed: Observed, domains: Sequence[str], port: int, now: float) -> list[Write]:
    """What to write so that the cluster comes nearer to what the service declares. Empty when it is there."""
    return list(_plan(observed, domains, port, now))


def _plan(observed: Observed, domains: Sequence[str], port: int, now: float) -> Iterator[Write]:
    service = observed.service
    revisions = sorted(observed.revisions, key=_generation)
    latest = revisions[-1] if revisions else None
    if (
        latest is None
        or latest["spec"] != service["spec"]["template"]["spec"]
        or _annotations_differ(service, latest)
    ):
        number = _generation(latest) + 1 if latest is not None else 1
        latest = new_revision(service, number)
        yield Write(Verb.CREATE, latest, "the template changed" if revisions else "the service is new")
    else:
        yield from _plan_revisions(observed, revisions, now)
    ready = [revision for revision in revisions if is_true(revision, READY)]
    if ready:
        wanted = service_ingress(service, ready[-1]["metadata"]["name"], domains)
        if observed.ingress is None:
            yield Write(Verb.CREATE, wanted, "the first revision is ready")
        elif observed.ingress["spec"] != wanted["spec"]:
            yield Write(Verb.UPDATE, wanted, "a newer revision is ready")
    status = _service_status(observed, latest, ready[-1] if ready else None, domains, port, now)
    if status != service.get("status"):
        yield Write(Verb.STATUS, service | {"status": status}, "what it owns changed")


def _plan_revisions(observed: Observed, revisions: Sequence[Manifest], now: float) -> Iterator[Write]:
    service = observed.service["metadata"]["name"]
    running = {manifest["metadata"]["name"]: manifest for manifest in observed.deployments}
    for revision in revisions:
        found = running.get(f"{revision['metadata']['name']}-deployment")
        if found is None:
            yield Write(Verb.CREATE, deployment(revision, service), "the revision has none")
        status = _revision_status(revision, found, now)
        if status != revision.get("status"):
            yield Write(Verb.STATUS, revision | {"status": status}, "its deployment changed")


def new_revision(service: Manifest, number: int) -> Manifest:
    """The revision of `service` with this number (Knative's ChildName over "-%05d")."""
    metadata = service["metadata"]
    template = service["spec"]["template"]
    given = template.get("metadata", {})
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": given.get("name") or child_name(metadata["name"], f"-{number:05d}"),
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


def _annotations_differ(service: Manifest, revision: Manifest) -> bool:
    declared = service["spec"]["template"].get("metadata", {}).get("annotations", {})
    return bool(declared != revision["metadata"].get("annotations", {}))


def _revision_status(revision: Manifest, found: Manifest | None, now: float) -> dict[str, Any]:
    available = find(found, "Available") if found is not None else None
    if available is None:
        parts = [
            Condition("ResourcesAvailable", "Unknown", "Deploying"),
            Condition("ContainerHealthy", "Unknown", "Deploying"),
        ]
    elif available.status == "True":
        parts = [Condition("ResourcesAvailable", "True"), Condition("ContainerHealthy", "True")]
    else:
        parts = [
            Condition("ResourcesAvailable", "True"),
            Condition("ContainerHealthy", "False", available.reason, available.message),
        ]
    return {
        "observedGeneration": revision["metadata"].get("generation", 1),
        "conditions": merge(revision, [*parts, summary(parts)], now),
    }


def _service_status(
    observed: Observed, latest: Manifest, ready: Manifest | None, domains: Sequence[str], port: int, now: float
) -> dict[str, Any]:
    service = observed.service
    metadata = service["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    health = find(latest, READY)
    configurations = Condition("ConfigurationsReady", *(health[1:] if health else ("Unknown", "Deploying", "")))
    routes = (
        Condition("RoutesReady", "True")
        if observed.ingress is not None and ready is not None
        else Condition("RoutesReady", "Unknown", "RevisionMissing", "no revision is ready yet")
    )
    status: dict[str, Any] = {
        "observedGeneration": metadata["generation"],
        "conditions": merge(service, [configurations, routes, summary([configurations, routes])], now),
        "latestCreatedRevisionName": latest["metadata"]["name"],
        "url": service_url(external_hosts(name, namespace, domains)[0], port),
        "address": {"url": f"http://{local_hosts(name, namespace)[-1]}"},
    }
    if ready is not None:
        status["latestReadyRevisionName"] = ready["metadata"]["name"]
        status["traffic"] = [{"latestRevision": True, "percent": 100, "revisionName": ready["metadata"]["name"]}]
    return status


def service_url(host: str, port: int) -> str:
    """The address a person types; port 80 is left out."""
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"


class ServingController:
    """Keeps every Service reconciled. Follows Services, Revisions, Deployments and Ingresses."""

    def __init__(self, objects: ObjectStore, clock: Clock, *, domains: Sequence[str], port: int) -> None:
        self._objects = objects
        self._clock = clock
        self._domains = domains
        self._port = port
        self._controller: Controller[ObjectKey] = Controller("serving", self.reconcile)

    async def watch(self) -> None:
        """Turn every change into the key of the service that it concerns, until cancelled."""
        async with contextlib.aclosing(
            self._objects.watch("Service", "Revision", "Deployment", "Ingress")
        ) as changes:
            async for change in changes:
                if change.key.kind == "Service":
                    self._controller.queue.add(change.key)
                elif change.manifest is not None:
                    service = change.manifest["metadata"].get("labels", {}).get(SERVICE_LABEL)
                    if service is not None:
                        self._controller.queue.add(ObjectKey("Service", change.key.namespace, service))

    async def work(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Bring one service nearer to what it declares."""
        observed = await self._observe(key)
        if observed is None:
            return None
        for write in plan(observed, self._domains, self._port, self._clock.now()):
            # Stale by now: its change is on its way to us, and the next look starts from it.
            with contextlib.suppress(Conflict, NotFound):
                await self._write(write)
        return None

    async def _observe(self, key: ObjectKey) -> Observed | None:
        service = await self._objects.get(key)
        if service is None:
            return None

        async def owned(kind: str) -> list[Manifest]:
            found = await self._objects.list(kind, key.namespace)
            return [m for m in found if m["metadata"].get("labels", {}).get(SERVICE_LABEL) == key.name]

        ingress = await self._objects.get(ObjectKey("Ingress", key.namespace, key.name))
        return Observed(service, await owned("Revision"), await owned("Deployment"), ingress)

    async def _write(self, write: Write) -> None:
        if write.verb is Verb.CREATE:
            await self._objects.create(write.manifest)
        elif write.verb is Verb.UPDATE:
            await self._objects.update(write.manifest)
        else:
            await self._objects.update_status(write.manifest)

"""What to write so that a service's objects come nearer to what it declares, and why: pure.

A change of the template makes the next revision, named as Knative names them (`hello-00001`); traffic moves to it
once it is ready, and the old one keeps it until then. The service is Ready when the gateway answers with the
revision that its present generation declares.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from upwell.autoscaler.spec import AutoscalerConfig
from upwell.functions.api.names import revision_name
from upwell.runtime.cluster.interface import Manifest
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
    autoscaler: AutoscalerConfig = field(default_factory=AutoscalerConfig)
    """Says with how many replicas a revision begins."""
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
        status = revision_status(revision, found, settings.autoscaler, now, has_source=has_source)
        current = revision | {"status": status}
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
    number = revision_generation(revisions[-1]) + 1 if revisions else 1
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


def revision_generation(revision: Manifest) -> int:
    """Which of its service's revisions it is, from 1."""
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

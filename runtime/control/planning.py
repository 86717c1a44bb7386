"""What to write so that the objects of one family come nearer to what they declare, and why: pure.

A family is a Service with the Configuration, the Route and the revisions that it stands for, or a Configuration or
a Route that stands by itself. A plan has first what makes and changes objects; only when nothing of that is left
has it what they say of themselves, all of it at once, so that a status is written for states and not for steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from upwell.autoscaler.spec import AutoscalerConfig
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import CONFIGURATION, REVISION
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL, SERVICE_LABEL
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION
from upwell.runtime.control.conditions import READY, find
from upwell.runtime.control.configuration import (
    adopted_revision,
    configuration_status,
    current_revision,
    next_revision,
    next_revision_name,
    repaired_revision,
)
from upwell.runtime.control.gc import RetentionSettings, collect
from upwell.runtime.control.kingress import IngressSettings
from upwell.runtime.control.resources import deployment, deployment_name, is_controlled_by
from upwell.runtime.control.revision import revision_status
from upwell.runtime.control.route import RouteSettings, plan_route
from upwell.runtime.control.routing_state import noted
from upwell.runtime.control.service import child_writes, service_status
from upwell.runtime.control.traffic import Known, referred_configurations, referred_revisions
from upwell.runtime.control.writes import Verb, Write

TAKEN_NAME_SECONDS: Final = 30.0
"""After which a name that another object has is looked at again: nothing tells when it becomes free."""


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """What a family depends on besides its own objects."""

    ingress: IngressSettings
    port: int
    """Of the gateway, for URLs."""
    autoscaler: AutoscalerConfig = field(default_factory=AutoscalerConfig)
    """Says with how many replicas a revision begins."""
    pulls_images: bool = False
    """Whether replicas are made of images; else each revision needs a source."""
    retention: RetentionSettings = field(default_factory=RetentionSettings)


@dataclass(frozen=True, slots=True)
class Observed:
    """A family as it is stored."""

    service: Manifest | None = None
    configuration: Manifest | None = None
    route: Manifest | None = None
    revisions: Sequence[Manifest] = ()
    """Of the Configuration, in the order of their making."""
    deployments: Sequence[Manifest] = ()
    ingress: Manifest | None = None
    """The one that has the Route's name; it may be anybody's."""
    namesake: Manifest | None = None
    """What has the name that the next revision should have; it may be anybody's."""
    others: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    """Configurations and revisions of other families that the Route refers to, or did."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write now, and when to look again."""

    writes: Sequence[Write]
    is_settled: bool
    """Whether the writes are statuses alone; else another look is due at once."""
    again_after: float | None = None
    """Seconds, when something is to be done that no change tells of."""


def plan(observed: Observed, settings: ServingSettings, now: float) -> Plan:
    """What to write so that the cluster comes nearer to what the family declares. Nothing when it is there."""
    service, configuration, route = observed.service, observed.configuration, observed.route
    if service is not None:
        writes = child_writes(service, configuration, route, is_name_taken=observed.namesake is not None)
        if writes:
            return Plan(writes, False)
        assert configuration is not None, "made by now"
        if not is_controlled_by(configuration, service):
            status = service_status(service, configuration, route, taken_name=None, now=now)
            return Plan(_status_write(service | {"status": status}, service), True, TAKEN_NAME_SECONDS)
    look = _Look(observed, settings, now)
    if configuration is not None:
        look.configuration(configuration)
    if route is not None and (service is None or is_controlled_by(route, service)):
        look.route(route)
    if look.structure:
        return Plan(look.structure, False)
    if service is not None:
        look.service(service)
    waits = [wait for wait in look.waits if wait is not None]
    return Plan(look.statuses, True, min(waits) if waits else None)


def _status_write(told: Manifest, stored: Manifest) -> list[Write]:
    same = told.get("status") == stored.get("status")
    return [] if same else [Write(Verb.STATUS, told, "what it owns changed")]


class _Look:
    """One look at a family: what is found while going down from the Configuration to the Service's status."""

    def __init__(self, observed: Observed, settings: ServingSettings, now: float) -> None:
        self.structure: list[Write] = []
        self.statuses: list[Write] = []
        self.waits: list[float | None] = []
        self._observed = observed
        self._settings = settings
        self._now = now
        self._told: dict[str, Manifest] = {}
        """The Configuration and the Route as they are told of, by kind."""
        self._revisions: list[Manifest] = []
        self._taken_name: str | None = None

    def configuration(self, configuration: Manifest) -> None:
        """Its revisions, their Deployments, and what they say."""
        observed, now = self._observed, self._now
        repaired = repaired_revision(configuration, observed.revisions)
        if repaired is not None:
            self.structure.append(Write(Verb.UPDATE, repaired, "its image is mapped now"))
        for revision in observed.revisions:
            if not is_controlled_by(revision, configuration):
                adopted = adopted_revision(configuration, revision)
                self.structure.append(Write(Verb.UPDATE, adopted, "it is the configuration's"))
            self._revisions.append(self._revision(revision))
        latest = current_revision(configuration, observed.revisions)
        if latest is None and repaired is None and observed.namesake is None:
            self._create_revision(configuration)
        elif latest is not None:
            latest = next(r for r in self._revisions if r["metadata"]["name"] == latest["metadata"]["name"])
        elif repaired is None:
            self._taken_name = next_revision_name(configuration, observed.revisions)
            self.waits.append(TAKEN_NAME_SECONDS)
        if not self.structure:
            status = configuration_status(configuration, self._revisions, latest, now)
            self._collect(latest, status.get("latestReadyRevisionName"))
            self._told["Configuration"] = configuration | {"status": status}
            self.statuses += _status_write(self._told["Configuration"], configuration)

    def _create_revision(self, configuration: Manifest) -> None:
        revision, route = next_revision(configuration, self._observed.revisions, self._now), self._observed.route
        name = configuration["metadata"]["name"]
        targets = (route["spec"].get("traffic") or ()) if route is not None else ()
        if route is not None and any(each.get("configurationName") == name for each in targets):
            revision = noted(revision, route["metadata"]["name"], refers=True, now=self._now) or revision
        reason = "the template changed" if self._observed.revisions else "the configuration is new"
        self.structure.append(Write(Verb.CREATE, revision, reason))

    def _revision(self, revision: Manifest) -> Manifest:
        """A revision with the status that it has by its Deployment."""
        settings, metadata = self._settings, revision["metadata"]
        name = deployment_name(metadata["name"])
        found = next((each for each in self._observed.deployments if each["metadata"]["name"] == name), None)
        has_source = settings.pulls_images or SOURCE_ANNOTATION in (metadata.get("annotations") or {})
        if found is None and has_source:
            labels = metadata["labels"]
            made = deployment(revision, labels.get(SERVICE_LABEL) or labels[CONFIGURATION_LABEL])
            self.structure.append(Write(Verb.CREATE, made, "the revision has none"))
        status = revision_status(revision, found, settings.autoscaler, self._now, has_source=has_source)
        told = revision | {"status": status}
        self.statuses += _status_write(told, revision)
        return told

    def _collect(self, latest: Manifest | None, latest_ready: str | None) -> None:
        """Remove revisions that nothing needs."""
        in_use = {latest["metadata"]["name"]} if latest is not None else set()
        in_use |= {latest_ready} if latest_ready else set()
        collection = collect(self._revisions, in_use, self._settings.retention, self._now)
        self.structure += [Write(Verb.DELETE, each.revision, each.reason) for each in collection.surplus]
        self.waits.append(collection.again_after)

    def route(self, route: Manifest) -> None:
        """Its Ingress, what it says, and the notes on what it refers to."""
        if self.structure:
            return
        known, observed = self._known(), self._observed
        settings = RouteSettings(self._settings.ingress, self._settings.port)
        planned = plan_route(route, observed.ingress, known, settings, self._now, former_owner=observed.service)
        self.structure += planned.writes
        self.waits.append(planned.again_after)
        told = self._told["Route"] = route | {"status": dict(planned.status)}
        self.statuses += _status_write(told, route)
        self.structure += self._notes(told, known)

    def _known(self) -> Known:
        others = self._observed.others
        configurations = {key.name: each for key, each in others.items() if key.kind == CONFIGURATION}
        revisions = {key.name: each for key, each in others.items() if key.kind == REVISION}
        own = self._told.get("Configuration")
        if own is not None:
            configurations[own["metadata"]["name"]] = own
        return Known(configurations, revisions | {r["metadata"]["name"]: r for r in self._revisions})

    def _notes(self, route: Manifest, known: Known) -> list[Write]:
        """The note that this route refers to them, on all that it does; it goes from others once the route has
        come to rest."""
        targets, told = route["spec"].get("traffic") or (), route["status"].get("traffic") or ()
        revisions = referred_revisions(targets, told, known)
        configurations = referred_configurations(targets, revisions, known)
        ready = find(route, READY)
        is_resolved = ready is not None and ready.status != "Unknown"
        name, writes = route["metadata"]["name"], []
        for found, referred in ((known.configurations, configurations), (known.revisions, revisions)):
            for each in found.values():
                refers = each["metadata"]["name"] in referred
                changed = noted(each, name, refers=refers, now=self._now) if refers or is_resolved else None
                if changed is not None:
                    reason = f"the route {name} {'refers' if refers else 'does not refer'} to it"
                    writes.append(Write(Verb.UPDATE, changed, reason))
        return writes

    def service(self, service: Manifest) -> None:
        """What it says of itself, which is what its children say."""
        configuration, route = self._told["Configuration"], self._told.get("Route") or self._observed.route
        status = service_status(service, configuration, route, taken_name=self._taken_name, now=self._now)
        self.statuses += _status_write(service | {"status": status}, service)

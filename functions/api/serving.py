"""`serving.knative.dev/v1`: Service, Configuration, Revision and Route.

A Service is what people write; it stands for a Configuration, whose template makes revisions, and a Route, which
shares traffic among them. Validation and `with_defaults` do what Knative's webhook does, so that a Service which
is taken here is taken there and comes out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from upwell.functions.api.meta import (
    Addressable,
    EmptyOrDns1035,
    Model,
    ObjectMeta,
    Status,
    TemplateMeta,
    invalid,
)
from upwell.functions.api.pod import Container, PodSpec, Probe, Resources, TcpSocket

SERVICE_LABEL: Final = "serving.knative.dev/service"
VISIBILITY_LABEL: Final = "networking.knative.dev/visibility"
CLUSTER_LOCAL: Final = "cluster-local"


@dataclass(frozen=True, slots=True)
class Defaults:
    """Knative's `config-defaults`, as far as a Service depends on it; times in seconds.

    Given to validation as its context: `Service.model_validate(manifest, context=defaults)`.
    """

    timeout_seconds: int = 300
    max_timeout_seconds: int = 600
    response_start_timeout_seconds: int = 300
    idle_timeout_seconds: int = 0
    container_concurrency: int = 0
    max_container_concurrency: int = 1000
    allow_zero_concurrency: bool = True
    container_name: str = "user-container"
    enable_service_links: bool = False


class RevisionSpec(PodSpec):
    """A pod's spec and the limits of its requests; times in seconds."""

    container_concurrency: int | None = None
    timeout_seconds: int | None = None
    response_start_timeout_seconds: int | None = None
    idle_timeout_seconds: int | None = None

    @field_validator("container_concurrency")
    @classmethod
    def _check_concurrency(cls, value: int | None, info: ValidationInfo) -> int | None:
        defaults = _defaults(info)
        if value is not None:
            _check_range(value, 0 if defaults.allow_zero_concurrency else 1, defaults.max_container_concurrency)
        return value

    @field_validator("timeout_seconds")
    @classmethod
    def _check_timeout(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None:
            _check_range(value, 0, _defaults(info).max_timeout_seconds)
        return value

    @field_validator("response_start_timeout_seconds", "idle_timeout_seconds")
    @classmethod
    def _check_within_timeout(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and "timeout_seconds" in info.data:
            timeout = info.data["timeout_seconds"] or _defaults(info).timeout_seconds
            _check_range(value, 0, timeout, "timeoutSeconds")
        return value


class RevisionTemplate(Model):
    """What each new revision is made from; the autoscaling annotations stand in its metadata."""

    metadata: TemplateMeta | None = None
    spec: RevisionSpec


class TrafficTarget(Model):
    """A share of the traffic for a revision: a named one, or the latest that is ready."""

    revision_name: str | None = None
    configuration_name: str | None = None
    latest_revision: bool | None = None
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    tag: EmptyOrDns1035 | None = None
    url: str | None = None

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.revision_name and self.configuration_name:
            raise invalid("a target names a revision or a configuration, not both")
        if self.latest_revision is not None and self.latest_revision == bool(self.revision_name):
            expected = "false" if self.revision_name else "true"
            raise invalid(f"must be {expected} {_because(self.revision_name)}", "latestRevision")
        return self


def _because(revision_name: str | None) -> str:
    return "where revisionName is given" if revision_name else "where no revisionName is given"


def _check_named(traffic: list[TrafficTarget] | None) -> None:
    """A Route by itself has no configuration of its own that a target could mean."""
    if not traffic:
        raise invalid("needs at least one target: the percentages must add up to 100, not 0", "traffic")
    for index, target in enumerate(traffic):
        if not target.revision_name and not target.configuration_name:
            raise invalid("needs a configurationName or a revisionName", "traffic", index)


def _check_shares(traffic: list[TrafficTarget] | None) -> list[TrafficTarget] | None:
    """Shares of a whole, each tag once, no URLs: those are the platform's to say."""
    tags: set[str] = set()
    for index, target in enumerate(traffic or ()):
        if target.url:
            raise invalid("may not be set: the platform says it in the status", index, "url")
        if target.tag and target.tag in tags:
            raise invalid(f"{target.tag!r} is the tag of another target", index, "tag")
        tags.add(target.tag or "")
    total = sum(target.percent or 0 for target in traffic or ())
    if traffic and total != 100:
        raise invalid(f"the percentages must add up to 100, not {total}")
    return traffic


class ConfigurationSpec(Model):
    """What a Configuration keeps."""

    template: RevisionTemplate


class RouteSpec(Model):
    """How traffic is shared; empty means all of it for the latest ready revision."""

    traffic: list[TrafficTarget] | None = None

    @field_validator("traffic")
    @classmethod
    def _check_traffic(cls, traffic: list[TrafficTarget] | None) -> list[TrafficTarget] | None:
        return _check_shares(traffic)


class ServiceSpec(ConfigurationSpec, RouteSpec):
    """A Configuration and a Route in one."""

    @field_validator("traffic")
    @classmethod
    def _check_own(cls, traffic: list[TrafficTarget] | None) -> list[TrafficTarget] | None:
        for index, target in enumerate(traffic or ()):
            if target.configuration_name:
                raise invalid("may not be set: a Service's traffic is its own", index, "configurationName")
        return traffic


class ServiceStatus(Status):
    """Where a Service answers and which revisions do."""

    url: str | None = None
    address: Addressable | None = None
    latest_created_revision_name: str | None = None
    latest_ready_revision_name: str | None = None
    traffic: list[TrafficTarget] | None = None


class ConfigurationStatus(Status):
    """The newest revisions of a Configuration."""

    latest_created_revision_name: str | None = None
    latest_ready_revision_name: str | None = None


class ContainerStatus(Model):
    """The digest that a container's image had when its revision was made."""

    name: str | None = None
    image_digest: str | None = None


class RevisionStatus(Status):
    """How many replicas a revision has."""

    log_url: str | None = None
    actual_replicas: int | None = None
    desired_replicas: int | None = None
    container_statuses: list[ContainerStatus] | None = None


class RouteStatus(Status):
    """Where a Route answers and where it sends traffic."""

    url: str | None = None
    address: Addressable | None = None
    traffic: list[TrafficTarget] | None = None


class Service(Model):
    """A program that rises from zero, under one name."""

    api_version: Literal["serving.knative.dev/v1"] = "serving.knative.dev/v1"
    kind: Literal["Service"] = "Service"
    metadata: ObjectMeta
    spec: ServiceSpec
    status: ServiceStatus | None = None

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, metadata: ObjectMeta) -> ObjectMeta:
        return _check_visibility(metadata)

    @field_validator("spec")
    @classmethod
    def _check_spec(cls, spec: ServiceSpec, info: ValidationInfo) -> ServiceSpec:
        _check_revision_name(spec, info)
        return spec


class Configuration(Model):
    """The history of a program: each change of the template is a revision."""

    api_version: Literal["serving.knative.dev/v1"] = "serving.knative.dev/v1"
    kind: Literal["Configuration"] = "Configuration"
    metadata: ObjectMeta
    spec: ConfigurationSpec
    status: ConfigurationStatus | None = None

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, metadata: ObjectMeta) -> ObjectMeta:
        return _check_owner(metadata)

    @field_validator("spec")
    @classmethod
    def _check_spec(cls, spec: ConfigurationSpec, info: ValidationInfo) -> ConfigurationSpec:
        _check_revision_name(spec, info)
        return spec


class Revision(Model):
    """One unchanging state of a program; it scales on its own."""

    api_version: Literal["serving.knative.dev/v1"] = "serving.knative.dev/v1"
    kind: Literal["Revision"] = "Revision"
    metadata: ObjectMeta
    spec: RevisionSpec
    status: RevisionStatus | None = None


class Route(Model):
    """A name under which revisions answer."""

    api_version: Literal["serving.knative.dev/v1"] = "serving.knative.dev/v1"
    kind: Literal["Route"] = "Route"
    metadata: ObjectMeta
    spec: RouteSpec
    status: RouteStatus | None = None

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, metadata: ObjectMeta) -> ObjectMeta:
        return _check_visibility(_check_owner(metadata))

    @field_validator("spec")
    @classmethod
    def _check_spec(cls, spec: RouteSpec) -> RouteSpec:
        _check_named(spec.traffic)
        return spec


def with_defaults(service: Service, defaults: Defaults) -> Service:
    """The Service with everything said that Knative would fill in; a new object."""
    spec = service.spec
    traffic = spec.traffic or [TrafficTarget.model_validate({"latestRevision": True, "percent": 100})]
    completed = spec.model_copy(
        update={
            "template": _complete_template(spec.template, defaults),
            "traffic": [_complete_target(target) for target in traffic],
        }
    )
    return service.model_copy(update={"spec": completed})


def complete_configuration(configuration: Configuration, defaults: Defaults) -> Configuration:
    """The Configuration with everything said that Knative would fill in; a new object."""
    template = _complete_template(configuration.spec.template, defaults)
    return configuration.model_copy(update={"spec": configuration.spec.model_copy(update={"template": template})})


def complete_route(route: Route) -> Route:
    """The Route with everything said that Knative would fill in; a new object."""
    traffic = [_complete_target(target) for target in route.spec.traffic or ()]
    return route.model_copy(update={"spec": route.spec.model_copy(update={"traffic": traffic})})


def _complete_template(template: RevisionTemplate, defaults: Defaults) -> RevisionTemplate:
    return template.model_copy(update={"spec": _complete_revision(template.spec, defaults)})


def _complete_revision(spec: RevisionSpec, defaults: Defaults) -> RevisionSpec:
    timeout = spec.timeout_seconds or defaults.timeout_seconds
    # Knative sets the two finer timeouts only where they would say more than the whole one does.
    start, idle = spec.response_start_timeout_seconds, spec.idle_timeout_seconds
    if not start and 0 < defaults.response_start_timeout_seconds < timeout:
        start = defaults.response_start_timeout_seconds
    if not idle and 0 < defaults.idle_timeout_seconds < timeout:
        idle = defaults.idle_timeout_seconds
    concurrency = spec.container_concurrency
    links = spec.enable_service_links
    return spec.model_copy(
        update={
            "timeout_seconds": timeout,
            "response_start_timeout_seconds": start,
            "idle_timeout_seconds": idle,
            "container_concurrency": defaults.container_concurrency if concurrency is None else concurrency,
            "enable_service_links": defaults.enable_service_links if links is None else links,
            "containers": _complete_containers(spec.containers, defaults),
        }
    )


def _complete_containers(containers: Sequence[Container], defaults: Defaults) -> list[Container]:
    """The one that serves gets the default name and a readiness probe; others only a name of their own."""
    completed = []
    for index, container in enumerate(containers):
        serves = len(containers) == 1 or bool(container.ports)
        name = container.name or (defaults.container_name if serves else f"{defaults.container_name}-{index}")
        update: dict[str, Any] = {"name": name, "resources": container.resources or Resources()}
        if serves:
            update["readiness_probe"] = _complete_probe(container.readiness_probe)
        completed.append(container.model_copy(update=update))
    return completed


def _complete_probe(probe: Probe | None) -> Probe:
    probe = probe or Probe()
    update: dict[str, Any] = {"success_threshold": probe.success_threshold or 1}
    if not (probe.http_get or probe.tcp_socket or probe.exec or probe.grpc):
        update["tcp_socket"] = TcpSocket(port=0)
    return probe.model_copy(update=update)


def _complete_target(target: TrafficTarget) -> TrafficTarget:
    latest = target.latest_revision if target.latest_revision is not None else not target.revision_name
    return target.model_copy(update={"latest_revision": latest, "percent": target.percent or 0})


def _check_owner(metadata: ObjectMeta) -> ObjectMeta:
    """Only what a Service made may say that it is a Service's."""
    service = (metadata.labels or {}).get(SERVICE_LABEL)
    owners = {(owner.kind, owner.name) for owner in metadata.owner_references or ()}
    if service is not None and ("Service", service) not in owners:
        raise invalid(f"no Service {service!r} is among the owner references", "labels", SERVICE_LABEL)
    return metadata


def _check_visibility(metadata: ObjectMeta) -> ObjectMeta:
    """Whoever mistypes it would answer everybody."""
    visibility = (metadata.labels or {}).get(VISIBILITY_LABEL, CLUSTER_LOCAL)
    if visibility != CLUSTER_LOCAL:
        what = f"must be {CLUSTER_LOCAL!r} or left out, not {visibility!r}"
        raise invalid(what, "labels", VISIBILITY_LABEL)
    return metadata


def _check_revision_name(spec: ConfigurationSpec, info: ValidationInfo) -> None:
    """A revision's given name must begin with that of the object that makes it."""
    template, parent = spec.template.metadata, info.data.get("metadata")
    name = template.name if template else None
    if name and isinstance(parent, ObjectMeta) and not name.startswith(f"{parent.name}-"):
        raise invalid(f"{name!r} must begin with {parent.name + '-'!r}", "template", "metadata", "name")


def _defaults(info: ValidationInfo) -> Defaults:
    return info.context if isinstance(info.context, Defaults) else Defaults()


def _check_range(value: int, low: int, high: int, name: str = "") -> None:
    if not low <= value <= high:
        limit = f"{high} ({name})" if name else str(high)
        raise invalid(f"must be from {low} to {limit}, not {value}")

"""What policies of `istio.alibabacloud.com` have in common: whom they are about and where they act.

The published article on Knative with that mesh prints `isGateway` and `workloadSelector` below an item of
`configs`; `lift` puts them where they belong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from upwell.functions.api.http_values import check_host, check_namespace
from upwell.functions.api.meta import Model, invalid
from upwell.functions.api.policies import PolicyResource, SnakeModel
from upwell.functions.api.request_match import HeaderMatcher

GROUP: Final = "istio.alibabacloud.com"
_OF_SPEC: Final = ("isGateway", "workloadSelector", "applyToTraffic")

Host = Annotated[str, AfterValidator(check_host)]


class WorkloadSelector(SnakeModel):
    """Labels of the gateway (or of pods) in whose proxies a policy acts."""

    labels: dict[str, str] | None = None


class RouteMatch(SnakeModel):
    """A route of a virtual host, by its name in a VirtualService."""

    name_match: str | None = None
    header_match: list[HeaderMatcher] | None = None
    """Deprecated in favour of `limit_overrides`: what does not match is not the config's concern."""


class VirtualHostMatch(SnakeModel):
    """A virtual host by its name, `*` for all."""

    name: Host
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """None and 0 stand for any."""
    route: RouteMatch | None = None


class Match(SnakeModel):
    """Whose requests a config is about."""

    vhost: VirtualHostMatch


class TargetService(SnakeModel):
    """A service whose requests a config is about; its namespace is the policy's when none is given."""

    group: str | None = None
    kind: Literal["Service", "ServiceEntry", "VirtualService"] | None = None
    namespace: Annotated[str, AfterValidator(check_namespace)] | None = None
    name: Host
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    section_name: str | None = None
    """The name of a route in a VirtualService."""

    @property
    def resource_kind(self) -> str:
        """The kind of the object that is named; a Service when none is given."""
        return self.kind or "Service"

    @model_validator(mode="after")
    def _check_section(self) -> Self:
        if self.section_name and self.kind != "VirtualService":
            raise invalid("names a route, which only a VirtualService has", "section_name")
        return self


class PolicyConfig(SnakeModel):
    """What the configs of both kinds have in common: whom they are about."""

    name: str | None = None
    match: Match | None = None
    target_services: list[TargetService] | None = None

    @model_validator(mode="after")
    def _check_scope(self) -> Self:
        if self.match is None and not self.target_services:
            raise invalid("match.vhost or target_services must say whose requests are meant")
        return self

    @property
    def host(self) -> str | None:
        """The virtual host's name, `*` for all; None when `targets` alone say who is meant."""
        return self.match.vhost.name if self.match else None

    @property
    def port(self) -> int | None:
        """The virtual host's port, None for any."""
        return (self.match.vhost.port or None) if self.match else None

    @property
    def route_name(self) -> str | None:
        """The name of the only route of the virtual host that is meant."""
        return (self._route.name_match or None) if self._route else None

    @property
    def targets(self) -> tuple[TargetService, ...]:
        """The services that are meant, beside `host`."""
        return tuple(self.target_services or ())

    @property
    def route_headers(self) -> tuple[HeaderMatcher, ...]:
        """What a request must have besides, by the deprecated `route.header_match`."""
        return tuple((self._route.header_match or ()) if self._route else ())

    @property
    def header_names(self) -> frozenset[str]:
        """The header fields that are read to decide, in lower case."""
        return frozenset(each.name.lower() for each in self.route_headers)

    @property
    def _route(self) -> RouteMatch | None:
        return self.match.vhost.route if self.match else None

    def warnings_at(self, place: str) -> list[str]:
        """What to warn of; `place` is the config's own path."""
        found = []
        if self.route_headers:
            found.append(
                f"{place}.match.vhost.route.header_match is deprecated: use limit_overrides of a rate limiter"
            )
        if self.route_name:
            found.append(
                f"{place}.match.vhost.route.name_match means a route of a VirtualService; those that are made for "
                "Knative's Services have no names"
            )
        return found


class PolicySpec(Model):
    """Where a policy acts."""

    workload_selector: WorkloadSelector | None = None
    is_gateway: bool | None = None
    apply_to_traffic: Literal["sidecar_inbound", "sidecar_outbound", "waypoint", "gateway"] | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the workloads where it acts; empty for all."""
        return (self.workload_selector.labels or {}) if self.workload_selector else {}


class AsmPolicy(PolicyResource):
    """A policy of this group."""

    VERSIONS: ClassVar[tuple[str, ...]] = (f"{GROUP}/v1", f"{GROUP}/v1beta1")

    @classmethod
    def lift(cls, manifest: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        spec = manifest.get("spec")
        if not isinstance(spec, dict) or not isinstance(spec.get("configs"), list):
            return manifest, []
        lifted, told = dict(spec), list[str]()
        lifted["configs"] = [_lift_from(each, index, lifted, told) for index, each in enumerate(spec["configs"])]
        return ({**manifest, "spec": lifted}, told) if told else (manifest, [])


def _lift_from(config: object, index: int, spec: dict[str, Any], told: list[str]) -> object:
    """A config without the fields that belong to `spec`, which gets them.

    One that contradicts what stands there stays where it is, and is refused there.
    """
    if not isinstance(config, dict):
        return config
    moved = [name for name in _OF_SPEC if name in config and spec.get(name, config[name]) == config[name]]
    for name in moved:
        spec[name] = config[name]
        told.append(f"spec.configs[{index}].{name} stands in the wrong place: spec.{name} is the right one")
    return {name: value for name, value in config.items() if name not in moved}


def warnings_of(configs: Iterable[PolicyConfig]) -> list[str]:
    """What to warn of in all configs of a policy."""
    return [each for index, config in enumerate(configs) for each in config.warnings_at(f"spec.configs[{index}]")]

"""VirtualService (networking.istio.io): how requests for hosts are routed, retried, rewritten and answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, Field, model_validator

from upwell.functions.api.http_routes import HTTPRoute
from upwell.functions.api.http_values import Percent, check_host
from upwell.functions.api.meta import Model, invalid
from upwell.functions.api.policies import PolicyResource

MESH: Final = "mesh"
"""In place of a gateway's name: requests from within."""


class VirtualServiceSpec(Model):
    """The first route that matches a request is taken."""

    hosts: list[Annotated[str, AfterValidator(check_host)]] | None = None
    gateways: list[str] | None = None
    http: list[HTTPRoute] | None = None
    tls: list[dict[str, Any]] | None = None
    tcp: list[dict[str, Any]] | None = None
    export_to: list[str] | None = None

    @model_validator(mode="after")
    def _check_hosts(self) -> Self:
        hosts = self.hosts or []
        if not hosts:
            raise invalid("at least one host is required", "hosts")
        for index, host in enumerate(hosts):
            if host in hosts[:index]:
                raise invalid(f"{host!r} is named twice", "hosts", index)
            if host == "*" and MESH in (self.gateways or [MESH]):
                raise invalid("'*' needs gateways other than mesh", "hosts", index)
        if not (self.http or self.tls or self.tcp):
            raise invalid("at least one route is required", "http")
        return self


class VirtualService(PolicyResource):
    """The object."""

    VERSIONS: ClassVar[tuple[str, ...]] = (
        "networking.istio.io/v1",
        "networking.istio.io/v1beta1",
        "networking.istio.io/v1alpha3",
    )
    KIND: ClassVar[str] = "VirtualService"

    spec: VirtualServiceSpec = Field()

    def warnings(self) -> list[str]:
        """Fields without an effect here, faults that never happen, and routes that no request reaches."""
        found = [
            f"spec.{name}: has no effect: upwell's gateway routes HTTP only"
            for name, given in (("tls", self.spec.tls), ("tcp", self.spec.tcp))
            if given
        ]
        if self.spec.export_to:
            found.append("spec.exportTo: has no effect: there is one gateway, which sees every namespace")
        taken: int | None = None
        for index, route in enumerate(self.spec.http or []):
            found.extend(f"spec.http[{index}].{text}" for text in route_warnings(route))
            if taken is not None:
                found.append(f"spec.http[{index}]: no request reaches it: http[{taken}] takes all that are left")
            elif route.delegate is None and route.takes_all:
                taken = index
        return found


def route_warnings(route: HTTPRoute) -> Iterator[str]:
    """What of one route works otherwise than one may expect, as `FIELD: TEXT`."""
    if route.delegate is not None:
        yield "delegate: is not followed: the route takes no request; put the other's routes in its place"
    if route.mirror_percent is not None:
        yield "mirrorPercent: is deprecated: use mirrorPercentage.value"
    if route.cors_policy is not None and route.cors_policy.allow_origin:
        yield "corsPolicy.allowOrigin: is deprecated: use allowOrigins with exact"
    yield from _match_warnings(route)
    yield from _retry_warnings(route)
    yield from _fault_warnings(route)
    yield from _header_warnings(route)


def _match_warnings(route: HTTPRoute) -> Iterator[str]:
    for index, match in enumerate(route.match or []):
        for field, named in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
            for name in named or {}:
                if name.startswith("@"):
                    yield f"match[{index}].{field}[{name!r}]: never matches: upwell's gateway reads no tokens"


def _retry_warnings(route: HTTPRoute) -> Iterator[str]:
    retries = route.retries
    if retries is None:
        return
    if retries.retry_on and "retriable-headers" in retries.retry_on:
        yield "retries.retryOn: retriable-headers has no effect: Istio cannot say which headers"
    if retries.retry_on and "http3-post-connect-failure" in retries.retry_on:
        yield "retries.retryOn: http3-post-connect-failure has no effect: replicas speak HTTP/1.1"


def _fault_warnings(route: HTTPRoute) -> Iterator[str]:
    fault = route.fault
    if fault is None:
        return
    if fault.delay is not None and not (_share(fault.delay.percentage) or fault.delay.percent):
        yield "fault.delay: delays no request: percentage.value is not set"
    if fault.delay is not None and fault.delay.percent is not None:
        yield "fault.delay.percent: is deprecated: use percentage.value"
    if fault.abort is not None and not _share(fault.abort.percentage):
        yield "fault.abort: aborts no request: percentage.value is not set"


def _header_warnings(route: HTTPRoute) -> Iterator[str]:
    rules = [("headers", route.headers)]
    rules += [(f"route[{index}].headers", each.headers) for index, each in enumerate(route.route or [])]
    for path, rule in rules:
        for head in ("request", "response"):
            operations = getattr(rule, head) if rule is not None else None
            for operation, name, value in operations.values() if operations is not None else ():
                if "%" in value:
                    yield f"{path}.{head}.{operation}[{name!r}]: is sent as written: nothing is put in for %...%"


def _share(percentage: Percent | None) -> float:
    return (percentage.value or 0.0) if percentage is not None else 0.0

"""A VirtualService, ready to be asked about requests.

`HttpRoutes.find` names the route that a request takes; `HttpRoute.plan` decides all that is to be decided of one
request at once, with the random numbers that it takes, and the gateway does it: answer at once, or wait, then
refuse or forward, with a timeout, retries, copies, and changes to both heads. What a VirtualService has
no route for is left to the Route of its host.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from upwell.functions.api.durations import seconds
from upwell.functions.api.http_routes import HeaderRules, HTTPMatchRequest, HTTPRoute, HTTPRouteDestination
from upwell.functions.api.virtual_service import VirtualServiceSpec
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.cors import Cors
from upwell.runtime.mesh.fault import NO_FAULT, Fault, FaultDecision
from upwell.runtime.mesh.header_operations import (
    NO_CHANGES,
    HeaderChange,
    apply_all,
    request_change,
    response_change,
)
from upwell.runtime.mesh.http_match import ANY_GATEWAY, Condition, Sender, conditions, is_bound_to, is_for
from upwell.runtime.mesh.mirror import Mirror, MirrorTarget, chosen, mirrors_of
from upwell.runtime.mesh.naming import canonical
from upwell.runtime.mesh.percentage import Random
from upwell.runtime.mesh.policy import Refusal
from upwell.runtime.mesh.redirect import DirectResponse, Redirect
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.mesh.retries import RetryPolicy
from upwell.runtime.mesh.rewrite import Rewrite, path_rewrite

ORIGINAL_PATH: Final = b"x-envoy-original-path"
"""Says to a function what the client asked for, where the path was rewritten."""


@dataclass(frozen=True, slots=True)
class RequestChanges:
    """What the function sees otherwise than the client sent it."""

    target: bytes | None = None
    """In origin form; None: as sent."""
    authority: bytes | None = None
    """The Host; None: as sent."""
    changes: tuple[HeaderChange, ...] = NO_CHANGES
    put: tuple[tuple[bytes, bytes], ...] = field(init=False, repr=False, compare=False)
    """Fields that the changes come to, beside what the client sent."""
    remove: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """Names of the client's fields that go."""

    def __post_init__(self) -> None:
        put: Headers = []
        remove: frozenset[bytes] = frozenset()
        for change in self.changes:
            put = [field for field in put if field[0] not in change.remove]
            put.extend(change.put)
            remove = remove | change.remove
        object.__setattr__(self, "put", tuple(put))
        object.__setattr__(self, "remove", remove)

    def headers(self, headers: Headers) -> Headers:
        """The fields, without the Host; `headers` itself stays as it is."""
        return apply_all(self.changes, headers)


UNCHANGED: Final = RequestChanges()


@dataclass(frozen=True, slots=True)
class RouteDestination:
    """A service that a route sends to."""

    host: str
    """Canonical: `NAME.NAMESPACE` for a service, see `naming`."""
    subset: str | None
    port: int | None
    weight: int
    request: tuple[HeaderChange, ...] = NO_CHANGES
    """The route's changes and its own, in their order."""
    response: tuple[HeaderChange, ...] = NO_CHANGES
    """The same for the answer."""
    authority: bytes | None = None
    head: RequestChanges = UNCHANGED
    """What it sees otherwise, where no path is rewritten."""

    @classmethod
    def of(cls, rule: HTTPRouteDestination, namespace: str) -> RouteDestination:
        """The destination of a rule in `namespace`."""
        target = rule.destination
        request = rule.headers.request if rule.headers is not None else None
        return cls(
            canonical(target.host, namespace),
            target.subset,
            target.port.number if target.port is not None else None,
            rule.weight or 0,
            request_change(rule.headers),
            response_change(rule.headers),
            _authority(request.authority if request is not None else None),
        )


class RoutePlan(NamedTuple):
    """All that was decided of one request."""

    route: HttpRoute
    answer: Refusal | None
    """At once, in the function's place; with it the rest stands for nothing."""
    fault: FaultDecision
    """First wait, then refuse, before the request goes on to a function."""
    destination: RouteDestination | None
    """Which of the route's; None exactly where there is an answer."""
    mirrors: tuple[MirrorTarget, ...]
    """Who gets a copy."""
    changes: RequestChanges
    origin: bytes | None
    """Of another site that may call, whose browser reads the answer's CORS fields."""

    @property
    def timeout(self) -> float | None:
        """Seconds for the whole request, retries included, from when it goes on; None without one."""
        return self.route.timeout

    @property
    def retries(self) -> RetryPolicy | None:
        """None: the first attempt is the only one."""
        return self.route.retries

    def response_headers(self, headers: Headers) -> Headers:
        """The fields of the function's answer as the client gets them; `headers` itself stays as it is."""
        if self.destination is not None and self.destination.response:
            headers = apply_all(self.destination.response, headers)
        return self.refusal_headers(headers)

    def refusal_headers(self, headers: Headers) -> Headers:
        """The fields of an answer that no function gave, such as an injected fault: with those of CORS."""
        if self.origin is None or self.route.cors is None:
            return headers
        return self.route.cors.add_headers(self.origin, headers)


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """One entry of `http`, for requests that came by one of its matches."""

    policy: str
    name: str
    """The route's, and after a dot its match's."""
    timeout: float | None = None
    retries: RetryPolicy | None = None
    fault: Fault | None = None
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    answerer: Redirect | DirectResponse | None = None
    destinations: tuple[RouteDestination, ...] = ()
    """Those with a weight, or the only one."""
    response: tuple[HeaderChange, ...] = NO_CHANGES
    """Of an answer of its own."""
    rewrite: Rewrite | None = None
    _bounds: Sequence[int] = field(default=())

    @classmethod
    def of(cls, policy: str, namespace: str, rule: HTTPRoute) -> HttpRoute:
        """The route that a rule in `namespace` describes, without a match of its own."""
        answerer: Redirect | DirectResponse | None = None
        if rule.redirect is not None:
            answerer = Redirect(policy, rule.redirect)
        elif rule.direct_response is not None:
            answerer = DirectResponse(policy, rule.direct_response)
        routes = rule.route or []
        weighted = [each for each in routes if each.weight] if len(routes) > 1 else routes
        operations = rule.headers.request if rule.headers is not None else None
        rewritten = rule.rewrite.authority if rule.rewrite is not None else None
        authority = _authority(rewritten or (operations.authority if operations is not None else None))
        destinations = tuple(
            _in_order(RouteDestination.of(each, namespace), rule.headers, authority, is_only=len(weighted) == 1)
            for each in weighted
        )
        return cls(
            policy=policy,
            name=rule.name or "",
            timeout=None if rule.timeout is None else seconds(rule.timeout),
            retries=RetryPolicy.of(rule.retries),
            fault=None if rule.fault is None else Fault(policy, rule.fault),
            mirrors=mirrors_of(rule, namespace),
            # Envoy's filter passes over what no service answers.
            cors=None if rule.cors_policy is None or answerer is not None else Cors(policy, rule.cors_policy),
            answerer=answerer,
            destinations=destinations,
            response=response_change(rule.headers),
            _bounds=tuple(itertools.accumulate(each.weight for each in destinations)),
        )

    def by(self, rule: HTTPRoute, match: HTTPMatchRequest | None) -> HttpRoute:
        """The same for requests that came by `match`: it says which part of the path a rewrite replaces."""
        name = f"{self.name}.{match.name}" if match is not None and match.name else self.name
        return replace(self, name=name, rewrite=path_rewrite(rule.rewrite, match))

    def plan(self, request: PolicyRequest, random: Random) -> RoutePlan:
        """Decide all of one request."""
        answer = self.answer(request)
        if answer is not None:
            return RoutePlan(self, answer, NO_FAULT, None, (), UNCHANGED, None)
        destination = self.pick(random)
        return RoutePlan(
            self,
            None,
            NO_FAULT if self.fault is None else self.fault.decide(request, random),
            destination,
            chosen(self.mirrors, random) if self.mirrors else (),
            self.changed_head(request, destination),
            None if self.cors is None else self.cors.allowed_origin(request),
        )

    def answer(self, request: PolicyRequest) -> Refusal | None:
        """A redirect, a direct response, or the answer to a CORS preflight; None when a function is to answer."""
        if self.answerer is not None:
            refusal = self.answerer.answer(request)
            return replace(refusal, headers=apply_all(self.response, refusal.headers))
        return None if self.cors is None else self.cors.preflight(request)

    def pick(self, random: Random) -> RouteDestination:
        """One of the destinations, by their weights."""
        if len(self.destinations) == 1:
            return self.destinations[0]
        drawn = random() * self._bounds[-1]
        return next(each for each, bound in zip(self.destinations, self._bounds, strict=True) if drawn < bound)

    def changed_head(self, request: PolicyRequest, destination: RouteDestination) -> RequestChanges:
        """What `destination` sees otherwise than the client sent it."""
        if self.rewrite is None:
            return destination.head
        original = request.head.origin_target
        target = self.rewrite(original)
        told = HeaderChange(frozenset((ORIGINAL_PATH,)), ((ORIGINAL_PATH, original),))
        return RequestChanges(target, destination.authority, (*destination.request, told))


def _in_order(
    destination: RouteDestination, of_route: HeaderRules | None, authority: bytes | None, *, is_only: bool
) -> RouteDestination:
    """The destination with the changes of its route, as Envoy does them: Istio writes those of an only destination
    behind the route's, while Envoy does those of a weighted one before the route's."""

    def both(route: tuple[HeaderChange, ...], own: tuple[HeaderChange, ...]) -> tuple[HeaderChange, ...]:
        return (*route, *own) if is_only else (*own, *route)

    request = both(request_change(of_route), destination.request)
    response = both(response_change(of_route), destination.response)
    authority = authority or destination.authority
    head = RequestChanges(None, authority, request) if request or authority else UNCHANGED
    return replace(destination, request=request, response=response, authority=authority, head=head)


def _authority(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


class HttpRoutes:
    """The `http` of a VirtualService in `namespace`: the first route that matches a request is its route."""

    __slots__ = ("_entries", "header_names", "policy")

    def __init__(
        self, policy: str, spec: VirtualServiceSpec, namespace: str, sender: Sender = ANY_GATEWAY
    ) -> None:
        self.policy = policy
        self.header_names = frozenset(_header_names(spec))
        """Fields that its matches read, in lower case: see `chain.reads_events`."""
        self._entries: list[tuple[tuple[Condition, ...], HttpRoute]] = []
        if not is_bound_to(spec.gateways or ["mesh"], sender, namespace):
            return
        for rule in spec.http or []:
            if rule.delegate is not None:
                continue
            route = HttpRoute.of(policy, namespace, rule)
            if not rule.match:
                self._entries.append(((), route.by(rule, None)))
            for match in rule.match or []:
                if is_for(match, sender, namespace):
                    self._entries.append((conditions(match), route.by(rule, match)))

    def find(self, request: PolicyRequest) -> HttpRoute | None:
        """The route that a request takes; None when there is none for it."""
        for asked, route in self._entries:
            for holds in asked:
                if not holds(request):
                    break
            else:
                return route
        return None


def _header_names(spec: VirtualServiceSpec) -> Iterator[str]:
    for match in (match for rule in spec.http or [] for match in rule.match or []):
        for name in (*(match.headers or {}), *(match.without_headers or {})):
            yield name.lower()

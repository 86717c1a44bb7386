"""A place is asked of the policies that name it alone, however many there are; what acts stays the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.api.policies import PolicyResource
from upwell.runtime.control.policies import read_policy
from upwell.runtime.mesh.by_host import ByHost
from upwell.runtime.mesh.naming import RevisionPlace, RoutePlace
from upwell.runtime.mesh.policies import Policies
from upwell.runtime.mesh.scope import Scope, named_hosts
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake
from upwell.runtime.timers import TimerWheel

LABELS = {"serving.knative.dev/service": "web", "serving.knative.dev/configuration": "web"}
ROUTES = [
    RoutePlace.of("default/web", ["web.default", "web.default.svc.cluster.local", "web.default.example.com"]),
    RoutePlace.of("default/web", ["web.default"], "next", ["next-web.default.example.com"]),
    RoutePlace.of("other/web", ["web.other", "shop.example.com"]),
]
REVISIONS = [RevisionPlace.of("default/web-00001", LABELS), RevisionPlace.of("other/api-00002", {})]
HOSTS = [
    *("web", "WEB.default", "web.default.svc.cluster.local", "web.other", "web-00001", "web-00001-private"),
    *(
        "web-00001-private.default.svc.cluster.local",
        "api-00002.other",
        "shop.example.com",
        "next-web.default.svc",
    ),
    *("next-web.default.example.com", "web.default.example.com", "elsewhere.example.com"),
    *("*.example.com", "*.default.svc.cluster.local", "*"),
]
NAMESPACES = ["default", "other", "istio-system"]


def policy(group: str, kind: str, namespace: str, spec: dict[str, Any], name: str = "a") -> PolicyResource:
    metadata = {"name": name, "namespace": namespace}
    return read_policy({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec})


def limiter(namespace: str, host: str, name: str = "a") -> PolicyResource:
    limit = {"fill_interval": {"seconds": 1}, "quota": 1}
    spec = {"configs": [{"match": {"vhost": {"name": host}}, "limit": limit}]}
    return policy("istio.alibabacloud.com/v1", "ASMLocalRateLimiter", namespace, spec, name)


def targeting(namespace: str, host: str, target: str) -> PolicyResource:
    limit = {"fill_interval": {"seconds": 1}, "quota": 1}
    services = [{"kind": "Service", "namespace": target, "name": host}]
    spec = {"configs": [{"target_services": services, "limit": limit}]}
    return policy("istio.alibabacloud.com/v1", "ASMLocalRateLimiter", namespace, spec)


def rule(namespace: str, host: str) -> PolicyResource:
    spec = {"host": host, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}
    return policy("networking.istio.io/v1", "DestinationRule", namespace, spec)


def routes(namespace: str, host: str) -> PolicyResource:
    spec = {"hosts": [host], "gateways": ["a/b"], "http": [{"directResponse": {"status": 200}}]}
    return policy("networking.istio.io/v1", "VirtualService", namespace, spec)


def quota(namespace: str, host: str) -> PolicyResource:
    scheduling = {
        "bucket_capacity": 1,
        "fill_amount": 1,
        "rate_limiter": {"interval": "1s"},
        "selectors": [{"service": host}],
        "scheduler": {},
    }
    return policy("istio.alibabacloud.com/v1", "QuotaSchedulingPolicy", namespace, {"quota_scheduler": scheduling})


hosts, namespaces = st.sampled_from(HOSTS), st.sampled_from(NAMESPACES)
some_policy = st.one_of(
    *(st.builds(make, namespaces, hosts) for make in (limiter, rule, routes, quota)),
    st.builds(targeting, namespaces, hosts, namespaces),
)


def means(scope: Scope, each: Any, place: Any) -> bool:
    """Whether a policy means a place, as the scope says of any two."""
    is_route = isinstance(place, RoutePlace)
    match each.kind:
        case "VirtualService":
            return is_route and scope.route_precision(each, place) is not None
        case "DestinationRule":
            return not is_route and scope.rule_precision(each, place) is not None
        case "QuotaSchedulingPolicy":
            return not is_route and bool(scope.quota_selectors(each, place))
        case _:
            meant = scope.means_route if is_route else scope.means_revision
            return any(meant(each, config, place) is not None for config in each.spec.configs)


@given(st.lists(some_policy, max_size=8))
def test_all_that_mean_a_place_are_found_by_its_hosts_in_their_order(policies: list[PolicyResource]) -> None:
    scope = Scope(MeshSettings())
    found = ByHost((each, named_hosts(each)) for each in policies)
    assert list(found) == policies
    places: list[RoutePlace | RevisionPlace] = [*ROUTES, *REVISIONS]
    for place in places:
        at = found.at(place.every_host)
        meant = [each for each in policies if means(scope, each, place)]
        assert [each for each in at if means(scope, each, place)] == meant
        assert [id(each) for each in at] == [id(each) for each in policies if any(each is one for one in at)]


class Calls:
    """Counts the calls of Python functions while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        self.count += event in ("call", "c_call")


def calls_at_places(policies: Sequence[PolicyResource]) -> int:
    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        known = Policies(MeshSettings(), TimerWheel(loop), FakeClock(loop=loop), lambda: 0.5)
        known.replace(policies)
        with Calls() as calls:
            known.at_route(ROUTES[0])
            known.at_revision(REVISIONS[0])
        return calls.count

    return run_fake(scenario())


def test_what_acts_at_a_place_costs_the_same_among_a_thousand_policies_of_others() -> None:
    own = limiter("default", "web-00001", "own")
    others = [limiter(NAMESPACES[n % 3], f"h{n}.default", f"other-{n}") for n in range(1000)]
    assert calls_at_places([own, *others[:3]]) == calls_at_places([own, *others])

"""No Ingress takes a host that another has, whatever it is called and labelled."""

from __future__ import annotations

import itertools

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.ingress import virtual_hosts
from upwell.runtime.gateway.routes import RouteTable

FIRST, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"


def ingress(namespace: str, host: str, created: str, labels: dict[str, str] | None = None) -> Manifest:
    split = {"serviceName": f"of-{namespace}", "serviceNamespace": namespace, "servicePort": 80}
    return {
        "metadata": {"name": "web", "namespace": namespace, "creationTimestamp": created, "labels": labels or {}},
        "spec": {"rules": [{"hosts": [host], "http": {"paths": [{"splits": [split]}]}}]},
    }


def owners(host: str, *ingresses: Manifest) -> set[str]:
    """Whose revision answers, in whatever order the Ingresses come."""
    found = set()
    for order in itertools.permutations(ingresses):
        table = RouteTable()
        for each in order:
            metadata = each["metadata"]
            table = table.changed({f"{metadata['namespace']}/{metadata['name']}": virtual_hosts(each)})
        vhost = table.find(host.encode())
        assert vhost is not None
        found.add(vhost.rules[0].targets[0].revision)
    return found


def test_the_oldest_has_a_host_whatever_later_ones_are_called() -> None:
    host = "web.example.com"
    mine = ingress("shop", host, FIRST)
    assert owners(host, mine, ingress("aaa", host, LATER), ingress("zzz", host, LATER)) == {"shop/of-shop"}


def test_labels_of_another_namespaces_route_take_nothing() -> None:
    host = "web.example.com"
    forged = {"serving.knative.dev/route": "aaa", "serving.knative.dev/routeNamespace": "aaa"}
    assert owners(host, ingress("shop", host, FIRST), ingress("zzz", host, FIRST, forged)) == {"shop/of-shop"}


def test_a_host_inside_the_cluster_is_its_namespaces_even_if_another_was_there_before() -> None:
    for host in ("web.shop", "web.shop.svc", "web.shop.svc.cluster.local"):
        thief = ingress("aaa", host, FIRST)
        assert owners(host, thief) == {"aaa/of-aaa"}
        assert owners(host, thief, ingress("shop", host, LATER)) == {"shop/of-shop"}


def test_a_host_goes_to_the_next_oldest_when_its_owner_goes() -> None:
    host = "web.example.com"
    owned = [ingress("shop", host, FIRST), ingress("b", host, LATER), ingress("a", host, LATER)]
    table = RouteTable().changed({f"{each['metadata']['namespace']}/web": virtual_hosts(each) for each in owned})
    left = []
    while (vhost := table.find(host.encode())) is not None:
        left.append(vhost.name)
        table = table.changed({vhost.name: ()})
    assert left == ["shop/web", "a/web", "b/web"]


def test_an_ingress_is_found_by_its_own_name_whatever_route_its_labels_name() -> None:
    labels = {"serving.knative.dev/route": "other"}
    vhosts = virtual_hosts(ingress("shop", "web.example.com", FIRST, labels))
    table = RouteTable().changed({"shop/web": vhosts})
    assert [table.of(vhost.name) for vhost in vhosts] == [vhosts]

"""Routes: the Ingress of a service, and the gateway's table made of all Ingresses.

The Ingress has Knative's shape (networking.internal.knative.dev): a rule for the names inside the cluster and a
rule for each external host, each splitting over revisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import SERVICE_LABEL
from upwell.runtime.control.conditions import READY, StatusCondition, merge
from upwell.runtime.control.resources import owner_reference
from upwell.runtime.gateway.routes import Route, RouteTable, RouteTarget

SERVICE_PORT: Final = 80


def local_hosts(name: str, namespace: str) -> list[str]:
    """The names of a service inside a cluster."""
    return [f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]


def external_hosts(name: str, namespace: str, domains: Sequence[str]) -> list[str]:
    """The names of a service outside, by Knative's default domain template."""
    return [f"{name}.{namespace}.{domain}" for domain in domains]


def service_ingress(service: Manifest, revision: str, domains: Sequence[str]) -> Manifest:
    """The Ingress that sends all traffic of `service` to one of its revisions; inside only, without domains."""
    metadata = service["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    split = {
        "appendHeaders": {"Knative-Serving-Namespace": namespace, "Knative-Serving-Revision": revision},
        "percent": 100,
        "serviceName": revision,
        "serviceNamespace": namespace,
        "servicePort": SERVICE_PORT,
    }

    def rule(hosts: list[str], visibility: str) -> dict[str, Any]:
        return {"hosts": hosts, "http": {"paths": [{"splits": [split]}]}, "visibility": visibility}

    external = external_hosts(name, namespace, domains)
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                "serving.knative.dev/route": name,
                "serving.knative.dev/routeNamespace": namespace,
                SERVICE_LABEL: name,
            },
            "ownerReferences": [owner_reference(service)],
        },
        "spec": {
            "httpOption": "Enabled",
            "rules": [
                rule(local_hosts(name, namespace), "ClusterLocal"),
                *(rule([host], "ExternalIP") for host in external),
            ],
        },
    }


def is_external(ingress: Manifest) -> bool:
    """Whether an Ingress has a host outside the cluster."""
    return any(rule.get("visibility") != "ClusterLocal" for rule in ingress["spec"]["rules"])


def routed_revisions(ingress: Manifest) -> list[str]:
    """The names of the revisions that an Ingress sends traffic to, each once."""
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    return list(dict.fromkeys(split["serviceName"] for path in paths for split in path["splits"]))


def programmed_status(ingress: Manifest, generation: int, now: float) -> dict[str, Any]:
    """The status of an Ingress whose `generation` the gateway answers with."""
    conditions = [StatusCondition(type, "True") for type in ("LoadBalancerReady", "NetworkConfigured", READY)]
    return {"observedGeneration": generation, "conditions": merge(ingress, conditions, now)}


def route_table(routes_by_ingress: Iterable[Sequence[Route]], fallback_hosts: Sequence[str] = ()) -> RouteTable:
    """The gateway's table of the routes of all Ingresses. One that is alone has `fallback_hosts` as well."""
    ingresses = list(routes_by_ingress)
    routes = [route for ingress in ingresses for route in ingress]
    if len(ingresses) == 1:
        routes = [replace(route, hosts=(*route.hosts, *fallback_hosts)) for route in routes]
    return RouteTable(routes)


def ingress_routes(manifest: Manifest) -> list[Route]:
    """The routes of one Ingress. Rules that split alike are one route."""
    metadata = manifest["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    hosts_by_targets: dict[tuple[tuple[str, int], ...], list[str]] = {}
    splits_by_targets: dict[tuple[tuple[str, int], ...], list[dict[str, Any]]] = {}
    for rule in manifest["spec"]["rules"]:
        splits = rule["http"]["paths"][0]["splits"]
        key = tuple((f"{s['serviceNamespace']}/{s['serviceName']}", int(s.get("percent", 100))) for s in splits)
        hosts_by_targets.setdefault(key, []).extend(rule["hosts"])
        splits_by_targets[key] = splits
    routes = []
    for key, hosts in hosts_by_targets.items():
        targets = tuple(
            RouteTarget(revision, percent, _headers(split))
            for (revision, percent), split in zip(key, splits_by_targets[key], strict=True)
        )
        routes.append(Route(name, tuple(hosts), targets))
    return routes


def _headers(split: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    appended = split.get("appendHeaders", {})
    headers = [(name.lower().encode(), str(value).encode()) for name, value in appended.items()]
    return headers

"""Routes: the Ingress of a service, and the gateway's table made of all Ingresses.

The Ingress has Knative's shape (networking.internal.knative.dev): a rule for the names inside the cluster and a
rule for each external host, each splitting over revisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from upwell.runtime.cluster.deployments import owner_reference
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.gateway.routes import Route, RouteTable, RouteTarget

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
"""What a function that is alone on the platform answers to besides its own hosts."""
SERVICE_PORT: Final = 80


def local_hosts(name: str, namespace: str) -> list[str]:
    """The names of a service inside a cluster."""
    return [f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]


def external_hosts(name: str, namespace: str, domains: Sequence[str]) -> list[str]:
    """The names of a service outside, by Knative's default domain template."""
    return [f"{name}.{namespace}.{domain}" for domain in domains]


def service_ingress(service: Manifest, revision: str, domains: Sequence[str]) -> Manifest:
    """The Ingress that sends all traffic of `service` to one of its revisions."""
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
                "serving.knative.dev/service": name,
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


def route_table(ingresses: Iterable[Manifest]) -> RouteTable:
    """The gateway's table of all Ingresses. Rules of one Ingress that split alike are one route."""
    manifests = list(ingresses)
    routes = [route for manifest in manifests for route in _routes(manifest, alone=len(manifests) == 1)]
    return RouteTable(routes)


def _routes(manifest: Manifest, *, alone: bool) -> list[Route]:
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
        routes.append(Route(name, (*hosts, *(LOOPBACK_HOSTS if alone else ())), targets))
    return routes


def _headers(split: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    appended = split.get("appendHeaders", {})
    headers = [(name.lower().encode(), str(value).encode()) for name, value in appended.items()]
    return headers

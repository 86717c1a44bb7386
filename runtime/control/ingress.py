"""Routes: the Ingress of a service, and the gateway's virtual hosts made of an Ingress.

The Ingress has Knative's shape (networking.internal.knative.dev): a rule for the names inside the cluster and a
rule for each external host, each splitting over revisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.labels import SERVICE_LABEL
from upwell.runtime.control.conditions import READY, StatusCondition, merge
from upwell.runtime.control.resources import owner_reference
from upwell.runtime.gateway.routes import PathRule, RouteTarget, VirtualHost
from upwell.runtime.http.messages import Headers

SERVICE_PORT: Final = 80
ROUTE_LABEL: Final = "serving.knative.dev/route"
ROUTE_NAMESPACE_LABEL: Final = "serving.knative.dev/routeNamespace"
TAG_HEADER: Final = "Knative-Serving-Tag"
CLUSTER_LOCAL: Final = "ClusterLocal"


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


def routed_revisions(ingress: Manifest) -> list[str]:
    """The names of the revisions that an Ingress sends traffic to, each once."""
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    return list(dict.fromkeys(split["serviceName"] for path in paths for split in path["splits"]))


def programmed_status(ingress: Manifest, generation: int, now: float) -> dict[str, Any]:
    """The status of an Ingress whose `generation` the gateway answers with."""
    conditions = [StatusCondition(type, "True") for type in ("LoadBalancerReady", "NetworkConfigured", READY)]
    return {"observedGeneration": generation, "conditions": merge(ingress, conditions, now)}


def virtual_hosts(manifest: Manifest) -> tuple[VirtualHost, ...]:
    """The virtual hosts of one Ingress: rules of the same tag and visibility that do the same are one."""
    metadata, spec = manifest["metadata"], manifest["spec"]
    namespace = metadata["namespace"]
    labels = metadata.get("labels") or {}
    route = labels.get(ROUTE_LABEL) or metadata["name"]
    redirected = spec.get("httpOption") == "Redirected"
    grouped: list[tuple[str, bool, tuple[PathRule, ...], list[str]]] = []
    for rule in spec["rules"]:
        rules = tuple(_path_rule(path, namespace) for path in rule["http"]["paths"])
        key = (_tag(rule, route), rule.get("visibility") == CLUSTER_LOCAL, rules)
        hosts = next((each[3] for each in grouped if each[:3] == key), None)
        if hosts is None:
            grouped.append((*key, hosts := []))
        hosts.extend(rule["hosts"])
    name = f"{labels.get(ROUTE_NAMESPACE_LABEL) or namespace}/{route}"
    return tuple(
        VirtualHost(name, tuple(hosts), rules, tag, is_private=private, redirects=redirected and not private)
        for tag, private, rules, hosts in grouped
    )


def _tag(rule: dict[str, Any], route: str) -> str:
    """The tag whose hosts a rule is for, as its headers say where tags are read from headers, else its hosts."""
    for path in rule["http"]["paths"]:
        appended = path.get("appendHeaders") or {}
        if TAG_HEADER in appended and not path.get("headers"):
            return str(appended[TAG_HEADER])
    first = str(rule["hosts"][0]).partition(".")[0]
    return first.removesuffix(f"-{route}") if first.endswith(f"-{route}") else ""


def _path_rule(path: dict[str, Any], namespace: str) -> PathRule:
    appended: dict[str, Any] = path.get("appendHeaders") or {}
    headers: dict[str, dict[str, Any]] = path.get("headers") or {}
    rewritten = path.get("rewriteHost")
    targets = tuple(
        RouteTarget(
            f"{split.get('serviceNamespace') or namespace}/{split['serviceName']}",
            int(split.get("percent", 100)),
            _fields(appended | (split.get("appendHeaders") or {})),
        )
        for split in path["splits"]
    )
    matched = tuple((name.lower().encode(), str(match["exact"]).encode()) for name, match in headers.items())
    host = str(rewritten).encode() if rewritten else None
    return PathRule(str(path.get("path") or "/").encode(), matched, targets, host)


def _fields(appended: dict[str, Any]) -> Headers:
    values = {name.lower().encode(): str(value).encode() for name, value in appended.items()}
    return list(values.items())

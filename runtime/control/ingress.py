"""The gateway's virtual hosts made of an Ingress, and what is said of one that the gateway answers with.

An Ingress (networking.internal.knative.dev) is made for a Route, or written by hand; here they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.conditions import READY, StatusCondition, merge
from upwell.runtime.control.kingress import ROUTE_LABEL, TAG_HEADER
from upwell.runtime.gateway.routes import PathRule, RouteTarget, VirtualHost
from upwell.runtime.http.messages import Headers

CLUSTER_LOCAL: Final = "ClusterLocal"
HOSTS_TOLD: Final = 10
"""Of those that others have, in a status."""


def routed_revisions(ingress: Manifest) -> list[str]:
    """The names of the revisions that an Ingress sends traffic to, each once."""
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    return list(dict.fromkeys(split["serviceName"] for path in paths for split in path["splits"]))


def programmed_status(ingress: Manifest, generation: int, now: float) -> dict[str, Any]:
    """The status of an Ingress whose `generation` the gateway answers with."""
    conditions = [StatusCondition(type, "True") for type in ("LoadBalancerReady", "NetworkConfigured", READY)]
    return {"observedGeneration": generation, "conditions": merge(ingress, conditions, now)}


def unreadable_status(ingress: Manifest, generation: int, fault: str, now: float) -> dict[str, Any]:
    """The status of an Ingress whose `generation` holds what cannot be read."""
    return _failed_status(ingress, generation, "Invalid", fault, now)


def outclaimed_status(ingress: Manifest, generation: int, owners: Mapping[str, str], now: float) -> dict[str, Any]:
    """The status of an Ingress some of whose hosts others have: `owners` by host."""
    told = "; ".join(
        f"{host} belongs to the Ingress {owner}" for host, owner in sorted(owners.items())[:HOSTS_TOLD]
    )
    return _failed_status(ingress, generation, "HostTaken", told, now)


def _failed_status(ingress: Manifest, generation: int, reason: str, message: str, now: float) -> dict[str, Any]:
    conditions = [
        StatusCondition(type, "False", reason, message)
        for type in ("LoadBalancerReady", "NetworkConfigured", READY)
    ]
    return {"observedGeneration": generation, "conditions": merge(ingress, conditions, now)}


def virtual_hosts(manifest: Manifest, loopback_domains: Sequence[str] = ()) -> tuple[VirtualHost, ...]:
    """The virtual hosts of one Ingress: rules of the same tag and visibility that do the same are one.

    What answers outside answers below each of `loopback_domains` too: `NAME.NAMESPACE`, as inside, followed by it.
    """
    metadata, spec = manifest["metadata"], manifest["spec"]
    namespace = metadata["namespace"]
    labels = metadata.get("labels") or {}
    route = labels.get(ROUTE_LABEL) or metadata["name"]
    redirected = spec.get("httpOption") == "Redirected"
    grouped: list[tuple[str, bool, tuple[PathRule, ...], list[str]]] = []
    beside = _loopback_hosts(spec["rules"], loopback_domains)
    for index, rule in enumerate(spec["rules"]):
        rules = tuple(_path_rule(path, namespace) for path in rule["http"]["paths"])
        key = (_tag(rule, route), rule.get("visibility") == CLUSTER_LOCAL, rules)
        hosts = next((each[3] for each in grouped if each[:3] == key), None)
        if hosts is None:
            grouped.append((*key, hosts := []))
        hosts.extend((*(rule.get("hosts") or ()), *beside.get(index, ())))
    # Labels are whatever the author wrote: that of another's route would make these hosts pass for its.
    name, since = f"{namespace}/{metadata['name']}", str(metadata.get("creationTimestamp") or "")
    return tuple(
        VirtualHost(name, tuple(hosts), rules, tag, private, redirected and not private, since)
        for tag, private, rules, hosts in grouped
    )


def _loopback_hosts(rules: Sequence[dict[str, Any]], domains: Sequence[str]) -> dict[int, list[str]]:
    """For the first rule outside that follows one inside, its hosts below `domains` that no rule has, by index."""
    given = {host for rule in rules for host in rule.get("hosts") or ()}
    beside: dict[int, list[str]] = {}
    inside = ""
    for index, rule in enumerate(rules):
        hosts = rule.get("hosts") or ()
        if rule.get("visibility") == CLUSTER_LOCAL:
            inside = str(min(hosts, key=len, default=""))
        elif inside:
            beside[index] = [host for domain in domains if (host := f"{inside}.{domain}") not in given]
            inside = ""
    return beside


def _tag(rule: dict[str, Any], route: str) -> str:
    """The tag whose hosts a rule is for, as its headers say where tags are read from headers, else its hosts."""
    for path in rule["http"]["paths"]:
        appended = path.get("appendHeaders") or {}
        if TAG_HEADER in appended and not path.get("headers"):
            return str(appended[TAG_HEADER])
    first = str(next(iter(rule.get("hosts") or ()), "")).partition(".")[0]
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

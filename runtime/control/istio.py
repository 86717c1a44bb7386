"""What a cluster's Istio is told for an Ingress: VirtualServices and Gateways, as Knative's net-istio writes them.

Facts are from knative-extensions/net-istio (pkg/reconciler/ingress/resources, config/) and knative/networking
(pkg/ingress). Each path stands twice, first for the probe that finds out whether a gateway knows this version of
the Ingress: it carries the hash of the spec. Retries are empty, which turns Istio's own off; routes have no names
and no timeout. What depends on objects of a cluster (uids, copies of secrets) is left out or keeps its plain name.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from upwell.functions.api.names import LONGEST, child_name, is_dns_1123_label
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.ingress import CLUSTER_LOCAL, routed_revisions
from upwell.runtime.control.kingress import ROUTE_LABEL, ROUTE_NAMESPACE_LABEL
from upwell.runtime.control.resources import owner_reference

HASH_HEADER: Final = "K-Network-Hash"
PASSTHROUGH_HEADER: Final = "K-Passthrough-Lb"
INGRESS_LABEL: Final = "networking.internal.knative.dev/ingress"
EXTERNAL: Final = "ExternalIP"
MESH: Final = "mesh"
_CLUSTER_DOMAIN: Final = "cluster.local"
_LOCAL_SUFFIX: Final = f".svc.{_CLUSTER_DOMAIN}"
_SUFFIXES: Final = ("", f".{_CLUSTER_DOMAIN}", _LOCAL_SUFFIX)
_GATEWAY_SERVICE: Final = "istio-system/istio-ingressgateway"
_SELECTOR: Final[Mapping[str, str]] = {"istio": "ingressgateway"}
_PROVIDER_LABELS: Final[Mapping[str, str]] = {
    "app.kubernetes.io/component": "net-istio",
    "app.kubernetes.io/name": "knative-serving",
    "networking.knative.dev/ingress-provider": "istio",
}
# The order in which Go writes the fields: the hash depends on it.
_FIELD_ORDER: Final = (
    *("tls", "rules", "httpOption"),
    *("hosts", "visibility", "http", "paths"),
    *("path", "rewriteHost", "headers", "splits"),
    *("serviceNamespace", "serviceName", "servicePort", "percent", "appendHeaders"),
    *("secretName", "secretNamespace"),
)
_ORDERED: Final = {name: index for index, name in enumerate(_FIELD_ORDER)}


@dataclass(frozen=True, slots=True)
class IstioSettings:
    """The gateways of a cluster, `NAMESPACE/NAME` each, as config-istio names them."""

    external_gateways: tuple[str, ...] = ("knative-serving/knative-ingress-gateway",)
    local_gateways: tuple[str, ...] = ("knative-serving/knative-local-gateway",)
    pod_addressability: bool = False
    """Whether pods are called by their addresses (`enable-mesh-pod-addressability`): then each revision has a
    DestinationRule and a VirtualService for that."""


def shared_gateways() -> list[Manifest]:
    """The two Gateways that all Ingresses share, as net-istio installs them."""
    return [
        _shared_gateway("knative-ingress-gateway", 80),
        _shared_gateway("knative-local-gateway", 8081),
    ]


def _shared_gateway(name: str, port: int) -> Manifest:
    server = {"port": {"number": port, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return _object(
        "Gateway",
        {"name": name, "namespace": "knative-serving", "labels": dict(_PROVIDER_LABELS)},
        {"selector": dict(_SELECTOR), "servers": [server]},
    )


def ingress_objects(ingress: Manifest, settings: IstioSettings) -> list[Manifest]:
    """All that stands for one Ingress: its own Gateway, if it needs one, its VirtualServices, and with pod
    addressability what its revisions need."""
    own = ingress_gateways(ingress)
    objects = [*own, *virtual_services(ingress, settings, [_full_name(gateway) for gateway in own])]
    if settings.pod_addressability:
        namespace = ingress["metadata"]["namespace"]
        for revision in routed_revisions(ingress):
            objects += pod_addressable(revision, namespace)
    return objects


def ingress_gateways(ingress: Manifest) -> list[Manifest]:
    """The Gateway of an Ingress that answers outside with TLS or redirects to it; none for others."""
    metadata, spec = ingress["metadata"], ingress["spec"]
    certificates = spec.get("tls") or []
    public = [host for rule in spec["rules"] if _visibility(rule) == EXTERNAL for host in rule["hosts"]]
    redirects = spec.get("httpOption") == "Redirected"
    if not public or not (certificates or redirects):
        return []
    servers = sorted(
        (_tls_server(metadata, index, entry) for index, entry in enumerate(certificates)),
        key=lambda server: str(server["port"]["name"]),
    )
    plain: dict[str, Any] = {
        "hosts": sorted(set(public)),
        "port": {"name": "http-server", "number": 80, "protocol": "HTTP"},
    }
    if redirects:
        plain["tls"] = {"httpsRedirect": True}
    described = {
        "name": _gateway_name(metadata["name"]),
        "namespace": metadata["namespace"],
        "labels": {INGRESS_LABEL: metadata["name"]},
        **_owned(ingress),
    }
    return [_object("Gateway", described, {"selector": dict(_SELECTOR), "servers": [*servers, plain]})]


def _tls_server(metadata: Mapping[str, Any], index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    name = metadata["name"] if is_dns_1123_label(metadata["name"]) else str(_checksum(metadata["name"]))
    return {
        "hosts": list(entry.get("hosts") or []),
        "port": {"name": f"{metadata['namespace']}/{name}:{index}", "number": 443, "protocol": "HTTPS"},
        "tls": {
            "mode": "SIMPLE",
            "serverCertificate": "tls.crt",
            "privateKey": "tls.key",
            "credentialName": entry["secretName"],
            "minProtocolVersion": "TLSV1_2",
        },
    }


def _gateway_name(ingress: str) -> str:
    checksum = str(_checksum(_GATEWAY_SERVICE))
    prefix = ingress if is_dns_1123_label(ingress) else str(_checksum(ingress))
    return f"{prefix[: LONGEST - len(checksum) - 1]}-{checksum}"


def _checksum(text: str) -> int:
    return zlib.adler32(text.encode())


def virtual_services(
    ingress: Manifest, settings: IstioSettings, own_gateways: Sequence[str] = ()
) -> list[Manifest]:
    """The one for sidecars (`NAME-mesh`), where there are hosts inside the cluster, and the one for gateways
    (`NAME-ingress`). `own_gateways` are those of `ingress_gateways`, which then serve outside alone."""
    probed = with_probe(ingress)
    hosts = {host for rule in ingress["spec"]["rules"] for host in rule["hosts"]}
    found = []
    local = {host for host in hosts if host.endswith(_LOCAL_SUFFIX)}
    if local:
        mesh_hosts = expanded_hosts(local) if settings.local_gateways else local
        found.append(_virtual_service(probed, "-mesh", mesh_hosts, {EXTERNAL: (MESH,), CLUSTER_LOCAL: (MESH,)}))
    gateways = {
        EXTERNAL: tuple(own_gateways) or settings.external_gateways,
        CLUSTER_LOCAL: settings.local_gateways,
    }
    if any(gateways[_visibility(rule)] for rule in ingress["spec"]["rules"]):
        found.append(_virtual_service(probed, "-ingress", expanded_hosts(hosts), gateways))
    return found


def _virtual_service(
    ingress: Manifest, suffix: str, hosts: set[str], gateways: Mapping[str, Sequence[str]]
) -> Manifest:
    metadata = ingress["metadata"]
    routes = [
        _route(hosts.intersection(rule["hosts"]), path, gateways[_visibility(rule)])
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
        if not hosts.isdisjoint(rule["hosts"])
    ]
    used = {gateway for route in routes for match in route["match"] for gateway in match["gateways"]}
    left = (ROUTE_LABEL, ROUTE_NAMESPACE_LABEL)
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key not in left}
    described = {
        "name": child_name(metadata["name"], suffix),
        "namespace": metadata["namespace"],
        "labels": {**labels, INGRESS_LABEL: metadata["name"]},
        **({"annotations": dict(metadata["annotations"])} if metadata.get("annotations") else {}),
        **_owned(ingress),
    }
    spec = {"hosts": sorted(hosts), "gateways": sorted(used), "http": routes}
    return _object("VirtualService", described, spec)


def _route(hosts: set[str], path: Mapping[str, Any], gateways: Sequence[str]) -> dict[str, Any]:
    route: dict[str, Any] = {
        "match": [_match(host, path, gateways) for host in distinct_prefixes(hosts)],
        "route": [_destination(split) for split in path["splits"]],
        "retries": {},
    }
    if path.get("appendHeaders"):
        route["headers"] = _set_headers(path["appendHeaders"])
    if path.get("rewriteHost"):
        route["rewrite"] = {"authority": path["rewriteHost"]}
    return route


def _match(host: str, path: Mapping[str, Any], gateways: Sequence[str]) -> dict[str, Any]:
    match: dict[str, Any] = {"gateways": sorted(gateways), "authority": {"prefix": host}}
    if path.get("path"):
        match["uri"] = {"prefix": path["path"]}
    if path.get("headers"):
        match["headers"] = {name: {"exact": rule["exact"]} for name, rule in path["headers"].items()}
    return match


def _destination(split: Mapping[str, Any]) -> dict[str, Any]:
    port = split["servicePort"]
    destination: dict[str, Any] = {
        "destination": {
            "host": f"{split['serviceName']}.{split['serviceNamespace']}{_LOCAL_SUFFIX}",
            # A port that has a name counts as 0 there.
            "port": {"number": port if isinstance(port, int) else 0},
        },
        "weight": split.get("percent", 100),
    }
    if split.get("appendHeaders"):
        destination["headers"] = _set_headers(split["appendHeaders"])
    return destination


def _set_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {"request": {"set": dict(headers)}}


def expanded_hosts(hosts: Iterable[str]) -> set[str]:
    """The hosts with the shorter names that cluster DNS has for them; without those that Istio refuses."""
    shorter = {host.removesuffix(suffix) for host in hosts for suffix in _SUFFIXES if host.endswith(suffix)}
    return {host for host in shorter if _has_valid_top_level(host)}


def _has_valid_top_level(host: str) -> bool:
    last = host.rpartition(".")[2]
    return len(last) <= LONGEST and re.fullmatch(r"[0-9]*", last) is None


def distinct_prefixes(hosts: Iterable[str]) -> list[str]:
    """The least prefixes that begin all hosts: a host without its cluster's suffix also begins the longer ones."""
    found: list[str] = []
    for host in sorted(hosts):
        prefix = host.removesuffix(_LOCAL_SUFFIX)
        if not any(prefix.startswith(shorter) for shorter in found):
            found.append(prefix)
    return sorted(found)


def network_hash(ingress: Manifest) -> str:
    """The version of an Ingress that a probe asks a gateway for: Knative's hash of the spec and the name."""
    metadata = ingress["metadata"]
    text = json.dumps(_go_ordered(ingress["spec"]), separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(f"{text}{metadata['namespace']}{metadata['name']}".encode()).hexdigest()


def _go_ordered(value: Any, named: bool = False) -> Any:
    """JSON values with the fields in Go's order; `named` for a map, whose keys Go sorts."""
    if isinstance(value, list):
        return [_go_ordered(each) for each in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value) if named else sorted(value, key=lambda key: _ORDERED.get(key, len(_ORDERED)))
    return {key: _go_ordered(value[key], key in ("headers", "appendHeaders")) for key in keys}


def with_probe(ingress: Manifest) -> Manifest:
    """The Ingress with a copy of each path before the others, for requests that ask for its version."""
    version = network_hash(ingress)
    rules = []
    for rule in ingress["spec"]["rules"]:
        paths = rule["http"]["paths"]
        probes = [
            {
                **path,
                "headers": {**(path.get("headers") or {}), HASH_HEADER: {"exact": "override"}},
                "appendHeaders": {**(path.get("appendHeaders") or {}), HASH_HEADER: version},
            }
            for path in paths
        ]
        rules.append({**rule, "http": {"paths": [*probes, *paths]}})
    return {**ingress, "spec": {**ingress["spec"], "rules": rules}}


def pod_addressable(revision: str, namespace: str) -> list[Manifest]:
    """What lets a revision's pods be called one by one: a request with `K-Passthrough-Lb` goes where it was
    addressed, any other to the one with the fewest requests."""
    name = child_name(revision, "-private")
    host = f"{name}.{namespace}{_LOCAL_SUFFIX}"
    subsets = [
        {"name": subset, "trafficPolicy": {"loadBalancer": {"simple": algorithm}}}
        for subset, algorithm in (("normal", "LEAST_REQUEST"), ("direct", "PASSTHROUGH"))
    ]
    described = {"name": name, "namespace": namespace}

    def to(subset: str) -> dict[str, Any]:
        return {"route": [{"destination": {"host": host, "subset": subset}}]}

    direct = {"match": [{"headers": {PASSTHROUGH_HEADER: {"exact": "true"}}}], **to("direct")}
    return [
        _object("DestinationRule", described, {"host": host, "subsets": subsets}),
        _object(
            "VirtualService",
            {**described, "labels": {INGRESS_LABEL: revision}},
            {"hosts": [host], "http": [direct, to("normal")]},
        ),
    ]


def _visibility(rule: Mapping[str, Any]) -> str:
    return str(rule.get("visibility") or EXTERNAL)


def _owned(ingress: Manifest) -> dict[str, Any]:
    # An object that was never stored has no uid, and without one there can be no reference.
    return {"ownerReferences": [owner_reference(ingress)]} if ingress["metadata"].get("uid") else {}


def _full_name(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def _object(kind: str, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> Manifest:
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": kind,
        "metadata": dict(metadata),
        "spec": dict(spec),
    }

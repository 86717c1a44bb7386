"""Manifests as the Istio objects that a cluster makes of them, without a cluster: pure.

A Service is taken as it stands when it was just applied and is ready: its traffic goes to the revision of its
template. The ConfigMaps among the manifests decide hosts and tags, as on the platform.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from upwell.functions.api.asm import ASMLocalRateLimiter
from upwell.functions.api.core import ConfigMap
from upwell.functions.api.names import revision_name
from upwell.functions.api.networking import Ingress
from upwell.functions.api.serving import Service
from upwell.functions.errors import InvalidManifest
from upwell.functions.manifest import Manifest as Written
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.config import (
    CONFIG_NAMESPACE,
    NETWORK,
    ConfigLayers,
    check_config_map,
    platform_config,
)
from upwell.runtime.control.istio import IstioSettings, ingress_objects, shared_gateways
from upwell.runtime.control.istio_limits import envoy_filter
from upwell.runtime.control.kingress import IngressSettings, route_ingress
from upwell.runtime.control.rollout import Assigned, wanted_rollout
from upwell.runtime.control.service import service_route
from upwell.runtime.control.traffic import service_port

EXTERNAL_DOMAIN: Final = "example.com"
"""Knative's own, where no `config-domain` says otherwise."""
KINDS: Final = ("Service", "Ingress", "ASMLocalRateLimiter", "ConfigMap")
_NO_UID: Final = ""


class Rendered(NamedTuple):
    """The objects to apply, and what to warn of, as `WHERE: WHAT`."""

    objects: list[Manifest]
    warnings: list[str]


def render_istio(manifests: Sequence[Written]) -> Rendered:
    """The Gateways that all share, if anything routes, and what stands for each manifest, in their order.

    Raises InvalidManifest for the first manifest that is wrong or of another kind.
    """
    maps = _config_maps(manifests)
    ingress_settings = platform_config(maps, _LAYERS).ingress
    addressable = maps.get(NETWORK, {}).get("enable-mesh-pod-addressability", "").lower() == "true"
    settings = IstioSettings(pod_addressability=addressable)
    warnings: list[str] = []
    objects = [each for manifest in manifests for each in _objects(manifest, ingress_settings, settings, warnings)]
    routes = any(each["kind"] == "VirtualService" for each in objects)
    return Rendered([*shared_gateways(), *objects] if routes else objects, warnings)


_LAYERS: Final = ConfigLayers(domains=(EXTERNAL_DOMAIN,))


def _config_maps(manifests: Sequence[Written]) -> dict[str, Mapping[str, str]]:
    maps: dict[str, Mapping[str, str]] = {}
    for manifest in manifests:
        if manifest.kind == "ConfigMap":
            data = manifest.parse(ConfigMap).data or {}
            if manifest.namespace == CONFIG_NAMESPACE:
                for key, fault in check_config_map(manifest.name, data, _LAYERS).faults.items():
                    raise InvalidManifest(fault, where=manifest.where(("data", key)))
                maps[manifest.name] = data
    return maps


def _objects(
    manifest: Written, ingress_settings: IngressSettings, settings: IstioSettings, warnings: list[str]
) -> Iterator[Manifest]:
    match manifest.kind:
        case "Service":
            service = manifest.parse(Service).to_manifest()
            yield from ingress_objects(service_ingress(service, ingress_settings), settings)
        case "Ingress":
            yield from ingress_objects(manifest.parse(Ingress).to_manifest(), settings)
        case "ASMLocalRateLimiter":
            lifted, told = ASMLocalRateLimiter.lift(manifest.data)
            limiter = Written(lifted, manifest.source, manifest.lines).parse(ASMLocalRateLimiter)
            warnings.extend(f"{manifest.where(())}: {text}" for text in (*told, *limiter.warnings()))
            yield envoy_filter(limiter)
        case "ConfigMap":
            return
        case _:
            hint = f"Rendered are: {', '.join(KINDS)}."
            raise InvalidManifest(f"{manifest.kind} is not rendered", where=manifest.where(("kind",)), hint=hint)


def service_ingress(service: Manifest, settings: IngressSettings) -> Manifest:
    """The Ingress of a Service whose traffic is assigned to revisions that are all ready."""
    metadata = service["metadata"]
    route = service_route({**service, "metadata": {**metadata, "uid": metadata.get("uid") or _NO_UID}})
    traffic = [_assigned(service, target) for target in route["spec"]["traffic"]]
    route["metadata"] |= {"uid": _NO_UID}
    ingress = route_ingress(route, traffic, settings, wanted_rollout(traffic))
    # Its owner was never stored.
    stored = {key: value for key, value in ingress["metadata"].items() if key != "ownerReferences"}
    return {**ingress, "metadata": stored}


def _assigned(service: Manifest, target: Mapping[str, Any]) -> Assigned:
    metadata, template = service["metadata"], service["spec"]["template"]
    latest = (template.get("metadata") or {}).get("name")
    latest = latest or revision_name(metadata["name"], metadata.get("generation") or 1)
    name = target.get("revisionName")
    share, tag = target.get("percent") or 0, target.get("tag") or ""
    return Assigned(name or latest, metadata["name"], share, name is None, tag, service_port(template["spec"]))

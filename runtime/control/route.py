"""A Route and its Ingress: pure.

The Ingress is written when all targets are resolved, and holds the state of a gradual rollout, which moves with
time. A Route is Ready when the gateway answers with the Ingress of its present generation and no rollout is on its
way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.conditions import (
    READY,
    StatusCondition,
    find_for_generation,
    holds_for_generation,
    is_true,
    merge,
    summary,
)
from upwell.runtime.control.kingress import IngressSettings, host_names, route_ingress, url_of
from upwell.runtime.control.resources import is_controlled_by
from upwell.runtime.control.rollout import (
    NANOSECONDS,
    ROLLOUT_ANNOTATION,
    Rollout,
    Stepped,
    rollout_seconds,
    step,
    wanted_rollout,
)
from upwell.runtime.control.traffic import Known, Resolution, resolve, traffic_status
from upwell.runtime.control.writes import Verb, Write

INGRESS_READY: Final = "IngressReady"


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """What a Route depends on besides itself."""

    ingress: IngressSettings
    port: int
    """Of the gateway, for URLs. One of another scheme than http has none: what speaks that is not the gateway."""


@dataclass(frozen=True, slots=True)
class PlannedRoute:
    """What a look at a Route came to."""

    writes: Sequence[Write]
    """Of the Ingress; the status holds once they are done."""
    status: Mapping[str, Any]
    again_after: float | None
    """Seconds until the next step of a rollout."""


def plan_route(
    route: Manifest,
    ingress: Manifest | None,
    known: Known,
    settings: RouteSettings,
    now: float,
    *,
    former_owner: Manifest | None = None,
) -> PlannedRoute:
    """What to write for a Route whose targets are to be found in `known`.

    An Ingress that belongs to something else is left alone, but for `former_owner`: earlier versions stored it as
    the Service's.
    """
    resolution = resolve(route["spec"].get("traffic") or (), known)
    is_taken = ingress is not None and not _is_own(ingress, route, former_owner)
    own = None if is_taken else ingress
    stepped = _step(route, own, resolution, settings, now)
    writes: list[Write] = []
    if resolution.traffic and not is_taken:
        wanted = route_ingress(route, resolution.traffic, settings.ingress, stepped.rollout)
        writes = _ingress_writes(own, wanted)
    ready: StatusCondition | None = None
    if is_taken:
        message = f"There is an existing Ingress {route['metadata']['name']!r} that we do not own."
        ready = StatusCondition(INGRESS_READY, "False", "NotOwned", message)
    elif resolution.traffic and not stepped.rollout.is_done and own is not None:
        message = "A gradual rollout of the latest revision(s) is in progress."
        ready = StatusCondition(INGRESS_READY, "Unknown", "RolloutInProgress", message)
    elif resolution.traffic or own is not None:
        ready = _ingress_ready(own)
    again = None if stepped.next_step_at is None else max(0.0, stepped.next_step_at / NANOSECONDS - now)
    return PlannedRoute(writes, _status(route, resolution, stepped.rollout, ready, settings, now), again)


def _is_own(ingress: Manifest, route: Manifest, former_owner: Manifest | None) -> bool:
    owners = [owner for owner in (route, former_owner) if owner is not None]
    return any(is_controlled_by(ingress, owner) for owner in owners)


def _step(
    route: Manifest, ingress: Manifest | None, resolution: Resolution, settings: RouteSettings, now: float
) -> Stepped:
    annotations = (ingress or {"metadata": {}})["metadata"].get("annotations") or {}
    previous = Rollout.from_json(annotations.get(ROLLOUT_ANNOTATION))
    if not resolution.traffic:
        return Stepped(previous or Rollout(), None)
    became_ready = (
        ingress is not None and holds_for_generation(ingress, READY) and not is_true(route, INGRESS_READY)
    )
    duration = rollout_seconds(route["metadata"].get("annotations") or {}, settings.ingress.rollout_seconds)
    wanted = wanted_rollout(resolution.traffic)
    return step(previous, wanted, round(now * NANOSECONDS), duration, became_ready=became_ready)


def _ingress_writes(found: Manifest | None, wanted: Manifest) -> list[Write]:
    if found is None:
        return [Write(Verb.CREATE, wanted, "all targets of the route have a revision")]
    names = ("labels", "annotations", "ownerReferences")
    declared = {name: wanted["metadata"][name] for name in names}
    same = {name: found["metadata"].get(name) for name in names} == declared
    if same and found["spec"] == wanted["spec"]:
        return []
    changed = found | {"spec": wanted["spec"], "metadata": found["metadata"] | declared}
    return [Write(Verb.UPDATE, changed, "where it answers or what answers has changed")]


def _ingress_ready(ingress: Manifest | None) -> StatusCondition:
    ready = find_for_generation(ingress, READY) if ingress is not None else None
    if ready is None:
        message = "Ingress has not yet been reconciled."
        return StatusCondition(INGRESS_READY, "Unknown", "IngressNotConfigured", message)
    return ready._replace(type=INGRESS_READY)


def _status(
    route: Manifest,
    resolution: Resolution,
    rollout: Rollout,
    ingress_ready: StatusCondition | None,
    settings: RouteSettings,
    now: float,
) -> dict[str, Any]:
    """`ingress_ready` is None until traffic was assigned once: as in Knative nothing further is said till then."""
    parts = [resolution.condition, ingress_ready or StatusCondition(INGRESS_READY, "Unknown")]
    certificate = StatusCondition("CertificateProvisioned", "Unknown")
    address: dict[str, Any] = {}
    if ingress_ready is not None:
        certificate = StatusCondition(
            certificate.type, "True", "TLSNotEnabled", "external-domain-tls is not enabled"
        )
        hosts = host_names(route, "", settings.ingress)
        address = {"address": {"url": f"http://{hosts.local[-1]}"}}
    told = (route.get("status") or {}).get("traffic")
    if resolution.traffic:
        tags = {each.tag for each in resolution.traffic if each.tag}
        urls = {tag: _url(route, tag, settings) for tag in tags}
        told = traffic_status(resolution.traffic, rollout, urls)
    return {
        "observedGeneration": route["metadata"]["generation"],
        "conditions": merge(route, [*parts, certificate, summary(parts)], now),
        "url": _url(route, "", settings),
        **address,
        **({"traffic": told} if told else {}),
    }


def _url(route: Manifest, tag: str, settings: RouteSettings) -> str:
    return url_of(host_names(route, tag, settings.ingress), settings.ingress, settings.port)

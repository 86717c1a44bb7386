"""Which revisions the targets of a Route mean now, and what stands in the way: pure.

A target names a revision, which must be ready, or a configuration, whose latest ready revision it follows. One
that cannot be resolved leaves all traffic where it is; its condition says why, in Knative's words
(knative/serving, pkg/reconciler/route/traffic/traffic.go).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import CONFIGURATION, REVISION
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL
from upwell.runtime.control.conditions import READY, StatusCondition, find, is_true
from upwell.runtime.control.rollout import Assigned, Rollout

ALL_TRAFFIC_ASSIGNED: Final = "AllTrafficAssigned"


class Resolution(NamedTuple):
    """The targets as they are assigned; empty where the condition does not stand."""

    traffic: tuple[Assigned, ...]
    condition: StatusCondition


class Known(NamedTuple):
    """What may be referred to, by name."""

    configurations: Mapping[str, Manifest]
    revisions: Mapping[str, Manifest]


def resolve(targets: Sequence[Mapping[str, Any]], known: Known) -> Resolution:
    """What the `targets` of a Route's spec mean. The first that fails is told of, else the first that waits."""
    assigned: dict[tuple[str, str, bool], Assigned] = {}
    troubles = []
    for target in targets:
        found = _resolve(target, known)
        if isinstance(found, StatusCondition):
            troubles.append(found)
            continue
        same = assigned.get((found.tag, found.revision, found.latest))
        percent = found.percent + (same.percent if same is not None else 0)
        assigned[found.tag, found.revision, found.latest] = found._replace(percent=percent)
    failures = [trouble for trouble in troubles if trouble.status == "False"]
    if troubles:
        return Resolution((), (failures or troubles)[0])
    return Resolution(tuple(assigned.values()), StatusCondition(ALL_TRAFFIC_ASSIGNED, "True"))


def _resolve(target: Mapping[str, Any], known: Known) -> Assigned | StatusCondition:
    percent, tag = int(target.get("percent") or 0), str(target.get("tag") or "")
    if target.get("revisionName"):
        name = str(target["revisionName"])
        revision = known.revisions.get(name)
        if revision is None:
            return _missing("Revision", name)
        if not is_true(revision, READY):
            return _unready_revision(revision)
        owner = str((revision["metadata"].get("labels") or {}).get(CONFIGURATION_LABEL) or "")
        if owner and owner not in known.configurations:
            return _missing("Configuration", owner)
        return Assigned(name, owner, percent, False, tag, service_port(revision["spec"]))
    name = str(target.get("configurationName") or "")
    configuration = known.configurations.get(name)
    if configuration is None:
        return _missing("Configuration", name)
    latest = (configuration.get("status") or {}).get("latestReadyRevisionName")
    if latest is None:
        return _unready_configuration(configuration)
    if latest not in known.revisions:
        return _missing("Revision", latest)
    return Assigned(latest, name, percent, True, tag, service_port(known.revisions[latest]["spec"]))


def service_port(spec: Mapping[str, Any]) -> int:
    """The port of the service that stands for a revision: 81 where it speaks HTTP/2 in the clear, else 80."""
    ports = (port for container in spec.get("containers") or () for port in container.get("ports") or ())
    return 81 if any(port.get("name") == "h2c" for port in ports) else 80


def _missing(kind: str, name: str) -> StatusCondition:
    return StatusCondition(
        ALL_TRAFFIC_ASSIGNED, "False", f"{kind}Missing", f'{kind} "{name}" referenced in traffic not found.'
    )


def _unready_revision(revision: Manifest) -> StatusCondition:
    name, health = revision["metadata"]["name"], find(revision, READY)
    if health is not None and health.status == "False":
        message = f'Revision "{name}" failed to become ready.'
        return StatusCondition(ALL_TRAFFIC_ASSIGNED, "False", "RevisionMissing", message)
    return StatusCondition(
        ALL_TRAFFIC_ASSIGNED, "Unknown", "RevisionMissing", f'Revision "{name}" is not yet ready.'
    )


def _unready_configuration(configuration: Manifest) -> StatusCondition:
    name, health = configuration["metadata"]["name"], find(configuration, READY)
    if health is not None and health.status == "False":
        message = f'Configuration "{name}" does not have any ready Revision.'
        return StatusCondition(ALL_TRAFFIC_ASSIGNED, "False", "RevisionMissing", message)
    message = f'Configuration "{name}" is waiting for a Revision to become ready.'
    return StatusCondition(ALL_TRAFFIC_ASSIGNED, "Unknown", "RevisionMissing", message)


def traffic_status(traffic: Sequence[Assigned], rollout: Rollout, urls: Mapping[str, str]) -> list[dict[str, Any]]:
    """The `status.traffic` of a Route; `urls` has those of tags. A share that rolls out is several."""
    told: list[dict[str, Any]] = []
    for each in traffic:
        rolling = rollout.of("", each.configuration) if each.latest else None
        shares = [(each.revision, each.percent)]
        if rolling is not None and rolling.percent == each.percent and not rolling.is_done:
            shares = [(share.revision, share.percent) for share in rolling.revisions]
        for revision, percent in shares:
            entry: dict[str, Any] = {"latestRevision": each.latest, "percent": percent, "revisionName": revision}
            told.append(entry | ({"tag": each.tag, "url": urls[each.tag]} if each.tag else {}))
    return told


def targets_of(route: Manifest) -> list[ObjectKey]:
    """What a Route's spec refers to."""
    namespace = route["metadata"]["namespace"]
    keys = []
    for target in route["spec"].get("traffic") or ():
        kind, name = REVISION, target.get("revisionName")
        if not name:
            kind, name = CONFIGURATION, target.get("configurationName")
        if name:
            keys.append(ObjectKey(kind, namespace, name))
    return keys


def referred_revisions(
    targets: Sequence[Mapping[str, Any]], told: Sequence[Mapping[str, Any]], known: Known
) -> set[str]:
    """The revisions that a Route refers to, by its spec and its status; of a configuration whose latest it follows
    also the one that was made last, so that it may keep what it starts with."""
    names = {str(each["revisionName"]) for each in (*targets, *told) if each.get("revisionName")}
    for target in targets:
        configuration = known.configurations.get(str(target.get("configurationName") or ""))
        if configuration is not None and not target.get("revisionName"):
            status = configuration.get("status") or {}
            made = (status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName"))
            names |= {str(name) for name in made if name}
    return names & known.revisions.keys()


def referred_configurations(targets: Sequence[Mapping[str, Any]], revisions: set[str], known: Known) -> set[str]:
    """The configurations that a Route refers to, by name or by a revision of theirs."""
    names = {str(target["configurationName"]) for target in targets if target.get("configurationName")}
    for name in revisions:
        names.add(str((known.revisions[name]["metadata"].get("labels") or {}).get(CONFIGURATION_LABEL) or ""))
    return names & known.configurations.keys()

"""What `get` shows of each kind: the columns that kubectl and Knative's printer columns have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from upwell.runtime.api.resources import DESTINATION_RULE, VIRTUAL_SERVICE
from upwell.runtime.cli.table import age
from upwell.runtime.cluster.kinds import (
    CONFIG_MAP,
    CONFIGURATION,
    DEPLOYMENT,
    INGRESS,
    NAMESPACE,
    REVISION,
    ROUTE,
    SERVICE,
)
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL, GENERATION_LABEL
from upwell.runtime.control.conditions import READY, find

Object = Mapping[str, Any]


class Column(NamedTuple):
    """A header and what stands below it; `wide` ones only with `-o wide`."""

    header: str
    cell: Callable[[Object], object]
    wide: bool = False


AGE: Final = "AGE"
"""Its cell depends on the time and not on the object alone."""


def columns(kind: str, *, wide: bool, with_namespace: bool, told: Callable[[str], str] = str) -> list[Column]:
    """The columns of a kind's table; `told` is how a name is."""
    namespace = [Column("NAMESPACE", lambda o: o["metadata"].get("namespace", ""))] if with_namespace else []
    own = [column for column in _COLUMNS.get(kind, _POLICY) if wide or not column.wide]
    return [*namespace, Column("NAME", lambda o: told(o["metadata"]["name"])), *own]


def row(chosen: Sequence[Column], manifest: Object, now: float) -> list[str]:
    """The cells of one object; what it does not say is left blank, as kubectl does."""
    created = manifest["metadata"].get("creationTimestamp")
    cells = (age(created, now) if each.header == AGE else each.cell(manifest) for each in chosen)
    return ["" if cell is None else str(cell) for cell in cells]


def _nothing(manifest: Object) -> None:
    return None


def _status(name: str) -> Callable[[Object], object]:
    return lambda manifest: manifest.get("status", {}).get(name)


def _label(name: str) -> Callable[[Object], object]:
    return lambda manifest: manifest["metadata"].get("labels", {}).get(name)


def _ready(manifest: Object) -> str:
    condition = find(dict(manifest), READY)
    return condition.status if condition else ""


def _reason(manifest: Object) -> str:
    condition = find(dict(manifest), READY)
    return condition.reason if condition else ""


def _ready_of_wanted(manifest: Object) -> str:
    return f"{_count(manifest, 'readyReplicas')}/{manifest['spec'].get('replicas', 0)}"


def _available(manifest: Object) -> int:
    return _count(manifest, "readyReplicas")


def _count(manifest: Object, name: str) -> int:
    return int(manifest.get("status", {}).get(name) or 0)


def _image(manifest: Object) -> object:
    spec = manifest["spec"].get("template", {}).get("spec", manifest["spec"])
    return ",".join(container.get("image", "") for container in spec.get("containers", ()))


def _annotation(name: str) -> Callable[[Object], object]:
    return lambda manifest: (manifest["metadata"].get("annotations") or {}).get(name)


def _spec(name: str) -> Callable[[Object], object]:
    def cell(manifest: Object) -> object:
        value = manifest["spec"].get(name)
        return ",".join(map(str, value)) if isinstance(value, list) else value

    return cell


def _hosts(manifest: Object) -> str:
    """Where an Ingress answers from outside; a private one, where it does inside."""
    rules = manifest["spec"].get("rules") or ()
    outside = [rule for rule in rules if rule.get("visibility") != "ClusterLocal"]
    hosts = [host for rule in outside or rules for host in rule.get("hosts") or ()]
    return ",".join(dict.fromkeys(hosts))


def splits(path: Mapping[str, Any]) -> str:
    """How a path of an Ingress is shared, in one line."""
    return ",".join(f"{split['serviceName']}={split.get('percent', 100)}%" for split in path["splits"])


def _main_splits(manifest: Object) -> str:
    rules = manifest["spec"].get("rules") or ()
    return splits(rules[0]["http"]["paths"][-1]) if rules else ""


def traffic(manifest: Object) -> str:
    """Which revisions have how much of a Service's or a Route's traffic, in one line."""
    shares = manifest.get("status", {}).get("traffic") or ()
    told = (f"{share.get('revisionName', '')}={share.get('percent', 0)}%" for share in shares)
    return ",".join(told)


_AGE: Final = Column(AGE, _nothing)
_POLICY: Final = (Column("READY", _ready), Column("REASON", _reason), _AGE)
"""Of a kind that has no columns of its own."""
_COLUMNS: Final[Mapping[str, Sequence[Column]]] = {
    SERVICE: (
        Column("URL", _status("url")),
        Column("LATESTCREATED", _status("latestCreatedRevisionName")),
        Column("LATESTREADY", _status("latestReadyRevisionName")),
        Column("READY", _ready),
        Column("REASON", _reason),
        Column("TRAFFIC", traffic, wide=True),
        Column("IMAGE", _image, wide=True),
        _AGE._replace(wide=True),
    ),
    REVISION: (
        Column("CONFIG NAME", _label(CONFIGURATION_LABEL)),
        Column("GENERATION", _label(GENERATION_LABEL)),
        Column("READY", _ready),
        Column("REASON", _reason),
        Column("ACTUAL REPLICAS", _status("actualReplicas")),
        Column("DESIRED REPLICAS", _status("desiredReplicas")),
        Column("IMAGE", _image, wide=True),
        _AGE._replace(wide=True),
    ),
    DEPLOYMENT: (
        Column("READY", _ready_of_wanted),
        Column("AVAILABLE", _available),
        _AGE,
        Column("IMAGE", _image, wide=True),
    ),
    CONFIGURATION: (
        Column("LATESTCREATED", _status("latestCreatedRevisionName")),
        Column("LATESTREADY", _status("latestReadyRevisionName")),
        Column("READY", _ready),
        Column("REASON", _reason),
        Column("IMAGE", _image, wide=True),
        _AGE._replace(wide=True),
    ),
    ROUTE: (
        Column("URL", _status("url")),
        Column("READY", _ready),
        Column("REASON", _reason),
        Column("TRAFFIC", traffic),
        _AGE._replace(wide=True),
    ),
    INGRESS: (
        Column("READY", _ready),
        Column("REASON", _reason),
        Column("HOSTS", _hosts),
        Column("TRAFFIC", _main_splits, wide=True),
        Column("CLASS", _annotation("networking.knative.dev/ingress.class"), wide=True),
        _AGE._replace(wide=True),
    ),
    DESTINATION_RULE: (Column("HOST", _spec("host")), Column("READY", _ready), Column("REASON", _reason), _AGE),
    VIRTUAL_SERVICE: (
        Column("GATEWAYS", _spec("gateways")),
        Column("HOSTS", _spec("hosts")),
        Column("READY", _ready),
        Column("REASON", _reason),
        _AGE,
    ),
    CONFIG_MAP: (Column("DATA", lambda o: len(o.get("data") or {})), _AGE),
    NAMESPACE: (_AGE,),
}

"""Which replicas a request may go to, by where they stand and how many are out: shares of the traffic.

Istio's localityLbSetting and Envoy's priorities. Without shares that the rule asks for (`distribute`), replicas
fall into tiers: the gateway's own locality first, then its zone, its region, the rest (or by the labels of
`failoverPriority`). A tier takes what it is fit for: 100 % while 1.4 times its healthy part covers it, else that
much; the next tier takes what is left. So nothing leaves the own zone until more than 2 of 7 of its replicas are
out. As in Istio, tiers need outlierDetection; with it they are there unless `enabled: false`, as a mesh has it
by default.

Panic: where fewer are healthy than `minHealthPercent` and no tier makes up for it, those that are out get
requests too. All that is out gets them as well when nothing else is left, unless the rule says that requests are
to fail then.

Pure: made anew when replicas come, go, are ejected or return, not for each request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from upwell.functions.api.traffic_policy import (
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
    Distribute,
    LocalityLbSetting,
)
from upwell.runtime.mesh.outlier_detection import OutlierRule

OVERPROVISIONING_PERCENT: Final = 140
"""Envoy's overprovisioning factor: how much of its load a replica can take on in the place of others."""
OTHER_REGION: Final = 3
TIERS_OF_LOCALITY: Final = 5


class Host(Protocol):
    """A replica as balancing sees it."""

    @property
    def name(self) -> str:
        """Unique within its revision."""
        ...

    @property
    def locality(self) -> str:
        """`REGION/ZONE/SUBZONE`, or less of it."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that it is answering for this gateway."""
        ...

    @property
    def ready_at(self) -> float:
        """Monotonic seconds."""
        ...

    @property
    def suspensions(self) -> int:
        """Above 0 it takes nothing at the moment."""
        ...


H = TypeVar("H", bound=Host)


class Locality(NamedTuple):
    """A place; parts that are not known are empty."""

    region: str = ""
    zone: str = ""
    subzone: str = ""

    @classmethod
    def read(cls, text: str) -> Locality:
        """`REGION/ZONE/SUBZONE`, or less of it."""
        return cls(*text.split("/")[:3])

    def is_within(self, pattern: str) -> bool:
        """Whether a rule's `region/zone/*` or `region/*` or `*` means this place."""
        named = Locality.read(pattern)
        zone_agrees = named.zone in ("", "*", self.zone)
        return named.region in ("*", self.region) and zone_agrees and named.subzone in ("", "*", self.subzone)

    def distance(self, other: Locality) -> int:
        """0 in the same place, 1 in the same zone, 2 in the same region, 3 elsewhere."""
        if self.region != other.region:
            return OTHER_REGION
        if self.zone != other.zone:
            return 2
        return 0 if self.subzone == other.subzone else 1

    @property
    def labels(self) -> dict[str, str]:
        """The same as Kubernetes labels a node."""
        return {REGION_LABEL: self.region, ZONE_LABEL: self.zone, SUBZONE_LABEL: self.subzone}


@dataclass(frozen=True, slots=True)
class Standpoint:
    """Where the gateway stands, and what it is labelled with for `failoverPriority`."""

    locality: Locality = field(default_factory=Locality)
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Share(Generic[H]):
    """Replicas that get a part of the traffic."""

    name: str
    """What they have in common, in words."""
    hosts: tuple[H, ...]
    percent: float
    is_panic: bool = False
    """Whether replicas that are out are among them."""

    def without(self, names: Collection[str]) -> Share[H]:
        """The share without the replicas of these names."""
        return replace(self, hosts=tuple(host for host in self.hosts if host.name not in names))


@dataclass(frozen=True, slots=True)
class Spread(Generic[H]):
    """How the traffic is spread: shares in the order in which they stand in for each other, 100 % together.

    A share of 0 % is there to be spilled over to.
    """

    shares: tuple[Share[H], ...]
    reason: str
    is_unhealthy: bool = False
    """Every replica is out, and the rule says that requests are to fail then."""


class _Group(NamedTuple, Generic[H]):
    """Replicas of one tier or of one locality with a weight."""

    name: str
    hosts: tuple[H, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class Placement:
    """What of a rule decides where requests go."""

    outlier: OutlierRule | None
    locality: LocalityLbSetting | None
    standpoint: Standpoint
    labels: Mapping[str, str]
    """Of the revision's replicas."""

    def spread(self, hosts: Sequence[H], ejected: Collection[str]) -> Spread[H]:
        """How traffic is spread over `hosts`, of which those named `ejected` are out."""
        if not hosts:
            return Spread((), "there is no replica")
        weighted = self._weighted(hosts)
        if weighted:
            return self._by_weight(weighted, ejected)
        return self._by_tier(self._tiers(hosts), ejected)

    @property
    def _is_enabled(self) -> bool:
        return self.locality is None or self.locality.enabled is not False

    def _weighted(self, hosts: Sequence[H]) -> list[_Group[H]]:
        """Localities with the weights of the first `distribute` that is for this gateway; none without one, or
        where no replica stands in any of its localities: one that is alone there must answer all the same."""
        if self.locality is None or not self._is_enabled:
            return []
        here = self.standpoint.locality
        for distribute in self.locality.distribute or ():
            if here.is_within(distribute.from_):
                return _distributed(distribute, hosts)
        return []

    def _tiers(self, hosts: Sequence[H]) -> list[_Group[H]]:
        here = self.standpoint.locality
        setting = self.locality or LocalityLbSetting()
        uses_labels = bool(setting.failover_priority)
        has_place = bool(here.region or (uses_labels and self.standpoint.labels))
        if self.outlier is None or not self._is_enabled or setting.distribute or not (has_place or uses_labels):
            return [_Group("all replicas", tuple(hosts), 0)]
        tiers: dict[int, list[H]] = {}
        for host in hosts:
            tiers.setdefault(self._tier(setting, Locality.read(host.locality)), []).append(host)
        return [_Group(_tier_name(setting, tier), tuple(tiers[tier]), 0) for tier in sorted(tiers)]

    def _tier(self, setting: LocalityLbSetting, there: Locality) -> int:
        """The lower, the sooner it is used."""
        if not setting.failover_priority:
            return self._distance(setting, there)
        tier = _label_tier(setting.failover_priority, self._own_labels, {**self.labels, **there.labels})
        return tier * TIERS_OF_LOCALITY + self._distance(setting, there) if setting.failover else tier

    @property
    def _own_labels(self) -> dict[str, str]:
        return {**self.standpoint.labels, **self.standpoint.locality.labels}

    def _distance(self, setting: LocalityLbSetting, there: Locality) -> int:
        here = self.standpoint.locality
        distance = here.distance(there)
        if distance == OTHER_REGION:
            targets = [failover.to for failover in setting.failover or () if failover.from_ == here.region]
            if targets and there.region != targets[0]:
                return OTHER_REGION + 1
        return distance

    def _by_tier(self, tiers: Sequence[_Group[H]], ejected: Collection[str]) -> Spread[H]:
        counts = [(sum(host.name not in ejected for host in tier.hosts), len(tier.hosts)) for tier in tiers]
        loads = tier_loads(counts, self.outlier.min_health_percent if self.outlier else 0)
        if loads is None:
            return self._nothing_left(tiers)
        shares = [
            _share(tier, ejected, load.percent, is_panic=load.is_panic)
            for tier, load in zip(tiers, loads, strict=True)
        ]
        return Spread(tuple(share for share in shares if share.hosts), _told(shares))

    def _by_weight(self, groups: Sequence[_Group[H]], ejected: Collection[str]) -> Spread[H]:
        """As Envoy weighs localities: what falls away where many are out goes to the others in proportion."""
        hosts = [host for group in groups for host in group.hosts]
        healthy = sum(host.name not in ejected for host in hosts)
        loads = tier_loads([(healthy, len(hosts))], self.outlier.min_health_percent if self.outlier else 0)
        if loads is None:
            return self._nothing_left(groups)
        is_panic = loads[0].is_panic
        kept = [_share(group, ejected, group.weight, is_panic=is_panic) for group in groups]
        weights = [
            share.percent * min(1.0, OVERPROVISIONING_PERCENT / 100 * len(share.hosts) / len(group.hosts))
            for share, group in zip(kept, groups, strict=True)
        ]
        total = sum(weights)
        shares = [
            Share(share.name, share.hosts, 100 * weight / total, is_panic)
            for share, weight in zip(kept, weights, strict=True)
            if share.hosts
        ]
        shares.sort(key=lambda share: -share.percent)
        return Spread(tuple(shares), _told(shares))

    def _nothing_left(self, groups: Sequence[_Group[H]]) -> Spread[H]:
        if self.outlier is not None and self.outlier.may_eject_all:
            reason = "every replica is ejected, maxEjectionPercent is 100 and minHealthPercent 0"
            return Spread((), reason, is_unhealthy=True)
        hosts = tuple(host for group in groups for host in group.hosts)
        share = Share("all replicas", hosts, 100.0, is_panic=True)
        return Spread((share,), "every replica is ejected, and the rule does not say that requests fail then")


class TierLoad(NamedTuple):
    """What a tier takes."""

    percent: int
    is_panic: bool


def tier_loads(counts: Sequence[tuple[int, int]], min_health_percent: int) -> list[TierLoad] | None:
    """The percentages of tiers, given their healthy and all replicas, best first; None when nothing is healthy and
    nothing is said of panic. Percentages are whole ones, as in Envoy (load_balancer_impl.cc)."""
    health = [min(100, OVERPROVISIONING_PERCENT * healthy // total) if total else 0 for healthy, total in counts]
    available = min(100, sum(health))
    if available == 0 and min_health_percent == 0:
        return None
    panics = [
        available < 100 and (100 * healthy / total if total else 0.0) < min_health_percent
        for healthy, total in counts
    ]
    if all(panics):
        return [TierLoad(percent, True) for percent in _in_proportion([total for _, total in counts])]
    left, percents = 100, list[int]()
    for each in health:
        percents.append(min(left, each * 100 // available))
        left -= percents[-1]
    percents[next(index for index, each in enumerate(health) if each)] += left
    return [TierLoad(percent, panic) for percent, panic in zip(percents, panics, strict=True)]


def _in_proportion(counts: Sequence[int]) -> list[int]:
    total = sum(counts)
    percents = [100 * count // total for count in counts]
    percents[next(index for index, count in enumerate(counts) if count)] += 100 - sum(percents)
    return percents


def _share(group: _Group[H], ejected: Collection[str], percent: float, *, is_panic: bool) -> Share[H]:
    hosts = group.hosts if is_panic else tuple(host for host in group.hosts if host.name not in ejected)
    return Share(group.name, hosts, percent, is_panic)


def _distributed(distribute: Distribute, hosts: Sequence[H]) -> list[_Group[H]]:
    """Replicas by locality, each with its part of the weight of the entry that it is within, by its size."""
    places: dict[str, list[H]] = {}
    for host in hosts:
        places.setdefault(host.locality, []).append(host)
    groups: list[_Group[H]] = []
    for pattern, weight in distribute.to.items():
        within = {name: found for name, found in places.items() if Locality.read(name).is_within(pattern)}
        total = sum(len(found) for found in within.values())
        for name, found in within.items():
            del places[name]
            groups.append(_Group(name or "no locality", tuple(found), ceil(weight * len(found) / total)))
    return groups


def _label_tier(priorities: Sequence[str], own: Mapping[str, str], labels: Mapping[str, str]) -> int:
    """0 where all labels agree, one more for each at the end that does not count since one before it differs."""
    for index, priority in enumerate(priorities):
        label, equals, value = priority.partition("=")
        wanted = value if equals else own.get(label, "")
        if wanted != labels.get(label, ""):
            return len(priorities) - index
    return 0


_DISTANCES: Final = ("own locality", "own zone", "own region", "other region", "region without failover")


def _tier_name(setting: LocalityLbSetting, tier: int) -> str:
    if not setting.failover_priority:
        return _DISTANCES[tier]
    return f"failover priority {tier // TIERS_OF_LOCALITY if setting.failover else tier}"


def _told(shares: Sequence[Share[H]]) -> str:
    return ", ".join(
        f"{share.name} {share.percent:g} %{' in panic' if share.is_panic else ''}"
        for share in shares
        if share.hosts
    )

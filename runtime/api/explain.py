"""Gathers why revisions stand where they do: the platform's side of `upwell explain`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from upwell.autoscaler.decision import Decision
from upwell.autoscaler.outlook import outlook
from upwell.autoscaler.spec import RevisionSettings
from upwell.functions.errors import Unavailable
from upwell.runtime.api.explanation import Explained, Explanation, Point, ReplicaStart
from upwell.runtime.api.resources import missing
from upwell.runtime.cluster.interface import Manifest, ObjectKey, ObjectStore, Replica
from upwell.runtime.cluster.kinds import REVISION, SERVICE
from upwell.runtime.cluster.labels import SERVICE_LABEL
from upwell.runtime.control.conditions import READY, find
from upwell.runtime.control.revision import SCALING_AS_DECLARED


class Points(Protocol):
    """A series over time: sequences of one length, oldest first. Of load NaN, of want -1 when unknown."""

    @property
    def times(self) -> Iterable[float]:
        """Unix seconds."""
        ...

    @property
    def load(self) -> Iterable[float]:
        """The metric over the short window, summed over all replicas."""
        ...

    @property
    def want(self) -> Iterable[float]:
        """Replicas wanted."""
        ...

    @property
    def ready(self) -> Iterable[float]:
        """Replicas that serve."""
        ...


class Decisions(Protocol):
    """What was decided for revisions, each named "namespace/name"."""

    def latest(self, key: str) -> Decision | None:
        """The decision that holds."""
        ...

    def history(self, key: str) -> Sequence[Decision]:
        """Those that brought something new, oldest first."""
        ...

    def series(self, key: str) -> Points:
        """Load, want and ready over time, of a revision that is known."""
        ...

    def settings(self, key: str) -> RevisionSettings | None:
        """Under which it is decided."""
        ...


class Started(Protocol):
    """A replica that became ready."""

    @property
    def ready_at(self) -> float:
        """Unix seconds."""
        ...

    @property
    def seconds(self) -> float:
        """That its start took."""
        ...


class Explaining(Protocol):
    """The autoscaler, as far as it can be asked why."""

    @property
    def engine(self) -> Decisions:
        """What was decided."""
        ...

    def starts(self, revision: str) -> Sequence[Started]:
        """The latest starts of replicas of a revision."""
        ...


class Explainable(Protocol):
    """What is asked of a platform."""

    @property
    def objects(self) -> ObjectStore:
        """Its objects."""
        ...

    @property
    def autoscaler(self) -> Explaining:
        """Who decides."""
        ...

    @property
    def cluster(self) -> Replicas:
        """Its replicas."""
        ...


class Replicas(Protocol):
    """Where the replicas are known."""

    def replicas(self, revision: str) -> tuple[Replica, ...]:
        """The replicas of a revision that are not gone."""
        ...


async def explain(
    platform: Explainable, namespace: str, name: str, kind: str | None, now: float, since: float | None
) -> Explained:
    """The revisions of the Service `name`, or the Revision of that name, at `now` (Unix seconds).

    `kind` is one of both, None when it is not said; then a Service comes first. What is older than `since` seconds
    is left out. Raises NotFound, and Unavailable when nothing was decided for any of them.
    """
    service = await platform.objects.get(ObjectKey(SERVICE, namespace, name)) if kind != REVISION else None
    if service is not None:
        revisions = await _serving(platform, service)
        shares = _shares(service)
    else:
        revision = await platform.objects.get(ObjectKey(REVISION, namespace, name)) if kind != SERVICE else None
        if revision is None:
            raise missing(kind or SERVICE, namespace, name)
        revisions = [revision]
        shares = await _shares_of_owner(platform.objects, revision)
    begin = -math.inf if since is None else now - since
    found = [_explanation(platform.autoscaler, each, shares, begin) for each in revisions]
    explained = tuple(each for each in found if each is not None)
    if not explained:
        raise _undecided(revisions, service, name)
    return Explained(now, explained)


async def _serving(platform: Explainable, service: Manifest) -> list[Manifest]:
    """The revisions that have replicas or traffic, else the one made last; newest last."""
    metadata, status = service["metadata"], service.get("status", {})
    found = await platform.objects.list(REVISION, metadata["namespace"], labels={SERVICE_LABEL: metadata["name"]})
    shares = _shares(service)
    chosen = [
        each for each in found if shares.get(each["metadata"]["name"]) or platform.cluster.replicas(_name(each))
    ]
    latest = status.get("latestCreatedRevisionName")
    return chosen or [each for each in found if each["metadata"]["name"] == latest]


async def _shares_of_owner(objects: ObjectStore, revision: Manifest) -> Mapping[str, int]:
    metadata = revision["metadata"]
    owner = metadata.get("labels", {}).get(SERVICE_LABEL)
    service = owner and await objects.get(ObjectKey(SERVICE, metadata["namespace"], owner))
    return _shares(service) if service else {}


def _shares(service: Manifest) -> Mapping[str, int]:
    """Percent of the traffic by revision."""
    shares: dict[str, int] = {}
    for each in service.get("status", {}).get("traffic") or ():
        name = each.get("revisionName", "")
        shares[name] = shares.get(name, 0) + (each.get("percent") or 0)
    return shares


def _explanation(
    autoscaler: Explaining, revision: Manifest, shares: Mapping[str, int], begin: float
) -> Explanation | None:
    """None when nothing was decided for it."""
    key, engine = _name(revision), autoscaler.engine
    latest, settings = engine.latest(key), engine.settings(key)
    if latest is None or settings is None:
        return None
    metadata = revision["metadata"]
    points, starts = _points(engine.series(key)), autoscaler.starts(key)
    return Explanation(
        namespace=metadata["namespace"],
        revision=metadata["name"],
        service=metadata.get("labels", {}).get(SERVICE_LABEL, ""),
        percent=shares.get(metadata["name"], 0),
        settings=settings,
        latest=latest,
        outlook=outlook(settings, latest),
        history=_since(begin, engine.history(key)),
        ready_since=_ready_since(latest.ready, points, starts),
        series=tuple(each for each in points if each.at >= begin),
        starts=tuple(ReplicaStart(each.ready_at, each.seconds) for each in starts if each.ready_at >= begin),
        notes=tuple(each.message for each in (find(revision, SCALING_AS_DECLARED),) if each and each.message),
    )


def _since(begin: float, history: Sequence[Decision]) -> tuple[Decision, ...]:
    """Those from `begin` on, and before them the one that held then."""
    before = [each for each in history if each.at < begin]
    return (*before[-1:], *history[len(before) :])


def _points(series: Points) -> list[Point]:
    rows = zip(series.times, series.load, series.want, series.ready, strict=True)
    return [
        Point(
            float(at),
            float(load) if math.isfinite(load) else None,
            int(want) if want >= 0 else None,
            int(ready),
        )
        for at, load, want, ready in rows
    ]


def _ready_since(ready: int, points: Sequence[Point], starts: Sequence[Started]) -> float | None:
    """From when on as many were ready as now; None when it was so all along, or is so only now.

    The points of a series are seconds apart; what started between two of them did so before the later one.
    """
    first = None
    for each in reversed(points):
        if each.ready != ready:
            between = (one.ready_at for one in starts if first is not None and each.at < one.ready_at <= first)
            return max(between, default=first)
        first = each.at
    return None


def _undecided(revisions: Sequence[Manifest], service: Manifest | None, name: str) -> Unavailable:
    """What is known of why: the condition that is not met."""
    kind = REVISION if service is None else SERVICE
    conditions = [find(each, READY) for each in (*revisions, *([service] if service else ()))]
    told = [each.message or each.reason for each in conditions if each is not None and each.status != "True"]
    hint = next(filter(None, told), None) or "Decisions come every two seconds from when a revision is known."
    return Unavailable("nothing was decided yet", where=f"{kind.lower()}/{name}", hint=hint)


def _name(revision: Manifest) -> str:
    metadata = revision["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"

"""What the interface tells of decisions: what it takes, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import KeptPoints, Served, served, service
from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, Decision, Inputs, Status
from upwell.autoscaler.spec import RevisionSettings
from upwell.functions.errors import InvalidInput, NotFound, Unavailable
from upwell.runtime.api.explanation import Explained, ReplicaStart
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.kinds import REVISION, SERVICE

KEY = "default/hello-00001"
SETTINGS = RevisionSettings()


@pytest.fixture
def interface(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        yield running


def decided(load: float, ready: int, now: float) -> Decision:
    wished = kpa.decide(SETTINGS, kpa.start(SETTINGS, 0, now), Inputs(load, load, ready), now)
    return bounds.bound(
        SETTINGS, Activity(Status.ACTIVE, now - 900, True), wished, RequestPath(), now, revision=KEY
    )


def store(interface: Served, owner: str | None = "hello") -> None:
    """A Service, and a revision that may be its own."""
    interface.client.apply([service("hello")])
    labels = {} if owner is None else {"serving.knative.dev/service": owner}
    revision = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": "hello-00001", "namespace": "default", "labels": labels},
        "spec": {"containers": [{"image": "x"}]},
    }
    interface.run(interface.platform.objects.create(revision))


def explained(interface: Served, name: str = "hello-00001", **asked: str | float | None) -> Explained:
    kind, since = asked.get("kind"), asked.get("since")
    assert kind is None or isinstance(kind, str)
    assert not isinstance(since, str)
    return Explained.from_json(interface.client.explain("default", name, kind=kind, since=since))


def test_the_ready_replicas_are_told_since_when(interface: Served) -> None:
    store(interface)
    now = SystemClock.now()
    kept = interface.platform.autoscaler
    kept.decisions[KEY] = [decided(140.0, 2, now - 1)]
    points = kept.points[KEY] = KeptPoints()
    points.add(now - 6, 140.0, 2, 2)
    points.add(now - 4, 140.0, 2, 2)
    assert explained(interface).revisions[0].ready_since is None, "it was so for as long as is known"
    points.times[:0], points.load[:0], points.want[:0], points.ready[:0] = [now - 8], [70.0], [1], [1]
    since = explained(interface).revisions[0].ready_since
    assert since == pytest.approx(now - 6, abs=0.001)
    kept.started[KEY] = [ReplicaStart(now - each, 0.01) for each in (20, 6.5, 5)]
    since = explained(interface).revisions[0].ready_since
    assert since == pytest.approx(now - 6.5, abs=0.001), "the points are seconds apart"


def test_only_what_was_asked_for_is_told(interface: Served) -> None:
    store(interface)
    now = SystemClock.now()
    kept = interface.platform.autoscaler
    kept.decisions[KEY] = [decided(140.0, 2, now - ago) for ago in (300, 200, 50, 1)]
    kept.started[KEY] = [ReplicaStart(now - ago, 0.01) for ago in (250, 40)]
    points = kept.points[KEY] = KeptPoints()
    for ago in (300, 200, 50, 2):
        points.add(now - ago, 1.0, 1, 1)
    whole = explained(interface).revisions[0]
    assert (len(whole.history), len(whole.series), len(whole.starts)) == (4, 4, 2)
    part = explained(interface, since=100.0).revisions[0]
    assert (len(part.history), len(part.series), len(part.starts)) == (3, 2, 1)
    assert part.history[0].at == pytest.approx(now - 200, abs=0.001), "it held when the time began"


def test_a_service_none_of_whose_revisions_was_decided_on_is_told_so(interface: Served) -> None:
    store(interface)
    for name in ("hello", "hello-00001"):
        with pytest.raises(Unavailable, match="nothing was decided yet"):
            explained(interface, name)
    interface.platform.autoscaler.decisions[KEY] = [decided(1.0, 1, SystemClock.now() - 1)]
    interface.platform.autoscaler.under[KEY] = SETTINGS
    assert explained(interface).revisions[0].percent == 0


def test_a_revision_of_nobody_is_explained(interface: Served) -> None:
    store(interface, owner=None)
    interface.platform.autoscaler.decisions[KEY] = [decided(1.0, 1, SystemClock.now() - 1)]
    assert explained(interface).revisions[0].service == ""


def test_what_is_asked_for_wrongly_is_refused(interface: Served) -> None:
    store(interface)
    for since in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="is no number of seconds"):
            explained(interface, since=since)
    with pytest.raises(InvalidInput, match="is none of"):
        explained(interface, kind="Pod")
    for name, kind in (("hello", REVISION), ("hello-00001", SERVICE), ("x" * 300, None)):
        with pytest.raises(NotFound):
            explained(interface, name, kind=kind)

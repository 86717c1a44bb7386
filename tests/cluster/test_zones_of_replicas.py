"""Replicas on one machine that stand in zones all the same, so that zone-aware rules can be tried."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.cluster import REVISION, LocalWorld, in_cluster, revision, settle
from upwell.runtime.cluster.zones import ZONES_ANNOTATION, Zones
from upwell.runtime.control.resources import deployment


def template(labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {"spec": {"template": {"metadata": {"labels": labels, "annotations": annotations}}}}


async def deploy(world: LocalWorld, annotations: dict[str, str]) -> None:
    manifest = revision()
    manifest["metadata"]["annotations"] |= annotations
    await world.objects.apply_all([deployment(manifest, "hello")])
    await settle()


def localities(world: LocalWorld) -> list[str]:
    return [replica.locality for replica in world.cluster.replicas(REVISION)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"istio-locality": "eu.a.rack1"}, "eu/a/rack1"),
        ({"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "a"}, "eu/a"),
        ({"topology.kubernetes.io/zone": "a"}, "a"),
        ({"istio-locality": "eu.b", "topology.kubernetes.io/zone": "a"}, "eu/b"),
    ],
)
def test_a_label_of_the_template_places_every_replica(labels: dict[str, str], expected: str) -> None:
    assert Zones.of(template(labels)) == Zones((expected,))


def test_nothing_said_is_no_zone() -> None:
    assert Zones.of(template()).next([]) == ""


def test_the_annotation_names_several_zones_and_holds_over_labels() -> None:
    zones = Zones.of(template({"istio-locality": "eu.c"}, {ZONES_ANNOTATION: "eu/a, eu/b,,eu/a"}))
    assert zones.localities == ("eu/a", "eu/b")


def test_replicas_are_spread_over_the_zones_in_turn() -> None:
    async def scenario(world: LocalWorld) -> None:
        await deploy(world, {ZONES_ANNOTATION: "eu/a,eu/b"})
        world.scale(3)
        assert localities(world) == ["eu/a", "eu/b", "eu/a"]

    in_cluster(scenario)


def test_the_successor_of_a_replica_takes_the_place_that_became_free() -> None:
    async def scenario(world: LocalWorld) -> None:
        await deploy(world, {ZONES_ANNOTATION: "eu/a,eu/b"})
        processes = await world.ready(2)
        processes[1].exit(1)
        await settle()
        world.scale(2)
        assert sorted(localities(world)) == ["eu/a", "eu/b"]

    in_cluster(scenario)


def test_a_revision_without_zones_has_replicas_without() -> None:
    async def scenario(world: LocalWorld) -> None:
        await world.deploy()
        world.scale(2)
        assert localities(world) == ["", ""]

    in_cluster(scenario)


@given(st.lists(st.sampled_from(["eu/a", "eu/b", "us/a"]), min_size=1, unique=True), st.integers(0, 20))
def test_no_zone_ever_has_two_more_than_another(names: list[str], count: int) -> None:
    zones, taken = Zones(tuple(names)), list[str]()
    for _ in range(count):
        taken.append(zones.next(taken))
    counts = Counter(taken)
    assert max((counts[name] for name in names), default=0) - min(counts[name] for name in names) <= 1

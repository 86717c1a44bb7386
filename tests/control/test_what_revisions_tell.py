"""What a revision says of its source and its replicas."""

import dataclasses

import pytest

from support.planning import SETTINGS, World, changed, service
from upwell.autoscaler.spec import AutoscalerConfig

ZERO_INITIAL_SCALE = {"allow-zero-initial-scale": "true", "initial-scale": "0"}


def mapped(world: World, revision: str | None = None) -> None:
    world.service["spec"] = service(revision=revision)["spec"]
    world.service["metadata"]["generation"] += 1


def test_an_image_without_a_source_is_told_of_and_nothing_is_deployed() -> None:
    world = World(service(mapped=False))
    world.settle()
    status, reason, message = world.ready()
    assert (status, reason) == ("False", "RevisionFailed")
    assert message == (
        'Revision "hello-00001" failed with message: '
        'no source or command is mapped to the image "hello"; map it with: upwell apply -f … --image hello=PATH.'
    )
    assert world.revision("Ready") == ("False", "ImageNotMapped")
    assert world.of("Deployment") == []
    assert world.revision("ContainerHealthy") == ("False", "ImageNotMapped")


@pytest.mark.parametrize("revision", [None, "hello-blue"])
def test_a_source_that_comes_later_repairs_the_revision_that_lacked_it(revision: str | None) -> None:
    world = World(service(revision=revision, mapped=False))
    world.settle()
    mapped(world, revision)
    world.settle(programmed=False)
    assert world.ready()[:2] == ("Unknown", "RevisionMissing"), "what was said before is of no source"
    name = revision or "hello-00001"
    assert [m["metadata"]["name"] for m in world.of("Revision")] == [name]
    world.report(f"{name}-deployment", "True")
    world.settle()
    assert world.ready()[0] == "True"


def test_a_template_that_changes_with_its_first_source_makes_the_next_revision() -> None:
    world = World(service(mapped=False))
    world.settle()
    mapped(world)
    changed(world)
    world.settle()
    assert [m["metadata"]["name"] for m in world.of("Revision")] == ["hello-00001", "hello-00002"]
    assert [m["metadata"]["name"] for m in world.of("Deployment")] == ["hello-00002-deployment"]


def test_where_images_are_pulled_no_source_is_needed() -> None:
    world = World(service(mapped=False), dataclasses.replace(SETTINGS, pulls_images=True))
    world.settle()
    assert [m["metadata"]["name"] for m in world.of("Deployment")] == ["hello-00001-deployment"]
    assert world.ready()[:2] == ("Unknown", "RevisionMissing")


@pytest.mark.parametrize(
    ("wanted", "ready", "active"),
    [(0, 0, ("False", "NoTraffic")), (2, 0, ("Unknown", "Queued")), (2, 1, ("True", ""))],
)
def test_a_revision_tells_its_replicas_and_is_ready_without_any(
    wanted: int, ready: int, active: tuple[str, str]
) -> None:
    world = World(service())
    world.settle()
    assert world.revision("Active") == ("Unknown", "Deploying")
    world.report("hello-00001-deployment", "True", wanted=wanted, ready=ready)
    world.settle()
    status = world.objects["Revision", "hello-00001"]["status"]
    assert (status["desiredReplicas"], status["actualReplicas"]) == (wanted, ready)
    assert world.revision("Active") == active
    assert [c.get("severity") for c in status["conditions"] if c["type"] == "Active"] == ["Info"]
    assert world.revision("Ready") == ("True", "")
    assert world.ready()[0] == "True"


def test_a_revision_says_for_good_that_it_had_as_many_replicas_as_it_begins_with() -> None:
    world = World(service({"autoscaling.knative.dev/initial-scale": "2"}))
    told = []
    for ready in (0, 1, 2, 0):
        world.settle()
        told.append(world.revision("ScaleTargetInitialized")[0])
        world.report("hello-00001-deployment", "True", wanted=2, ready=ready)
    world.report("hello-00001-deployment", "False", "ImportFailed")
    world.settle()
    assert told == ["Unknown", "Unknown", "Unknown", "True"]
    assert world.revision("ScaleTargetInitialized") == ("True", "")
    assert world.revision("Ready")[0] == "False", "that it cannot start now changes nothing"


@pytest.mark.parametrize(("config", "told"), [({}, "Unknown"), (ZERO_INITIAL_SCALE, "True")])
def test_a_revision_that_begins_with_none_is_initialized_from_the_beginning(
    config: dict[str, str], told: str
) -> None:
    autoscaler = AutoscalerConfig.from_config_map(config)
    world = World(service(), dataclasses.replace(SETTINGS, autoscaler=autoscaler))
    world.settle()
    assert world.revision("ScaleTargetInitialized")[0] == told

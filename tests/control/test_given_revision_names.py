"""Revisions whose templates give them their names, and what happens when a name is taken."""

import copy
from typing import Any

from support.planning import World, service


def test_a_given_name_that_another_object_has_is_a_condition_and_nothing_is_written_over() -> None:
    world = World(service(revision="hello-blue"))
    foreign = {
        "kind": "Revision",
        "metadata": {"name": "hello-blue", "namespace": "default", "ownerReferences": [{"uid": "other"}]},
        "spec": {"containers": [{"image": "hello"}]},
    }
    world.objects["Revision", "hello-blue"] = copy.deepcopy(foreign)
    world.settle()
    status, reason, message = world.ready()
    assert (status, reason) == ("False", "RevisionNameTaken")
    assert "hello-blue" in message
    assert world.objects["Revision", "hello-blue"] == foreign
    assert world.of("Deployment") == []
    del world.objects["Revision", "hello-blue"]
    world.settle()
    assert world.ready()[:2] == ("Unknown", "RevisionMissing")
    assert [m["metadata"]["name"] for m in world.of("Deployment")] == ["hello-blue-deployment"]


def test_traffic_does_not_follow_a_given_name_to_what_was_made_from_another_template() -> None:
    world = World(service(revision="hello-blue"))
    world.settle()
    world.report("hello-blue-deployment", "True")
    world.settle()
    for name in ("hello-green", "hello-blue"):
        spec = world.service["spec"] = service(revision=name)["spec"]
        spec["template"]["spec"]["timeoutSeconds"] = 60
        spec["traffic"] = [{"revisionName": name, "percent": 100}]
        world.service["metadata"]["generation"] += 1
        world.settle()
        if name == "hello-green":
            world.report("hello-green-deployment", "True")
            world.settle()
            assert set(world.split()) == {"hello-green"}
    assert world.ready()[:2] == ("False", "RevisionNameTaken")
    assert set(world.split()) == {"hello-green"}
    status = world.service["status"]
    assert status["latestCreatedRevisionName"] == status["latestReadyRevisionName"] == "hello-green"


def test_a_given_name_may_not_be_used_for_another_template() -> None:
    world = World(service(revision="hello-blue"))
    world.settle()
    world.report("hello-blue-deployment", "True")
    world.settle()
    world.service["spec"]["template"]["spec"]["timeoutSeconds"] = 60
    world.service["metadata"]["generation"] = 2
    world.settle()
    assert world.ready()[:2] == ("False", "RevisionNameTaken")
    assert set(world.split()) == {"hello-blue"}


def test_a_given_name_of_its_own_made_from_the_same_template_is_used_again() -> None:
    world = World(service(revision="hello-blue"))
    world.settle()
    world.report("hello-blue-deployment", "True")
    world.settle()
    blue = copy.deepcopy(world.service["spec"])
    green = service(revision="hello-green")["spec"]
    green["template"]["spec"]["timeoutSeconds"] = 60
    for spec, revision in ((green, "hello-green"), (blue, "hello-blue")):
        world.service["spec"] = copy.deepcopy(spec)
        world.service["metadata"]["generation"] += 1
        world.settle()
        world.report(f"{revision}-deployment", "True")
        world.settle()
        assert set(world.split()) == {revision}
        assert world.ready()[0] == "True"
    assert len(world.of("Revision")) == 2


def test_traffic_stays_where_it_is_while_the_next_revision_starts() -> None:
    world = World(service(revision="hello-a"))
    specs: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(("hello-a", "hello-b", "hello-a", "hello-c")):
        spec = specs.setdefault(name, service(revision=name)["spec"])
        spec["template"]["spec"]["containers"] = [{"image": name}]
        world.service["spec"] = copy.deepcopy(spec)
        world.service["metadata"]["generation"] = number + 1
        world.settle()
        if name != "hello-c":
            world.report(f"{name}-deployment", "True")
            world.settle()
    assert set(world.split()) == {"hello-a"}

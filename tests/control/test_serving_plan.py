"""What the reconciler writes for a Service, looked at as a plan."""

import copy
from typing import Any

from support.planning import SOURCE, World, changed, service
from upwell.runtime.control.domains import Domain, Domains
from upwell.runtime.control.kingress import IngressSettings
from upwell.runtime.control.planning import ServingSettings


def hosts(world: World) -> list[str]:
    rules = world.of("Ingress")[0]["spec"]["rules"]
    return [host for rule in rules if rule["visibility"] == "ExternalIP" for host in rule["hosts"]]


def test_a_new_service_gets_its_first_revision_and_a_deployment_and_waits_for_it() -> None:
    world = World(service())
    world.settle()
    assert [m["metadata"]["name"] for m in world.of("Revision")] == ["hello-00001"]
    assert [m["metadata"]["name"] for m in world.of("Deployment")] == ["hello-00001-deployment"]
    assert world.of("Ingress") == []
    assert world.ready()[:2] == ("Unknown", "RevisionMissing")
    assert world.service["status"]["latestCreatedRevisionName"] == "hello-00001"


def test_it_is_routed_and_ready_once_its_deployment_is_available() -> None:
    world = World(service())
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle()
    assert world.ready()[0] == "True"
    assert set(world.split()) == {"hello-00001"}
    status = world.service["status"]
    assert status["url"] == "http://hello.default.localhost:8080"
    assert status["latestReadyRevisionName"] == "hello-00001"
    assert status["traffic"] == [{"latestRevision": True, "percent": 100, "revisionName": "hello-00001"}]
    hosts = [host for rule in world.of("Ingress")[0]["spec"]["rules"] for host in rule["hosts"]]
    assert hosts == [
        "hello.default",
        "hello.default.svc",
        "hello.default.svc.cluster.local",
        "hello.default.localhost",
        "hello.default.example.com",
    ]


def test_a_function_that_cannot_be_loaded_is_told_of_with_its_reason() -> None:
    world = World(service())
    world.settle()
    world.report("hello-00001-deployment", "False", "ImportFailed", "no module named 'pandas'")
    world.settle()
    message = "no module named 'pandas'"
    told = f'Revision "hello-00001" failed with message: {message}.'
    assert world.ready() == ("False", "RevisionFailed", told)
    assert world.revision("Ready") == ("False", "ImportFailed")
    assert world.of("Ingress") == []


def test_a_changed_template_makes_the_next_revision_and_traffic_moves_when_it_is_ready() -> None:
    world = World(service())
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle()
    changed(world)
    world.settle()
    assert [m["metadata"]["name"] for m in world.of("Revision")] == ["hello-00001", "hello-00002"]
    assert set(world.split()) == {"hello-00001"}
    world.report("hello-00002-deployment", "False", "ImportFailed", "SyntaxError")
    world.settle()
    assert set(world.split()) == {"hello-00001"}
    assert world.ready() == ("False", "RevisionFailed", 'Revision "hello-00002" failed with message: SyntaxError.')
    world.report("hello-00002-deployment", "True")
    world.settle()
    assert set(world.split()) == {"hello-00002"}
    assert world.ready()[0] == "True"


def test_a_revision_that_speaks_http2_is_routed_to_by_the_port_for_that() -> None:
    declared = service()
    declared["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"name": "h2c", "containerPort": 8000}]
    world = World(declared)
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle()
    rules = world.of("Ingress")[0]["spec"]["rules"]
    assert {split["servicePort"] for rule in rules for split in rule["http"]["paths"][0]["splits"]} == {81}


def test_an_older_revision_that_becomes_ready_takes_over_while_a_newer_one_fails() -> None:
    world = World(service())
    for number in (1, 2, 3):
        changed(world, seconds=60 + number)
        world.settle()
        if number == 1:
            world.report("hello-00001-deployment", "True")
            world.settle()
    world.report("hello-00003-deployment", "False", "ImportFailed", "SyntaxError")
    world.settle()
    assert set(world.split()) == {"hello-00001"}
    world.report("hello-00002-deployment", "True")
    world.settle()
    assert set(world.split()) == {"hello-00002"}
    assert world.service["status"]["latestReadyRevisionName"] == "hello-00002"
    assert world.ready()[:2] == ("False", "RevisionFailed")
    world.report("hello-00002-deployment", "False", "ImportFailed", "SyntaxError")
    world.settle()
    assert set(world.split()) == {"hello-00002"}, "none older takes its place while it exists"
    world.delete("Revision", "hello-00002")
    world.settle()
    assert set(world.split()) == {"hello-00001"}, "the newest that is ready does when it is gone"


def test_an_annotation_of_the_template_makes_a_revision_too() -> None:
    world = World(service())
    world.settle()
    world.service["spec"] = service({"autoscaling.knative.dev/target": "5"})["spec"]
    world.settle()
    last = world.of("Revision")[-1]
    assert last["metadata"]["name"] == "hello-00002"
    given = {**SOURCE, "autoscaling.knative.dev/target": "5"}
    assert given.items() <= last["metadata"]["annotations"].items()


def test_looking_again_writes_nothing() -> None:
    world = World(service())
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle()
    before = list(world.writes)
    world.settle()
    assert world.writes == before


def test_what_a_replica_must_know_travels_in_the_containers_environment() -> None:
    world = World(service())
    world.settle()
    container: dict[str, Any] = world.of("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["K_SERVICE"] == environment["K_CONFIGURATION"] == "hello"
    assert environment["K_REVISION"] == "hello-00001"
    assert environment["REVISION_TIMEOUT_SECONDS"] == "300"
    assert environment["CONTAINER_CONCURRENCY"] == "0"


def test_ready_waits_until_the_gateway_has_the_route() -> None:
    world = World(service())
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle(programmed=False)
    assert world.ready()[:2] == ("Unknown", "IngressNotConfigured")
    world.settle()
    assert world.ready()[0] == "True"


def test_a_new_generation_is_not_ready_before_its_own_revision_has_the_traffic() -> None:
    world = World(service())
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle()
    changed(world)
    world.settle(programmed=False)
    assert world.service["status"]["observedGeneration"] == 2
    assert world.ready()[0] == "Unknown"
    world.report("hello-00002-deployment", "True")
    world.settle(programmed=False)
    assert set(world.split()) == {"hello-00002"}
    assert world.ready()[:2] == ("Unknown", "IngressNotConfigured")
    world.settle()
    assert world.ready()[0] == "True"


def test_an_ingress_of_somebody_else_is_told_of_and_left_alone() -> None:
    world = World(service())
    world.settle()
    foreign = {"kind": "Ingress", "metadata": {"name": "hello", "generation": 1}, "spec": {"rules": []}}
    world.objects["Ingress", "hello"] = copy.deepcopy(foreign)
    world.report("hello-00001-deployment", "True")
    world.settle(programmed=False)
    assert world.ready()[:2] == ("False", "NotOwned")
    assert world.objects["Ingress", "hello"] == foreign


def test_another_domain_changes_the_url_and_the_hosts_and_is_ready_once_the_gateway_has_them() -> None:
    world = World(service())
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle()
    domains = Domains((Domain("mine.com", {}), Domain("x.com", {"app": "x"})), ("localhost", "example.com"))
    world.settings = ServingSettings(IngressSettings(domains), 80)
    world.settle(programmed=False)
    assert world.ready()[:2] == ("Unknown", "IngressNotConfigured")
    world.settle()
    assert hosts(world) == ["hello.default.mine.com"]
    assert world.service["status"]["url"] == "http://hello.default.mine.com"
    world.service["metadata"]["labels"] = {"app": "x"}
    world.settle()
    assert hosts(world)[0] == "hello.default.x.com"


def test_a_service_inside_only_has_its_url_there() -> None:
    world = World(service())
    world.service["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
    world.settle()
    world.report("hello-00001-deployment", "True")
    world.settle()
    assert hosts(world) == []
    assert world.service["status"]["url"] == "http://hello.default.svc.cluster.local"
    assert world.ready()[0] == "True"

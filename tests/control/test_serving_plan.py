"""What the reconciler writes for a Service, looked at as a plan."""

import copy
from typing import Any

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.conditions import find
from upwell.runtime.control.serving import Observed, Verb, Write, plan

DOMAINS = ("localhost", "example.com")
NOW = 1_700_000_000.0


def service(annotations: dict[str, str] | None = None) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "default", "uid": "service-uid", "generation": 1},
        "spec": {
            "template": {
                "metadata": {"annotations": annotations or {}},
                "spec": {"containers": [{"image": "hello"}], "timeoutSeconds": 300, "containerConcurrency": 0},
            }
        },
    }


class World:
    """Plays the store: applies plans until nothing is left to write."""

    def __init__(self, declared: Manifest) -> None:
        self.service = declared
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.writes: list[tuple[str, str, str]] = []

    def of(self, kind: str) -> list[Manifest]:
        return [manifest for (found, _), manifest in sorted(self.objects.items()) if found == kind]

    def settle(self) -> None:
        for _ in range(20):
            ingresses = self.of("Ingress")
            observed = Observed(
                self.service, self.of("Revision"), self.of("Deployment"), ingresses[0] if ingresses else None
            )
            writes = plan(copy.deepcopy(observed), DOMAINS, 8080, NOW)
            if not writes:
                return
            for write in writes:
                self.write(write)
        raise AssertionError(f"the plan never comes to rest: {self.writes[-5:]}")

    def write(self, write: Write) -> None:
        manifest = write.manifest
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.writes.append((write.verb.value, kind, name))
        if kind == "Service":
            self.service = manifest
            return
        stored = self.objects.get((kind, name), {})
        if write.verb is Verb.CREATE:
            assert not stored, f"{kind} {name} is created twice"
            manifest["metadata"]["uid"] = f"{kind}-{name}"
        if write.verb is Verb.STATUS:
            manifest = stored | {"status": manifest["status"]}
        self.objects[kind, name] = manifest

    def report(self, deployment: str, status: str, reason: str = "", message: str = "") -> None:
        condition = {"type": "Available", "status": status, "reason": reason, "message": message}
        self.objects["Deployment", deployment]["status"] = {"conditions": [condition]}

    def ready(self) -> tuple[str, str, str]:
        condition = find(self.service, "Ready")
        assert condition is not None
        return condition.status, condition.reason, condition.message

    def split(self) -> list[str]:
        rules = self.of("Ingress")[0]["spec"]["rules"]
        return [split["serviceName"] for rule in rules for split in rule["http"]["paths"][0]["splits"]]


def test_a_new_service_gets_its_first_revision_and_a_deployment_and_waits_for_it() -> None:
    world = World(service())
    world.settle()
    assert [m["metadata"]["name"] for m in world.of("Revision")] == ["hello-00001"]
    assert [m["metadata"]["name"] for m in world.of("Deployment")] == ["hello-00001-deployment"]
    assert world.of("Ingress") == []
    assert world.ready()[:2] == ("Unknown", "Deploying")
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
    assert world.ready() == ("False", "ImportFailed", "no module named 'pandas'")
    assert world.of("Ingress") == []


def changed(world: World) -> None:
    world.service["spec"] = service()["spec"]
    world.service["spec"]["template"]["spec"]["timeoutSeconds"] = 60
    world.service["metadata"]["generation"] += 1


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
    assert world.ready() == ("False", "ImportFailed", "SyntaxError")
    world.report("hello-00002-deployment", "True")
    world.settle()
    assert set(world.split()) == {"hello-00002"}
    assert world.ready()[0] == "True"


def test_an_annotation_of_the_template_makes_a_revision_too() -> None:
    world = World(service())
    world.settle()
    world.service["spec"] = service({"autoscaling.knative.dev/target": "5"})["spec"]
    world.settle()
    last = world.of("Revision")[-1]
    assert last["metadata"]["name"] == "hello-00002"
    assert last["metadata"]["annotations"] == {"autoscaling.knative.dev/target": "5"}


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

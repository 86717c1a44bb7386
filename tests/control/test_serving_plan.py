"""What the reconciler writes for a Service, looked at as a plan."""

import copy
import dataclasses
from typing import Any

import pytest

from upwell.autoscaler.spec import AutoscalerConfig
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.conditions import find
from upwell.runtime.control.configuration import current_revision, next_revision_name, repaired_revision
from upwell.runtime.control.domains import Domain, Domains
from upwell.runtime.control.ingress import programmed_status
from upwell.runtime.control.kingress import IngressSettings
from upwell.runtime.control.planning import Observed, ServingSettings, plan
from upwell.runtime.control.writes import Verb, Write

SETTINGS = ServingSettings(IngressSettings(Domains((), ("localhost", "example.com"))), 8080)
ZERO_INITIAL_SCALE = {"allow-zero-initial-scale": "true", "initial-scale": "0"}
SOURCE = {"upwell.dev/source": '{"bundle":"d1","module":"main"}'}
NOW = 1_700_000_000.0


def service(
    annotations: dict[str, str] | None = None, revision: str | None = None, *, mapped: bool = True
) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "default", "uid": "service-uid", "generation": 1},
        "spec": {
            "template": {
                "metadata": {"annotations": {**(SOURCE if mapped else {}), **(annotations or {})}}
                | ({"name": revision} if revision else {}),
                "spec": {"containers": [{"image": "hello"}], "timeoutSeconds": 300, "containerConcurrency": 0},
            }
        },
    }


class World:
    """Plays the store: applies plans until nothing is left to write."""

    def __init__(self, declared: Manifest, settings: ServingSettings = SETTINGS) -> None:
        self.service = declared
        self.settings = settings
        self.now = NOW
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.writes: list[tuple[str, str, str]] = []

    def of(self, kind: str) -> list[Manifest]:
        return [manifest for (found, _), manifest in sorted(self.objects.items()) if found == kind]

    def observed(self) -> Observed:
        configuration = self.objects.get(("Configuration", "hello"))
        owned = [] if configuration is None else [r for r in self.of("Revision") if self._is_own(r, configuration)]
        revisions = sorted(
            owned, key=lambda r: int(r["metadata"]["labels"]["serving.knative.dev/configurationGeneration"])
        )
        namesake = None
        if configuration is not None:
            declared = current_revision(configuration, revisions) or repaired_revision(configuration, revisions)
            if declared is None:
                namesake = self.objects.get(("Revision", next_revision_name(configuration, revisions)))
        return Observed(
            self.service,
            configuration,
            self.objects.get(("Route", "hello")),
            revisions,
            self.of("Deployment"),
            self.objects.get(("Ingress", "hello")),
            namesake,
        )

    def _is_own(self, revision: Manifest, configuration: Manifest) -> bool:
        uids = {reference["uid"] for reference in revision["metadata"]["ownerReferences"]}
        return bool(uids & {"service-uid", configuration["metadata"]["uid"]})

    def settle(self, *, programmed: bool = True) -> None:
        """Apply plans, and play the gateway, until both are at rest."""
        for _ in range(40):
            found = plan(copy.deepcopy(self.observed()), self.settings, self.now)
            self.again_after = found.again_after
            if not found.writes and found.is_settled and not (programmed and self.program()):
                return
            for write in found.writes:
                self.write(write)
        raise AssertionError(f"the plan never comes to rest: {self.writes[-5:]}")

    def program(self) -> bool:
        """Play the gateway that takes the Ingress."""
        changed = False
        for ingress in self.of("Ingress"):
            status = programmed_status(ingress, ingress["metadata"]["generation"], NOW)
            changed = changed or status != ingress.get("status")
            ingress["status"] = status
        return changed

    def write(self, write: Write) -> None:
        manifest = write.manifest
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.writes.append((write.verb.value, kind, name))
        if kind == "Service":
            assert write.verb is Verb.STATUS
            self.service = self.service | {"status": manifest["status"]}
            return
        stored = self.objects.get((kind, name), {})
        if write.verb is Verb.CREATE:
            assert not stored, f"{kind} {name} is created twice"
            manifest["metadata"] |= {"uid": f"{kind}-{name}", "generation": 1, "resourceVersion": "1"}
        if write.verb is Verb.UPDATE:
            assert manifest["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
            version = str(int(stored["metadata"]["resourceVersion"]) + 1)
            manifest["metadata"] |= {
                "generation": stored["metadata"]["generation"] + (stored["spec"] != manifest["spec"]),
                "resourceVersion": version,
            }
            manifest.pop("status", None)
            manifest = manifest | ({"status": stored["status"]} if "status" in stored else {})
        if write.verb is Verb.STATUS:
            manifest = stored | {"status": manifest["status"]}
        if write.verb is Verb.DELETE:
            self.delete(kind, name)
        else:
            self.objects[kind, name] = copy.deepcopy(manifest)

    def delete(self, kind: str, name: str) -> None:
        """With all that it owns."""
        uid = self.objects.pop((kind, name))["metadata"]["uid"]
        for key, each in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences", ())):
                self.delete(*key)

    def report(
        self, deployment: str, status: str, reason: str = "", message: str = "", *, wanted: int = 0, ready: int = 0
    ) -> None:
        condition = {"type": "Available", "status": status, "reason": reason, "message": message}
        found = self.objects["Deployment", deployment]
        found["spec"]["replicas"] = wanted
        found["status"] = {"replicas": wanted, "readyReplicas": ready, "conditions": [condition]}

    def revision(self, type: str, name: str = "hello-00001") -> tuple[str, str]:
        condition = find(self.objects["Revision", name], type)
        assert condition is not None
        return condition.status, condition.reason

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


def changed(world: World, seconds: int = 60) -> None:
    world.service["spec"] = service()["spec"]
    world.service["spec"]["template"]["spec"]["timeoutSeconds"] = seconds
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


def test_an_ingress_of_somebody_else_is_told_of_and_left_alone() -> None:
    world = World(service())
    world.settle()
    foreign = {"kind": "Ingress", "metadata": {"name": "hello", "generation": 1}, "spec": {"rules": []}}
    world.objects["Ingress", "hello"] = copy.deepcopy(foreign)
    world.report("hello-00001-deployment", "True")
    world.settle(programmed=False)
    assert world.ready()[:2] == ("False", "NotOwned")
    assert world.objects["Ingress", "hello"] == foreign


# Without a source


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


# Replicas


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


# Domains


def hosts(world: World) -> list[str]:
    rules = world.of("Ingress")[0]["spec"]["rules"]
    return [host for rule in rules if rule["visibility"] == "ExternalIP" for host in rule["hosts"]]


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

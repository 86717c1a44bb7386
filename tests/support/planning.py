"""The planning of services, with a store that is played."""

from __future__ import annotations

import copy

from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.conditions import find
from upwell.runtime.control.configuration import current_revision, next_revision_name, repaired_revision
from upwell.runtime.control.domains import Domains
from upwell.runtime.control.ingress import programmed_status
from upwell.runtime.control.kingress import IngressSettings
from upwell.runtime.control.planning import Observed, ServingSettings, plan
from upwell.runtime.control.writes import Verb, Write

SETTINGS = ServingSettings(IngressSettings(Domains((), ("localhost", "example.com"))), 8080)
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


def changed(world: World, seconds: int = 60) -> None:
    world.service["spec"] = service()["spec"]
    world.service["spec"]["template"]["spec"]["timeoutSeconds"] = seconds
    world.service["metadata"]["generation"] += 1

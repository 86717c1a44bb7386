"""Fields that mean nothing here are warned of; what a program would miss is refused."""

from __future__ import annotations

from typing import Any

import pytest

from upwell.runtime.control.admission import AdmissionContext, Refused, admit

CONTAINER = "spec.template.spec.containers[0]"
POD = "spec.template.spec"


def told(pod: dict[str, Any] | None = None, traffic: list[Any] | None = None, **container: Any) -> list[str]:
    """`refused FIELD` for each fault, else the warnings."""
    spec = {"containers": [{"image": "app", **container}], **(pod or {})}
    manifest = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"template": {"spec": spec}, **({"traffic": traffic} if traffic else {})},
    }
    try:
        return list(admit(manifest, None, AdmissionContext()).warnings)
    except Refused as error:
        return [f"refused {fault.field}" for fault in error.faults]


@pytest.mark.parametrize(
    "pod",
    [
        {"nodeSelector": {"a": "b"}},
        {"tolerations": [{"operator": "Exists"}]},
        {"serviceAccountName": "me"},
        {"securityContext": {"runAsUser": 1}},
        {"hostNetwork": True},
        {"dnsPolicy": "None"},
        {"restartPolicy": "Always"},
    ],
)
def test_where_and_as_whom_a_pod_runs_is_warned_of(pod: dict[str, Any]) -> None:
    (warning,) = told(pod)
    assert warning.startswith(f"{POD}.{next(iter(pod))}: kept, but does nothing on this machine: ")


def test_what_works_or_changes_nothing_is_not_mentioned() -> None:
    pod = {"imagePullSecrets": [{"name": "s"}], "hostNetwork": False, "enableServiceLinks": False}
    container = {
        "imagePullPolicy": "Always",
        "ports": [{"containerPort": 8080}],
        "workingDir": "/srv",
        "command": ["serve"],
        "args": ["-v"],
        "env": [{"name": "A", "value": "b"}, {"name": "C"}],
        "resources": {"limits": {"memory": "1Gi"}},
        "livenessProbe": {"exec": {"command": ["true"]}},
        "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
    }
    assert told(pod, [{"latestRevision": True, "percent": 100}], **container) == []


def test_a_variable_that_would_be_missing_is_refused_unless_it_may_be() -> None:
    for kind in ("secretKeyRef", "configMapKeyRef"):
        source = {kind: {"name": "s", "key": "k"}}
        assert told(env=[{"name": "A", "valueFrom": source}]) == [f"refused {CONTAINER}.env[0].valueFrom"]
        source[kind]["optional"] = True  # type: ignore[assignment]
        assert told(env=[{"name": "A", "valueFrom": source}]) == []
    field = {"fieldRef": {"fieldPath": "metadata.name"}}
    assert told(env=[{"name": "A", "valueFrom": field}]) == [f"refused {CONTAINER}.env[0].valueFrom"]
    assert told(envFrom=[{"secretRef": {"name": "s"}}]) == [f"refused {CONTAINER}.envFrom[0]"]
    assert told(envFrom=[{"secretRef": {"name": "s", "optional": True}}]) == []


def test_files_that_would_be_missing_are_refused_and_an_empty_directory_is_warned_of() -> None:
    mounts = [{"name": "v", "mountPath": "/data"}]
    for volume in ({"secret": {"secretName": "s"}}, {"persistentVolumeClaim": {"claimName": "c"}}, {}):
        found = told({"volumes": [{"name": "v", **volume}]}, volumeMounts=mounts)
        assert found == [f"refused {CONTAINER}.volumeMounts[0]"]
    (warning,) = told({"volumes": [{"name": "v", "emptyDir": {}}]}, volumeMounts=mounts)
    assert "/data is its own" in warning
    (warning,) = told({"volumes": [{"name": "v", "secret": {"optional": True}}]}, volumeMounts=mounts)
    assert "/data is its own" in warning
    assert told({"volumes": [{"name": "v", "secret": {}}]}) == []


def test_containers_that_would_not_run_are_refused() -> None:
    several = {"containers": [{"image": "a", "ports": [{"containerPort": 80}]}, {"image": "b"}]}
    assert told(several) == [f"refused {POD}.containers[1]"]
    assert told({"initContainers": [{"image": "b"}]}) == [f"refused {POD}.initContainers"]


def test_traffic_may_be_shared_and_tagged() -> None:
    shared = [{"revisionName": "hello-00001", "percent": 50}, {"latestRevision": True, "percent": 50}]
    assert told(traffic=shared) == []
    assert told(traffic=[{"latestRevision": True, "percent": 100, "tag": "a"}]) == []


def test_a_protocol_that_requests_do_not_come_in_is_warned_of() -> None:
    (warning,) = told(ports=[{"containerPort": 80, "name": "h2c"}])
    assert warning.startswith(f"{CONTAINER}.ports[0].name: ")
    assert "HTTP/1.1" in warning

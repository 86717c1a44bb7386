"""A Service is checked and completed as Knative's webhook does; a fault names its field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from upwell.functions.api.meta import faults, field_path
from upwell.functions.api.serving import (
    Configuration,
    Defaults,
    Revision,
    Route,
    Service,
    with_defaults,
)

CONTAINER = "spec.template.spec.containers[0]"


def service(template: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    spec = {"containers": [{"image": "app", **container}], **(template or {})}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"template": {"spec": spec}},
    }


def with_traffic(*targets: dict[str, Any]) -> dict[str, Any]:
    manifest = service()
    manifest["spec"]["traffic"] = list(targets)
    return manifest


def with_metadata(**metadata: Any) -> dict[str, Any]:
    return {**service(), "metadata": {"name": "hello", **metadata}}


def with_template_metadata(**metadata: Any) -> dict[str, Any]:
    manifest = service()
    manifest["spec"]["template"]["metadata"] = metadata
    return manifest


def found(manifest: dict[str, Any], model: type[BaseModel] = Service, context: object = None) -> dict[str, str]:
    try:
        model.model_validate(manifest, context=context)
    except ValidationError as error:
        return {fault.field: fault.message for fault in faults(error)}
    return {}


def completed(manifest: dict[str, Any], defaults: Defaults | None = None) -> dict[str, Any]:
    defaults = defaults or Defaults()
    return with_defaults(Service.model_validate(manifest, context=defaults), defaults).to_manifest()


@pytest.mark.parametrize(
    ("manifest", "field", "message"),
    [
        ({**service(), "spce": {}}, "spce", "unknown field"),
        ({**service(), "kind": "Deployment"}, "kind", "must be 'Service'"),
        ({**service(), "spec": {}}, "spec.template", "required, but missing"),
        (with_metadata(name="Hello"), "metadata.name", "DNS-1035"),
        (with_metadata(name="a" * 64), "metadata.name", "DNS-1035"),
        (with_metadata(namespace="a.b"), "metadata.namespace", "DNS-1123"),
        (with_metadata(anotations={}), "metadata.anotations", "unknown field"),
        (with_metadata(labels={"a": "b c"}), "metadata.labels.a", "value of a label"),
        (with_metadata(labels={"a b": ""}), "metadata.labels['a b']", "key of a label"),
        (with_metadata(annotations={"a": 1}), "metadata.annotations.a", "quotes"),
        (with_metadata(annotations={"A_.com/x": ""}), "metadata.annotations['A_.com/x']", "key of an annotation"),
        (with_metadata(annotations={"a": "x" * 300_000}), "metadata.annotations", "bytes"),
        (with_template_metadata(name="other-1"), "spec.template.metadata.name", "'hello-'"),
        (with_template_metadata(name="Hello-1"), "spec.template.metadata.name", "DNS-1035"),
        (service({"containers": []}), "spec.template.spec.containers", "at least 1 item"),
        (service({"timeOutSeconds": 5}), "spec.template.spec.timeOutSeconds", "unknown field"),
        (service({"timeout_seconds": 5}), "spec.template.spec.timeout_seconds", "unknown field"),
        (service({"timeoutSeconds": "5"}), "spec.template.spec.timeoutSeconds", "integer"),
        (service({"timeoutSeconds": 601}), "spec.template.spec.timeoutSeconds", "from 0 to 600"),
        (service({"timeoutSeconds": -1}), "spec.template.spec.timeoutSeconds", "from 0 to 600"),
        (service({"idleTimeoutSeconds": 301}), "spec.template.spec.idleTimeoutSeconds", "300 (timeoutSeconds)"),
        (
            service({"timeoutSeconds": 9, "responseStartTimeoutSeconds": 10}),
            "spec.template.spec.responseStartTimeoutSeconds",
            "9 (timeoutSeconds)",
        ),
        (service({"containerConcurrency": 1001}), "spec.template.spec.containerConcurrency", "from 0 to 1000"),
        (service(image=""), f"{CONTAINER}.image", "at least 1 character"),
        (service(image="a b"), f"{CONTAINER}.image", "white space"),
        (service(image="a\0b"), f"{CONTAINER}.image", "no text"),
        (service(imagee="x"), f"{CONTAINER}.imagee", "unknown field"),
        (service(env=[{"name": "PORT", "value": "1"}]), f"{CONTAINER}.env[0].name", "set by the platform"),
        (service(env=[{"name": "A"}, {"name": "A=B"}]), f"{CONTAINER}.env[1].name", "environment variable"),
        (service(env=[{"name": "A", "value": 1}]), f"{CONTAINER}.env[0].value", "quotes"),
        (service(ports=[{}, {}]), f"{CONTAINER}.ports", "at most 1 item"),
        (service(ports=[{"containerPort": 9090}]), f"{CONTAINER}.ports[0].containerPort", "platform"),
        (service(ports=[{"containerPort": 70000}]), f"{CONTAINER}.ports[0].containerPort", "65535"),
        (service(ports=[{"name": "web"}]), f"{CONTAINER}.ports[0].name", "h2c"),
        (service(ports=[{"protocol": "UDP"}]), f"{CONTAINER}.ports[0].protocol", "TCP"),
        (service(readinessProbe={"exec": {}, "grpc": {}}), f"{CONTAINER}.readinessProbe", "one of"),
        (service(readinessProbe={"httpGte": {}}), f"{CONTAINER}.readinessProbe.httpGte", "unknown field"),
        (service(resources={"limit": {}}), f"{CONTAINER}.resources.limit", "unknown field"),
        (
            service({"containers": [{"image": "a"}, {"image": "b"}]}),
            "spec.template.spec.containers",
            "exactly one",
        ),
        (with_traffic({"percent": 99}), "spec.traffic", "100, not 99"),
        (with_traffic({"percent": 60}, {"percent": 60}), "spec.traffic", "100, not 120"),
        (with_traffic({"percent": 101}), "spec.traffic[0].percent", "100"),
        (with_traffic({"percent": 100, "tag": "A"}), "spec.traffic[0].tag", "DNS-1035"),
        (with_traffic({"percent": 100, "tag": "a\r\nb"}), "spec.traffic[0].tag", "DNS-1035"),
        (with_traffic({"percent": 100, "tag": "a"}, {"tag": "a"}), "spec.traffic[1].tag", "another"),
        (with_traffic({"percent": 100, "url": "x"}), "spec.traffic[0].url", "may not be set"),
        (with_traffic({"percent": 100, "configurationName": "x"}), "spec.traffic[0].configurationName", "its own"),
        (
            with_traffic({"percent": 100, "revisionName": "x", "latestRevision": True}),
            "spec.traffic[0].latestRevision",
            "must be false",
        ),
        (
            with_traffic({"percent": 100, "latestRevision": False}),
            "spec.traffic[0].latestRevision",
            "must be true",
        ),
        (
            with_traffic({"percent": 100, "revisionName": "x", "configurationName": "y"}),
            "spec.traffic[0]",
            "not both",
        ),
    ],
)
def test_fault_names_its_field_and_why(manifest: dict[str, Any], field: str, message: str) -> None:
    reasons = found(manifest)
    assert any(message in reason for name, reason in reasons.items() if name.startswith(field)), reasons


def test_all_faults_are_told_at_once() -> None:
    manifest = service({"timeoutSeconds": 900, "fooBar": 1}, imagee="x", env=[{"name": "K_SERVICE"}])
    manifest["metadata"]["name"] = "-"
    assert set(found(manifest)) == {
        "metadata.name",
        "spec.template.spec.timeoutSeconds",
        "spec.template.spec.fooBar",
        f"{CONTAINER}.imagee",
        f"{CONTAINER}.env[0].name",
    }


def test_defaults_are_knatives() -> None:
    spec = completed(service())["spec"]
    assert spec["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert spec["template"]["spec"] == {
        "containerConcurrency": 0,
        "timeoutSeconds": 300,
        "enableServiceLinks": False,
        "containers": [
            {
                "name": "user-container",
                "image": "app",
                "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
                "resources": {},
            }
        ],
    }


def test_what_is_said_is_kept() -> None:
    manifest = service(
        {
            "timeoutSeconds": 10,
            "responseStartTimeoutSeconds": 5,
            "idleTimeoutSeconds": 3,
            "containerConcurrency": 7,
        },
        name="mine",
        command=["run"],
        args=["-v"],
        ports=[{"name": "h2c", "containerPort": 8000}],
        readinessProbe={"httpGet": {"path": "/ready"}, "periodSeconds": 2},
        resources={"limits": {"cpu": 1, "memory": "1Gi"}},
    )
    manifest["spec"]["traffic"] = [
        {"revisionName": "hello-00001", "percent": 40},
        {"percent": 60, "tag": "new"},
        {"revisionName": "hello-00001", "tag": "old"},
    ]
    spec = completed(manifest)["spec"]
    template = spec["template"]["spec"]
    assert {name: template[name] for name in manifest["spec"]["template"]["spec"] if name != "containers"} == {
        "timeoutSeconds": 10,
        "responseStartTimeoutSeconds": 5,
        "idleTimeoutSeconds": 3,
        "containerConcurrency": 7,
    }
    given_container = manifest["spec"]["template"]["spec"]["containers"][0]
    expected_probe = {"httpGet": {"path": "/ready"}, "periodSeconds": 2, "successThreshold": 1}
    assert template["containers"] == [{**given_container, "readinessProbe": expected_probe}]
    assert spec["traffic"] == [
        {"revisionName": "hello-00001", "latestRevision": False, "percent": 40},
        {"latestRevision": True, "percent": 60, "tag": "new"},
        {"revisionName": "hello-00001", "latestRevision": False, "percent": 0, "tag": "old"},
    ]


def test_defaults_of_the_platform_replace_knatives() -> None:
    defaults = Defaults(
        timeout_seconds=700,
        max_timeout_seconds=900,
        response_start_timeout_seconds=30,
        idle_timeout_seconds=20,
        container_concurrency=3,
        container_name="main",
        enable_service_links=True,
    )
    spec = completed(service({"timeoutSeconds": 0}), defaults)["spec"]["template"]["spec"]
    assert (spec["timeoutSeconds"], spec["responseStartTimeoutSeconds"], spec["idleTimeoutSeconds"]) == (
        700,
        30,
        20,
    )
    assert (spec["containerConcurrency"], spec["enableServiceLinks"]) == (3, True)
    assert spec["containers"][0]["name"] == "main"
    assert found(service({"timeoutSeconds": 800}), context=defaults) == {}


def test_zero_concurrency_may_be_forbidden() -> None:
    reasons = found(service({"containerConcurrency": 0}), context=Defaults(allow_zero_concurrency=False))
    assert "from 1" in reasons["spec.template.spec.containerConcurrency"]


def test_finer_timeouts_are_filled_in_only_below_the_whole_one() -> None:
    defaults = Defaults(response_start_timeout_seconds=30, idle_timeout_seconds=30)
    spec = completed(service({"timeoutSeconds": 30}), defaults)["spec"]["template"]["spec"]
    assert "responseStartTimeoutSeconds" not in spec
    assert "idleTimeoutSeconds" not in spec


def test_fields_of_kubernetes_that_are_not_ours_pass_through() -> None:
    kept_in_container = {
        "volumeMounts": [{"name": "x", "mountPath": "/x", "anything": {"at": "all"}}],
        "securityContext": {"runAsUser": 1000},
        "imagePullPolicy": "Always",
        "workingDir": "/app",
        "envFrom": [{"secretRef": {"name": "s"}}],
    }
    kept_in_pod = {
        "volumes": [{"name": "x", "emptyDir": {}}],
        "serviceAccountName": "robot",
        "hostPID": True,
        "setHostnameAsFQDN": False,
        "nodeSelector": {"disk": "ssd"},
    }
    template = completed(service(kept_in_pod, **kept_in_container))["spec"]["template"]["spec"]
    assert {name: template[name] for name in kept_in_pod} == kept_in_pod
    assert {name: template["containers"][0][name] for name in kept_in_container} == kept_in_container


def test_environment_from_elsewhere_passes_through() -> None:
    env = [{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    assert completed(service(env=env))["spec"]["template"]["spec"]["containers"][0]["env"] == env


def test_container_with_ports_serves_and_the_other_is_beside_it() -> None:
    containers = [{"image": "side"}, {"image": "app", "ports": [{"containerPort": 8080}]}]
    side, app = completed(service({"containers": containers}))["spec"]["template"]["spec"]["containers"]
    assert (side["name"], app["name"]) == ("user-container-0", "user-container")
    assert "readinessProbe" not in side
    assert "readinessProbe" in app


def test_given_revision_name_begins_with_the_services() -> None:
    assert found(with_template_metadata(name="hello-blue")) == {}


@pytest.mark.parametrize(
    ("kind", "model", "spec"),
    [
        ("Service", Service, {"template": {"spec": {"containers": [{"image": "a"}]}}}),
        ("Configuration", Configuration, {"template": {"spec": {"containers": [{"image": "a"}]}}}),
        ("Revision", Revision, {"containers": [{"image": "a"}]}),
        ("Route", Route, {"traffic": [{"configurationName": "hello", "percent": 100}]}),
    ],
)
def test_printed_object_is_taken_again(kind: str, model: type[Service], spec: dict[str, Any]) -> None:
    manifest: dict[str, Any] = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": kind,
        "metadata": {
            "name": "hello",
            "namespace": "default",
            "uid": "0a",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1", "controller": True}],
        },
        "spec": spec,
        "status": {
            "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
            "of_a_later_version": 1,
        },
    }
    printed = model.model_validate(manifest).to_manifest()
    del manifest["status"]["of_a_later_version"]
    assert printed == manifest
    assert model.model_validate(printed).to_manifest() == printed


numbers = st.none() | st.integers(-5, 1100)


@given(numbers, numbers, numbers, numbers)
def test_completing_is_idempotent_and_stays_valid(
    timeout: int | None, start: int | None, idle: int | None, concurrency: int | None
) -> None:
    limits = {
        "timeoutSeconds": timeout,
        "responseStartTimeoutSeconds": start,
        "idleTimeoutSeconds": idle,
        "containerConcurrency": concurrency,
    }
    manifest = service({name: value for name, value in limits.items() if value is not None})
    if found(manifest):
        return
    once = completed(manifest)
    assert completed(once) == once


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("spec",), "spec"),
        (("spec", "containers", 0, "env", 1), "spec.containers[0].env[1]"),
        (("metadata", "labels", "a.b/c"), "metadata.labels['a.b/c']"),
    ],
)
def test_path_of_a_field_reads_as_people_write_it(path: tuple[str | int, ...], text: str) -> None:
    assert field_path(path) == text

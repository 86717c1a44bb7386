"""Which manifests are taken, what they become, and which field a refusal names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.autoscaler.spec import AutoscalerConfig
from upwell.functions.api.meta import field_path
from upwell.functions.api.serving import Defaults
from upwell.functions.manifest import load_manifests
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION, CommandReference, SourceReference
from upwell.runtime.control.admission import SIZE_LIMIT, AdmissionContext, Admitted, Refused, admit, key_of
from upwell.runtime.control.config import ConfigLayers
from upwell.runtime.control.revision import PROGRESS_DEADLINE

CONTEXT = AdmissionContext()
TEMPLATE = "spec.template"
CONTAINER = "spec.template.spec.containers[0]"
SOURCE = CommandReference(("serve",)).annotation()
OTHER_SOURCE = CommandReference(("serve", "more")).annotation()


def service(*, revision: str | None = None, labels: dict[str, str] | None = None, **container: Any) -> Manifest:
    template: dict[str, Any] = {"spec": {"containers": [{"image": "app:1", **container}]}}
    if revision is not None:
        template["metadata"] = {"name": revision}
    metadata: dict[str, Any] = {"name": "hello"}
    if labels is not None:
        metadata["labels"] = labels
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"template": template},
    }


def annotated(annotations: dict[str, str], *, template: bool = True) -> Manifest:
    manifest = service()
    place = manifest["spec"]["template"].setdefault("metadata", {}) if template else manifest["metadata"]
    place["annotations"] = annotations
    return manifest


def with_pod(**pod: Any) -> Manifest:
    manifest = service()
    manifest["spec"]["template"]["spec"].update(pod)
    return manifest


def config_map(name: str, data: dict[str, Any], namespace: str = "knative-serving") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def stored(admitted: Admitted, version: str = "7") -> Manifest:
    """The object as a store and a reconciler leave it."""
    manifest = copy.deepcopy(admitted.manifest)
    manifest["metadata"] |= {
        "uid": "u",
        "resourceVersion": version,
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return manifest | {"status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}}


def refusal(manifest: object, existing: Manifest | None = None, context: AdmissionContext = CONTEXT) -> str:
    """`field: message` of the first fault; empty when there is none."""
    error = refused(manifest, existing, context)
    if error is None:
        return ""
    assert error.index == 3
    assert error.where == error.faults[0].field
    assert error.exit_code == 2
    return f"{error.where}: {error.what}"


def refused(manifest: object, existing: Manifest | None, context: AdmissionContext) -> Refused | None:
    try:
        admit(manifest, existing, context, index=3)
    except Refused as error:
        return error
    return None


def with_source(manifest: Manifest, source: str = SOURCE, existing: Manifest | None = None) -> Admitted:
    return admit(manifest, existing, AdmissionContext(sources={"app:1": source}))


def source_of(admitted: Admitted) -> str | None:
    annotations: dict[str, str] = admitted.manifest["spec"]["template"].get("metadata", {}).get("annotations", {})
    return annotations.get(SOURCE_ANNOTATION)


# What is taken


def test_the_articles_manifest_is_taken_as_it_is_printed() -> None:
    text = (Path(__file__).parents[2] / "examples/helloworld/helloworld-go.yaml").read_text()
    (manifest,) = load_manifests(text, "helloworld-go.yaml")
    admitted = admit(manifest.data, None, CONTEXT)
    assert (admitted.action, admitted.warnings) == ("created", ())
    template = admitted.manifest["spec"]["template"]["spec"]
    assert template["containers"][0]["image"].startswith("registry.{REGION-ID}.")
    assert (template["timeoutSeconds"], template["containerConcurrency"]) == (300, 0)
    assert admitted.manifest["metadata"]["namespace"] == "default"


def test_what_is_left_out_is_what_config_defaults_says() -> None:
    defaults = Defaults(timeout_seconds=60, response_start_timeout_seconds=20, container_concurrency=4)
    spec = admit(service(), None, AdmissionContext(defaults)).manifest["spec"]["template"]["spec"]
    assert (spec["timeoutSeconds"], spec["responseStartTimeoutSeconds"]) == (60, 20)
    assert spec["containerConcurrency"] == 4


@pytest.mark.parametrize("key", ["networking.knative.dev/http-protocol", "networking.knative.dev/httpOption"])
def test_how_plain_http_is_answered_has_to_be_spelled_right(key: str) -> None:
    for value in ("", "enabled", "Redirected"):
        assert admit(annotated({key: value}, template=False), None, CONTEXT).action == "created"
    with pytest.raises(Refused) as raised:
        admit(annotated({key: "redirectd"}, template=False), None, CONTEXT)
    (fault,) = raised.value.faults
    assert fault.field == f"metadata.annotations['{key}']"
    assert fault.message == "must be enabled or redirected, was 'redirectd'"


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (None, ": not an object"),
        ([], ": not an object"),
        ({}, "apiVersion: required"),
        ({"apiVersion": "v1", "kind": ["Service"]}, "kind: must be a string"),
        ({"apiVersion": "v1", "kind": "Service"}, "apiVersion: must be serving.knative.dev/v1"),
        ({"apiVersion": "apps/v1", "kind": "Deployment"}, "kind: taken are Service"),
        (
            {"apiVersion": "serving.knative.dev/v1", "kind": "Servce"},
            "kind: there is no kind Servce; did you mean Service?",
        ),
        ({**service(), "metadata": None}, "metadata: "),
        ({**service(), "spec": {"template": {}}}, "spec.template.spec: required"),
        (config_map("config-observability", {}), "metadata.name: taken are config-autoscaler, config-defaults"),
        (config_map("config-domain", {}, "default"), "metadata.namespace: must be knative-serving"),
        (config_map("config-domain", {"a": 1}), "data.a: must be a string"),
        (config_map("config-domain", {"a b": ""}), "data['a b']: 'a b' cannot be a key"),
        (config_map("config-autoscaler", {"stable-window": "1s"}), "data.stable-window: must lie between"),
        (config_map("config-defaults", {"revision-timeout-seconds": "x"}), "data.revision-timeout-seconds: "),
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "A"}}, "metadata.name: "),
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}}, "metadata.names"),
        (service(env=[{"name": "A", "value": "\0"}]), f"{CONTAINER}.env[0].value: holds a null"),
        (service(command=["a", "\0"]), f"{CONTAINER}.command[1]: holds a null"),
    ],
)
def test_what_is_not_taken_is_refused_by_its_field(manifest: object, told: str) -> None:
    assert refusal(manifest).startswith(told)


def test_all_fields_at_fault_are_told() -> None:
    manifest = service(imagePullPolic="Always", env=[{"name": "PORT"}])
    with pytest.raises(Refused) as raised:
        admit(manifest, None, CONTEXT)
    assert [fault.field for fault in raised.value.faults] == [
        f"{CONTAINER}.env[0].name",
        f"{CONTAINER}.imagePullPolic",
    ]
    assert f"{CONTAINER}.imagePullPolic: unknown field" in raised.value.hint


def test_an_object_has_a_key_before_it_is_checked() -> None:
    assert str(key_of(service())) == "Service.serving.knative.dev default/hello"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}}
    assert key_of(namespace)[1:] == ("", "a")
    for metadata in (None, {}, {"name": 1}, {"name": "a", "namespace": 1}):
        with pytest.raises(Refused):
            key_of({**service(), "metadata": metadata})


# Limits


def test_an_object_that_is_too_large_too_deep_or_no_json_is_refused() -> None:
    large = service(env=[{"name": "A", "value": "x" * SIZE_LIMIT}])
    assert "1 MiB" in refusal(large)
    nested: Any = "x"
    for _ in range(200):
        nested = [nested]
    assert "nested deeper" in refusal(with_pod(volumes=nested))
    assert "JSON" in refusal(with_pod(volumes=[float("nan")]))
    assert "JSON" in refusal(service(env=[{"name": "A", "value": "\ud800"}]))
    assert "JSON" in refusal(with_pod(volumes=[{1, 2}]))


# Autoscaling annotations


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "0"),
        ("window", "5s"),
        ("min-scale", "-1"),
        ("metric", "rt"),
        ("class", "vpa.autoscaling.knative.dev"),
    ],
)
def test_an_autoscaling_annotation_that_knative_refuses_is_refused_here(key: str, value: str) -> None:
    key = f"autoscaling.knative.dev/{key}"
    path = field_path(("spec", "template", "metadata", "annotations", key))
    assert refusal(annotated({key: value})).startswith(f"{path}: must be")


@pytest.mark.parametrize("text", ["0s", "-5s", "1.5s", "soon", ""])
def test_a_progress_deadline_that_is_none_is_refused(text: str) -> None:
    path = field_path(("spec", "template", "metadata", "annotations", PROGRESS_DEADLINE))
    assert refusal(annotated({PROGRESS_DEADLINE: text})).startswith(f"{path}: not a")
    assert refusal(annotated({PROGRESS_DEADLINE: "90s"})) == ""


def test_the_clusters_limits_of_scale_count() -> None:
    manifest = annotated({"autoscaling.knative.dev/initial-scale": "0"})
    assert "initial-scale" in refusal(manifest)
    lenient = AdmissionContext(autoscaler=AutoscalerConfig(allow_zero_initial_scale=True))
    assert refusal(manifest, context=lenient) == ""
    limited = AdmissionContext(autoscaler=AutoscalerConfig(max_scale=5, max_scale_limit=10))
    assert "max-scale-limit" in refusal(annotated({"autoscaling.knative.dev/max-scale": "11"}), context=limited)


def test_an_autoscaling_annotation_in_the_wrong_place_is_told_where_it_belongs() -> None:
    told = refusal(annotated({"autoscaling.knative.dev/target": "5"}, template=False))
    assert told.startswith("metadata.annotations['autoscaling.knative.dev/target']: ")
    assert "spec.template.metadata.annotations" in told


def test_an_annotation_that_sets_nothing_is_kept_and_warned_of() -> None:
    place = "spec.template.metadata.annotations['autoscaling.knative.dev/"
    admitted = admit(annotated({"autoscaling.knative.dev/minscale": "1", "mine/minscale": "1"}), None, CONTEXT)
    assert admitted.warnings == (
        f"{place}minscale']: no such annotation, so it sets nothing; "
        "did you mean autoscaling.knative.dev/min-scale?",
    )
    assert len(admitted.manifest["spec"]["template"]["metadata"]["annotations"]) == 2
    hpa = admit(annotated({"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"}), None, CONTEXT)
    assert hpa.warnings == ()
    for name in ("minScale", "window", "target-burst-capacity"):
        value = "60s" if name == "window" else "1"
        assert admit(annotated({f"autoscaling.knative.dev/{name}": value}), None, CONTEXT).warnings == ()


# Beside what is stored


def test_the_same_manifest_again_changes_nothing() -> None:
    first = admit(service(), None, CONTEXT)
    again = admit(service(), stored(first), CONTEXT)
    assert (first.action, again.action) == ("created", "unchanged")


def test_what_get_prints_can_be_applied_again() -> None:
    printed = stored(with_source(service()))
    printed["metadata"]["managedFields"] = [{"anything": 1}]
    printed["status"]["traffic"] = "another version's"
    assert admit(printed, stored(with_source(service())), CONTEXT).action == "unchanged"
    elsewhere = admit(printed, None, CONTEXT)
    assert (elsewhere.action, source_of(elsewhere)) == ("created", SOURCE)
    assert "uid" not in elsewhere.manifest["metadata"]
    assert "status" not in elsewhere.manifest


def test_a_change_keeps_what_the_platform_noted() -> None:
    existing = stored(admit(service(), None, CONTEXT))
    existing["metadata"]["finalizers"] = ["a.b/c"]
    changed = admit(service(args=["x"], labels={"a": "b"}), existing, CONTEXT)
    assert changed.action == "configured"
    metadata = changed.manifest["metadata"]
    assert (metadata["uid"], metadata["finalizers"], metadata["labels"]) == ("u", ["a.b/c"], {"a": "b"})
    assert "resourceVersion" not in metadata, "the platform's own writes in between are no conflict"
    assert changed.manifest["status"] == existing["status"]


@pytest.mark.parametrize(
    "change", [{"labels": {"a": "b"}}, {"env": [{"name": "A", "value": "b"}]}, {"image": "app:2"}]
)
def test_every_change_of_what_is_declared_is_one(change: dict[str, Any]) -> None:
    existing = stored(admit(service(), None, CONTEXT))
    assert admit(service(**change), existing, CONTEXT).action == "configured"


def test_config_maps_are_compared_too() -> None:
    context = AdmissionContext(layers=ConfigLayers(("localhost",)))
    first = admit(config_map("config-domain", {"a.example": ""}), None, context)
    assert admit(config_map("config-domain", {"a.example": ""}), stored(first), context).action == "unchanged"
    assert admit(config_map("config-domain", {"b.example": ""}), stored(first), context).action == "configured"


def test_a_key_that_sets_nothing_is_warned_of() -> None:
    admitted = admit(config_map("config-autoscaler", {"stabel-window": "60s", "_example": "x"}), None, CONTEXT)
    assert admitted.warnings == (
        "data.stabel-window: not a key of this ConfigMap, so it sets nothing; did you mean stable-window?",
    )


# Sources


def test_what_an_image_is_mapped_to_is_recorded_and_kept_for_as_long_as_the_image_is_the_same() -> None:
    first = with_source(service())
    assert source_of(first) == SOURCE
    kept = admit(service(args=["x"]), stored(first), CONTEXT)
    assert source_of(kept) == SOURCE
    assert source_of(admit(service(image="app:2"), stored(first), CONTEXT)) is None
    assert source_of(with_source(service(), OTHER_SOURCE, stored(first))) == OTHER_SOURCE
    assert with_source(service(), OTHER_SOURCE, stored(first)).action == "configured"
    assert with_source(service(), SOURCE, stored(first)).action == "unchanged"


def test_the_same_source_from_another_place_is_the_same() -> None:
    def at(origin: str, digest: str) -> str:
        return SourceReference(digest * 64, "main", None, origin).annotation()

    first = with_source(service(), at("/one", "a"))
    moved = with_source(service(), at("/other", "a"), stored(first))
    assert (moved.action, source_of(moved)) == ("unchanged", at("/one", "a"))
    edited = with_source(service(), at("/one", "b"), stored(first))
    assert (edited.action, source_of(edited)) == ("configured", at("/one", "b"))
    damaged = stored(first)
    damaged["spec"]["template"]["metadata"]["annotations"][SOURCE_ANNOTATION] = "{"
    assert with_source(service(), at("/one", "a"), damaged).action == "configured"


@pytest.mark.parametrize(
    "value",
    ["", "{", "[]", "{}", '{"bundle":"../../x","module":"m"}', '{"bundle":1,"module":"m"}', '{"command":[]}'],
)
def test_a_source_that_a_manifest_gives_itself_must_be_one(value: str) -> None:
    assert "upwell.dev/source" in refusal(annotated({SOURCE_ANNOTATION: value}))


# Names of revisions


def test_a_given_revision_name_stands_for_one_template() -> None:
    existing = stored(with_source(service(revision="hello-blue")))
    told = refusal(service(revision="hello-blue", args=["x"]), existing)
    assert told.startswith("spec.template.metadata.name: the template changed, but not the revision's name")
    assert refusal(service(revision="hello-green", args=["x"]), existing) == ""
    assert refusal(service(args=["x"]), existing) == ""
    assert refusal(service(revision="hello-blue"), existing) == ""
    assert refusal(service(revision="hello-blue", labels={"a": "b"}), existing) == ""


def test_a_given_revision_name_stands_for_one_source_but_may_get_the_first() -> None:
    existing = stored(with_source(service(revision="hello-blue")))
    with pytest.raises(Refused, match="its source changed"):
        with_source(service(revision="hello-blue"), OTHER_SOURCE, existing)
    unmapped = stored(admit(service(revision="hello-blue"), None, CONTEXT))
    assert with_source(service(revision="hello-blue"), SOURCE, unmapped).action == "configured"
    with pytest.raises(Refused, match="the template changed"):
        with_source(service(revision="hello-blue", args=["x"]), SOURCE, unmapped)


# Whatever comes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(each for key, below in inner for each in paths(below, (*path, key)))]


FULL = with_pod(
    containerConcurrency=3,
    volumes=[{"name": "v", "emptyDir": {}}],
    containers=[
        {
            "image": "app",
            "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"secretKeyRef": {"optional": True}}}],
            "envFrom": [{"secretRef": {"name": "s", "optional": True}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "ports": [{"containerPort": 80, "name": "h2c"}],
            "readinessProbe": {"httpGet": {"path": "/"}},
            "resources": {"limits": {"memory": "1Gi"}},
        }
    ],
)
FULL["spec"]["template"]["metadata"] = {"annotations": {"autoscaling.knative.dev/target": "5"}}
FULL["spec"]["traffic"] = [{"latestRevision": True, "percent": 100}]
CONFIGURED = config_map("config-domain", {"a.example": "selector:\n  app: x", "b.example": ""})


@pytest.mark.parametrize("manifest", [FULL, CONFIGURED])
def test_the_manifests_that_are_altered_below_are_taken(manifest: Manifest) -> None:
    assert refusal(manifest) == ""


@settings(max_examples=300)
@given(st.data())
def test_whatever_a_manifest_holds_it_is_taken_or_refused(data: st.DataObject) -> None:
    manifest: Any = copy.deepcopy(data.draw(st.sampled_from([FULL, CONFIGURED])))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths(manifest)))
        value = data.draw(JSON)
        if not path:
            manifest = value
            break
        place = manifest
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
    error = refused(manifest, None, CONTEXT)
    if error is not None:
        assert error.faults
        assert all(fault.message for fault in error.faults)
        return
    admitted = admit(manifest, None, CONTEXT)
    json.dumps(admitted.manifest, allow_nan=False).encode()
    assert admit(manifest, stored(admitted), CONTEXT).action == "unchanged"


@given(JSON)
def test_whatever_is_no_manifest_is_refused(value: object) -> None:
    with pytest.raises(Refused):
        admit(value, None, CONTEXT)


@pytest.mark.parametrize("number", [2**64, -(2**64), 10**400])
def test_an_integer_that_no_field_can_mean_is_refused(number: int) -> None:
    delay = {"percentage": {"value": number}, "httpStatus": 500}
    route = {"fault": {"abort": delay}, "route": [{"destination": {"host": "hello"}}]}
    manifest = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "v"},
        "spec": {"hosts": ["hello"], "http": [route]},
    }
    assert "64 bits" in refusal(manifest)

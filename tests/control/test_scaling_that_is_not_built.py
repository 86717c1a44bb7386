"""A Service that asks to be scaled by what is not built: taken with a warning, and told of on its Revision."""

from __future__ import annotations

from typing import Any

import pytest

from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.spec import AutoscalerConfig
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.admission import AdmissionContext, Refused, admit
from upwell.runtime.control.conditions import find
from upwell.runtime.control.revision import revision_settings, revision_status

HPA = {"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"}
AHPA = {
    "autoscaling.knative.dev/class": "ahpa.autoscaling.knative.dev",
    "autoscaling.knative.dev/metric": "rt",
    "autoscaling.knative.dev/target": "500",
    "autoscaling.alibabacloud.com/scaleStrategy": "observer",
    "knative.aliyun.com/reserve-instance": "enable",
}
PLACE = "spec.template.metadata.annotations"


def service(annotations: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {
            "template": {"metadata": {"annotations": annotations}, "spec": {"containers": [{"image": "app"}]}}
        },
    }


def warnings(annotations: dict[str, str], config: AutoscalerConfig | None = None) -> tuple[str, ...]:
    context = AdmissionContext(autoscaler=config or AutoscalerConfig())
    return admit(service(annotations), None, context).warnings


def revision(annotations: dict[str, str], **spec: Any) -> Manifest:
    return {"metadata": {"name": "hello-00001", "annotations": annotations}, "spec": spec}


def conditions(annotations: dict[str, str], config: AutoscalerConfig | None = None) -> dict[str, dict[str, str]]:
    status = revision_status(revision(annotations), None, config or AutoscalerConfig(), 0.0, has_source=True)
    return {each["type"]: each for each in status["conditions"]}


def test_a_cloud_s_own_class_and_annotations_are_taken_with_a_warning_each() -> None:
    told = warnings(AHPA)
    assert len(told) == 3
    assert told[0].startswith(f"{PLACE}['autoscaling.knative.dev/class']: is ahpa.autoscaling.knative.dev")
    assert "replicas follow kpa.autoscaling.knative.dev with its default metric and target" in told[0]
    assert {line.split(": ")[0] for line in told[1:]} == {
        f"{PLACE}['autoscaling.alibabacloud.com/scaleStrategy']",
        f"{PLACE}['knative.aliyun.com/reserve-instance']",
    }


def test_the_revision_says_what_scales_it_instead_and_is_none_the_less_ready() -> None:
    found = conditions(AHPA)["ScalingAsDeclared"]
    assert (found["status"], found["reason"], found["severity"]) == ("False", "NotBuilt", "Warning")
    assert "replicas follow kpa.autoscaling.knative.dev" in found["message"]
    assert "knative.aliyun.com/reserve-instance is kept" in found["message"]
    deployment = {
        "spec": {"replicas": 1},
        "status": {"readyReplicas": 1, "conditions": [{"type": "Available", "status": "True"}]},
    }
    status = revision_status(revision(AHPA), deployment, AutoscalerConfig(), 0.0, has_source=True)
    ready = find({"status": status}, "Ready")
    assert ready is not None
    assert ready.status == "True"


def test_it_is_scaled_by_concurrency_and_not_by_its_response_time() -> None:
    settings = revision_settings(AutoscalerConfig(), revision(AHPA, containerConcurrency=10))
    assert (settings.metric, settings.total_value, settings.target_value) == ("concurrency", 10.0, 7.0)


def test_the_clusters_class_is_told_of_as_the_config_maps() -> None:
    config = AutoscalerConfig(pod_autoscaler_class="mine.example.com")
    [told] = warnings({}, config)
    assert told.startswith("config-autoscaler: pod-autoscaler-class: is mine.example.com, which is not built")
    assert "mine.example.com" in conditions({}, config)["ScalingAsDeclared"]["message"]


@pytest.mark.parametrize("annotations", [{}, HPA, {"autoscaling.knative.dev/target": "5"}])
def test_what_is_built_has_neither_warning_nor_condition(annotations: dict[str, str]) -> None:
    assert warnings(annotations) == ()
    assert "ScalingAsDeclared" not in conditions(annotations)


@pytest.mark.parametrize(("written", "seconds"), [("90s", 90.0), ("2m", 120.0), ("soon", 600.0), (None, 600.0)])
def test_a_revision_may_say_how_long_its_replicas_may_take(written: str | None, seconds: float) -> None:
    annotations = {} if written is None else {"serving.knative.dev/progress-deadline": written}
    assert revision_settings(AutoscalerConfig(), revision(annotations)).progress_deadline == seconds


def test_an_initial_scale_above_the_greatest_is_reached_with_the_greatest() -> None:
    annotations = {"autoscaling.knative.dev/initial-scale": "5", "autoscaling.knative.dev/max-scale": "2"}
    deployment = {"spec": {"replicas": 2}, "status": {"readyReplicas": 2}}
    status = revision_status(revision(annotations), deployment, AutoscalerConfig(), 0.0, has_source=True)
    initialized = find({"status": status}, "ScaleTargetInitialized")
    assert initialized is not None
    assert initialized.status == "True"


def test_metrics_and_behavior_are_checked_with_the_manifest() -> None:
    metrics = "- {metric: concurrency, target: 10}\n- {metric: cpu, target: 70}\n"
    assert warnings({"autoscaling.upwell.dev/metrics": metrics}) == ()
    behavior = "scaleDown: {stabilizationWindowSeconds: 30}"
    assert warnings({**HPA, "autoscaling.upwell.dev/behavior": behavior}) == ()
    with pytest.raises(Refused, match=r"metrics.*cannot be read: metric 1 must be one of"):
        warnings({"autoscaling.upwell.dev/metrics": "[{metric: gpu, target: 1}]"})
    misplaced = service({})
    misplaced["metadata"]["annotations"] = {"autoscaling.upwell.dev/metrics": metrics}
    with pytest.raises(Refused, match=r"counts only in spec\.template\.metadata\.annotations"):
        admit(misplaced, None, AdmissionContext())


@pytest.mark.parametrize(
    ("resources", "cores"),
    [
        (None, 1.0),
        ({"requests": {"cpu": "250m"}, "limits": {"cpu": "2"}}, 0.25),
        ({"limits": {"cpu": "2"}}, 2.0),
        ({"limits": {"memory": "1Gi"}}, 1.0),
        ({"requests": {"cpu": "much"}}, 1.0),
        ({"requests": {"cpu": 0.5}}, 0.5),
    ],
)
def test_use_of_cpu_is_measured_against_what_the_container_asks_for(
    resources: dict[str, Any] | None, cores: float
) -> None:
    container = {"image": "app"} | ({"resources": resources} if resources else {})
    settings = revision_settings(AutoscalerConfig(), revision(HPA, containers=[container]))
    assert settings.cpu_request == cores
    assert settings.metrics == (MetricTarget("cpu", 80.0),)

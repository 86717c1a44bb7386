"""The annotations that say by what else a revision is scaled, and how fast: what they come to, what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler.annotations import (
    AHPA,
    BEHAVIOR,
    HPA,
    KPA,
    METRICS,
    doubtful,
    not_built,
    unknown_annotations,
    validate_annotations,
)
from upwell.autoscaler.behavior import DEFAULT_BEHAVIOR, PolicyType, ScalingPolicy, SelectPolicy
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.quantities import parse_quantity
from upwell.autoscaler.spec import AutoscalerConfig, RevisionSettings

CONFIG = AutoscalerConfig()
CLASS = "autoscaling.knative.dev/class"
METRIC = "autoscaling.knative.dev/metric"
TARGET = "autoscaling.knative.dev/target"


def resolve(metrics: object = None, behavior: object = None, **knative: str) -> RevisionSettings:
    annotations = {f"autoscaling.knative.dev/{name}": text for name, text in knative.items()}
    if metrics is not None:
        annotations[METRICS] = metrics if isinstance(metrics, str) else json.dumps(metrics)
    if behavior is not None:
        annotations[BEHAVIOR] = behavior if isinstance(behavior, str) else json.dumps(behavior)
    return CONFIG.resolve(annotations)


def refused(key: str, written: object, **knative: str) -> str:
    annotations = {f"autoscaling.knative.dev/{name}": text for name, text in knative.items()}
    annotations[key] = written if isinstance(written, str) else json.dumps(written)
    problems = validate_annotations(annotations, CONFIG)
    assert [found for found, _ in problems] in ([key], [])
    return problems[0][1] if problems else ""


# What they come to


def test_metrics_are_read_as_yaml_and_as_json() -> None:
    written = "- metric: cpu\n  target: 70\n- {metric: prometheus, target: 0.5, query: 'sum(x{a=\"1\"})'}\n"
    expected = (MetricTarget("cpu", 70.0), MetricTarget("prometheus", 0.5, 'sum(x{a="1"})'))
    assert resolve(written).metrics == expected
    as_json = [{"metric": each.metric, "target": each.target, "query": each.query} for each in expected]
    assert resolve(as_json).metrics == expected
    assert refused(METRICS, written) == ""


def test_a_listed_request_metric_is_the_kpas_own() -> None:
    settings = resolve([{"metric": "backlog", "target": 5}, {"metric": "rps", "target": 50}])
    assert (settings.metric, settings.total_value, settings.target_value) == ("rps", 50.0, 35.0)
    assert settings.metrics == (MetricTarget("backlog", 5.0),)
    limited = CONFIG.resolve({METRICS: '[{"metric": "concurrency", "target": 50}]'}, container_concurrency=10)
    assert (limited.metric, limited.total_value, limited.metrics) == ("concurrency", 10.0, ())


def test_without_a_listed_request_metric_requests_count_as_ever() -> None:
    settings = resolve([{"metric": "memory", "target": 200}], metric="rps", target="10")
    assert (settings.metric, settings.total_value) == ("rps", 10.0)
    assert settings.metrics == (MetricTarget("memory", 200.0),)


def test_an_hpa_has_its_own_metric_and_those_listed() -> None:
    listed = [{"metric": "cpu", "target": 60}, {"metric": "concurrency", "target": 8}]
    both = resolve(listed, **{"class": HPA})
    assert both.metrics == (MetricTarget("cpu", 60.0), MetricTarget("concurrency", 8.0))
    assert both.metric == "concurrency"
    more = resolve(listed[1:], **{"class": HPA}, metric="memory", target="300")
    assert more.metrics == (MetricTarget("memory", 300.0), MetricTarget("concurrency", 8.0))
    assert resolve(listed[1:], **{"class": HPA}).metrics == (MetricTarget("concurrency", 8.0),)


def test_behavior_has_the_shape_of_kubernetes_and_its_defaults() -> None:
    written = "scaleDown:\n  policies: [{type: Pods, value: 2, periodSeconds: 60}]\n  selectPolicy: Min\n"
    behavior = resolve(behavior=written, **{"class": HPA}).behavior
    assert behavior.scale_up == DEFAULT_BEHAVIOR.scale_up
    assert behavior.scale_down.policies == (ScalingPolicy(PolicyType.PODS, 2, 60),)
    assert (behavior.scale_down.select_policy, behavior.scale_down.stabilization_window) == (SelectPolicy.MIN, 300)
    assert refused(BEHAVIOR, written) == ""


def test_what_behavior_says_of_stabilization_stands_above_the_window() -> None:
    behavior = resolve(behavior={"scaleUp": {"stabilizationWindowSeconds": 5}}, window="60s").behavior
    assert (behavior.scale_up.stabilization_window, behavior.scale_down.stabilization_window) == (5, 60)


def test_the_default_behavior_is_that_of_kubernetes() -> None:
    up, down = DEFAULT_BEHAVIOR.scale_up, DEFAULT_BEHAVIOR.scale_down
    assert up.policies == (ScalingPolicy(PolicyType.PERCENT, 100, 15), ScalingPolicy(PolicyType.PODS, 4, 15))
    assert down.policies == (ScalingPolicy(PolicyType.PERCENT, 100, 15),)
    assert (up.stabilization_window, down.stabilization_window) == (0, 300)
    assert (up.tolerance, down.tolerance) == (0.1, 0.1)


@pytest.mark.parametrize("written", ["", "cpu", "[", "[{metric: cpu}]", "[{metric: cpu, target: 1}, 2]"])
def test_what_does_not_parse_counts_as_absent_once_it_is_stored(written: str) -> None:
    assert resolve(metrics=written) == resolve(behavior=written) == RevisionSettings()


# What is refused


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{", "neither YAML nor JSON"),
        ("[" * 5000, "neither YAML nor JSON"),
        ("x" * 20_000, "longer than 16384 characters"),
        ("cpu", "it is no list"),
        ([], "it must have one to 8 members, not 0"),
        ([{"metric": "cpu", "target": 1}] * 9, "it must have one to 8 members, not 9"),
        (["cpu"], "metric 1 is no mapping"),
        ([{"metric": "gpu", "target": 1}], "metric 1 must be one of concurrency, rps, cpu"),
        ([{"metric": "cpu", "target": 1, "window": 5}], "metric 1 has no 'window', only metric, target, query"),
        ([{"metric": "cpu"}], "metric 1's target must be a number of at least 0.01, was ''"),
        ([{"metric": "cpu", "target": 0}], "metric 1's target must be a number of at least 0.01, was '0'"),
        ([{"metric": "cpu", "target": "nan"}], "metric 1's target must be a number"),
        ([{"metric": "cpu", "target": [1]}], "metric 1's target is no text or number"),
        ([{"metric": "prometheus", "target": 1}], "metric 1 needs a query"),
        ([{"metric": "cpu", "target": 1, "query": "up"}], "metric 1, cpu, takes no query"),
        ([{"metric": "cpu", "target": 1}, {"metric": "cpu", "target": 2}], "cpu is listed more than once"),
        ([{"metric": "rps", "target": 1}, {"metric": "concurrency", "target": 2}], "counted in one way"),
    ],
)
def test_a_wrong_list_of_metrics_is_told_what_is_wrong(written: object, told: str) -> None:
    message = refused(METRICS, written)
    assert message.startswith("cannot be read: ")
    assert told in message


def test_two_queries_are_two_metrics() -> None:
    assert refused(METRICS, [{"metric": "prometheus", "target": 1, "query": query} for query in ("a", "b")]) == ""


@pytest.mark.parametrize(
    ("knative", "listed"),
    [
        ({"target": "5"}, "rps"),
        ({"metric": "concurrency"}, "concurrency"),
        ({"class": HPA, "target": "50"}, "cpu"),
        ({"class": HPA, "metric": "memory", "target": "50"}, "memory"),
    ],
)
def test_a_target_that_is_set_twice_is_refused(knative: dict[str, str], listed: str) -> None:
    written = [{"metric": listed, "target": 3}]
    assert "already" in refused(METRICS, written, **knative)
    assert refused(METRICS, [{"metric": "backlog", "target": 3}], **knative) == ""


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("[]", "it is no mapping"),
        ({"up": {}}, "it has no 'up', only scaleUp, scaleDown"),
        ({"scaleUp": {"policies": []}}, "scaleUp.policies must have one to 16 members, not 0"),
        ({"scaleUp": {"policies": [{"type": "Pods"}]}}, "scaleUp.policies[0].value is not a whole number"),
        (
            {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}},
            "scaleUp.policies[0].value must be from 1 to 2147483647, was '0'",
        ),
        (
            {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}},
            "scaleUp.policies[0].periodSeconds must be from 1 to 1800, was '1801'",
        ),
        (
            {"scaleUp": {"policies": [{"type": "Nodes", "value": 1, "periodSeconds": 1}]}},
            "scaleUp.policies[0].type must be one of Pods, Percent, was 'Nodes'",
        ),
        ({"scaleDown": {"selectPolicy": "Most"}}, "scaleDown.selectPolicy must be one of Max, Min, Disabled"),
        ({"scaleDown": {"stabilizationWindowSeconds": 3601}}, "must be from 0 to 3600, was '3601'"),
        ({"scaleDown": {"tolerance": -0.1}}, "scaleDown.tolerance must be from 0, was '-0.1'"),
        ({"scaleDown": {"tolerance": "some"}}, "scaleDown.tolerance is not an amount"),
    ],
)
def test_a_wrong_behavior_is_told_what_is_wrong(written: object, told: str) -> None:
    message = refused(BEHAVIOR, written, **{"class": HPA})
    assert message.startswith("cannot be read: ")
    assert told in message


@given(st.text(max_size=40), st.dictionaries(st.sampled_from([CLASS, METRIC, TARGET]), st.text(max_size=30)))
def test_no_text_stops_reading_or_validation(written: str, knative: dict[str, str]) -> None:
    annotations = {**knative, METRICS: written, BEHAVIOR: written}
    settings = CONFIG.resolve(annotations)
    assert settings.autoscaler_class in (KPA, HPA)
    assert all(0 < each.target < float("inf") for each in settings.metrics)
    for told in (validate_annotations(annotations, CONFIG), not_built(annotations, CONFIG)):
        assert all(message for _, message in told)


def test_a_misspelt_annotation_is_told_which_was_meant() -> None:
    assert unknown_annotations({"autoscaling.upwell.dev/metric": "", METRICS: "", BEHAVIOR: ""}) == [
        ("autoscaling.upwell.dev/metric", METRICS)
    ]
    assert unknown_annotations({"autoscaling.upwell.dev/forecast": ""}) == [
        ("autoscaling.upwell.dev/forecast", None)
    ]
    assert unknown_annotations({"autoscaling.upwell.dev/min-scale": ""}) == [
        ("autoscaling.upwell.dev/min-scale", "autoscaling.knative.dev/min-scale")
    ]


# What is not built


@pytest.mark.parametrize("named", [AHPA, "mpa.example.com"])
def test_a_class_that_is_not_built_runs_as_the_kpa_with_its_default_metric_and_target(named: str) -> None:
    annotations = {CLASS: named, METRIC: "rt", TARGET: "500", "autoscaling.knative.dev/max-scale": "7"}
    assert validate_annotations(annotations, CONFIG) == []
    assert CONFIG.resolve(annotations) == RevisionSettings(max_scale=7)
    assert not_built(annotations, CONFIG) == [
        (
            CLASS,
            f"is {named}, which is not built: replicas follow {KPA} with its default metric and target"
            " (metric and target not read)",
        )
    ]


def test_a_class_that_is_not_built_may_have_further_metrics() -> None:
    listed = '[{"metric": "concurrency", "target": 20}, {"metric": "cpu", "target": 70}]'
    annotations = {CLASS: AHPA, METRIC: "rt", TARGET: "500", METRICS: listed}
    assert validate_annotations(annotations, CONFIG) == []
    settings = CONFIG.resolve(annotations)
    assert (settings.total_value, settings.metrics) == (20.0, (MetricTarget("cpu", 70.0),))


def test_a_class_that_is_not_built_may_be_the_clusters() -> None:
    config = AutoscalerConfig(pod_autoscaler_class=AHPA)
    assert config.resolve({TARGET: "5"}) == RevisionSettings()
    assert [key for key, _ in not_built({TARGET: "5"}, config)] == ["pod-autoscaler-class"]
    assert not_built({CLASS: KPA}, config) == []


def test_a_class_that_somebody_has_built_is_left_alone() -> None:
    settings = CONFIG.resolve(
        {CLASS: "mine.example.com", METRIC: "rt", TARGET: "500"}, classes=("mine.example.com",)
    )
    assert (settings.autoscaler_class, settings.metric, settings.total_value) == ("mine.example.com", "rt", 500.0)


def test_a_metric_that_the_kpa_does_not_know_is_not_taken_for_concurrency() -> None:
    assert CONFIG.resolve({METRIC: "rt", TARGET: "500"}) == RevisionSettings()


def test_what_a_cloud_adds_is_taken_and_told_of() -> None:
    keys = ("knative.aliyun.com/reserve-instance", "autoscaling.alibabacloud.com/scaleStrategy")
    annotations = {**dict.fromkeys(keys, "enable"), TARGET: "5"}
    assert validate_annotations(annotations, CONFIG) == []
    assert [key for key, _ in not_built(annotations, CONFIG)] == list(keys)
    assert CONFIG.resolve(annotations).total_value == 5.0


@pytest.mark.parametrize(
    ("annotations", "key"),
    [
        ({BEHAVIOR: "{}"}, BEHAVIOR),
        ({CLASS: HPA, METRIC: "memory"}, METRIC),
        ({CLASS: HPA, METRIC: "queue-depth", TARGET: "5"}, METRIC),
        ({CLASS: HPA, METRIC: "memory", TARGET: "5", BEHAVIOR: "{}"}, None),
        ({CLASS: HPA, METRIC: "cpu"}, None),
        ({CLASS: HPA}, None),
    ],
)
def test_what_does_something_else_than_it_seems_to_is_told_of(
    annotations: dict[str, str], key: str | None
) -> None:
    assert [found for found, _ in doubtful(annotations, CONFIG)] == ([key] if key else [])


@pytest.mark.parametrize(
    ("written", "amount"),
    [("250m", 0.25), ("0.5", 0.5), ("2", 2.0), ("1e3", 1000.0), ("1Ki", 1024.0), ("3k", 3000.0)],
)
def test_amounts_are_read_as_kubernetes_writes_them(written: str, amount: float) -> None:
    assert parse_quantity(written) == pytest.approx(amount)


@pytest.mark.parametrize("written", ["", "m", "1x", "1 Gi", "1e3m", "9" * 70])
def test_what_is_no_amount_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        parse_quantity(written)

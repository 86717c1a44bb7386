"""Numbers as Go reads them, ConfigMaps refused by key, annotations read leniently and validated strictly."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler.annotations import validate_annotations
from upwell.autoscaler.quantities import parse_bool, parse_duration, parse_float, parse_int32, parse_seconds
from upwell.autoscaler.spec import AutoscalerConfig, RevisionSettings
from upwell.functions.errors import InvalidSettings

PREFIX = "autoscaling.knative.dev/"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1m30s", 90_000_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("-2s", -2_000_000_000),
        ("+3ms", 3_000_000),
        ("1us1µs1μs1ns", 3_001),
        ("1h1h", 7_200_000_000_000),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds
    assert parse_seconds(text) == nanoseconds / 1e9


@pytest.mark.parametrize(
    "text", ["", "-", "5", "s", "1 s", "1d", "1_0s", ".s", "1e3s", "300000000h", "1" * 70 + "s"]
)
def test_what_go_takes_for_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|292 years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("-1.5e2", -150.0), (".5", 0.5), ("5.", 5.0), ("0x1p-2", 0.25), ("+0X.8P1", 1.0)],
)
def test_floats_are_read_as_go_writes_them(text: str, value: float) -> None:
    assert parse_float(text) == value


@pytest.mark.parametrize(
    "text", ["", " 1", "1_0", "nan", "inf", "1e999", "0x1p99999", "0x1", "1,5", "e5", "٣", "9" * 70]
)
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        parse_float(text)


@pytest.mark.parametrize("text", ["", "1.0", "2147483648", "-2147483649", "1_0", "0x1", "9" * 30])
def test_what_is_no_integer_of_32_bits_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not"):
        parse_int32(text)


def test_integers_and_booleans_are_read_as_go_writes_them() -> None:
    assert [parse_int32(text) for text in ("+5", "-2147483648", "007")] == [5, -(2**31), 7]
    assert [parse_bool(text) for text in ("1", "t", "TRUE", "True")] == [True] * 4
    assert [parse_bool(text) for text in ("0", "f", "FALSE", "False")] == [False] * 4
    with pytest.raises(ValueError, match="not true or false"):
        parse_bool("yes")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("enable-scale-to-zero", "yes"),
        ("max-scale-up-rate", "1"),
        ("max-scale-up-rate", "many"),
        ("max-scale-up-rate", "NaN"),
        ("max-scale-down-rate", "0.5"),
        ("container-concurrency-target-percentage", "0"),
        ("container-concurrency-target-percentage", "101"),
        ("container-concurrency-target-default", "0.001"),
        ("requests-per-second-target-default", "0.001"),
        ("target-burst-capacity", "-2"),
        ("activator-capacity", "0.5"),
        ("stable-window", "5s"),
        ("stable-window", "61m"),
        ("stable-window", "10500ms"),
        ("stable-window", "60"),
        ("panic-window-percentage", "0.5"),
        ("panic-window-percentage", "101"),
        ("scale-to-zero-grace-period", "0s"),
        ("scale-to-zero-pod-retention-period", "-1s"),
        ("scale-down-delay", "-1s"),
        ("scale-down-delay", "1500ms"),
        ("initial-scale", "0"),
        ("initial-scale", "-1"),
        ("min-scale", "-1"),
        ("max-scale", "-1"),
        ("max-scale-limit", "-1"),
    ],
)
def test_a_config_map_is_refused_by_key(key: str, text: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        AutoscalerConfig.from_config_map({key: text})
    assert refused.value.what.startswith(key)
    assert refused.value.where == "config-autoscaler"


@pytest.mark.parametrize(
    "data",
    [
        {"max-scale-limit": "10"},
        {"max-scale-limit": "10", "max-scale": "11"},
        {"max-scale": "2", "min-scale": "3"},
        {"container-concurrency-target-percentage": "1.5", "container-concurrency-target-default": "0.5"},
    ],
)
def test_keys_that_contradict_each_other_are_refused(data: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings):
        AutoscalerConfig.from_config_map(data)


def test_examples_and_unknown_keys_are_ignored() -> None:
    assert AutoscalerConfig.from_config_map({"_example": "stable-window: 1s", "other": "x"}) == AutoscalerConfig()


def test_every_key_is_explained() -> None:
    for each in fields(AutoscalerConfig):
        assert each.metadata["key"]
        assert each.metadata["explanation"].endswith(".")


def test_defaults_resolve_to_the_default_settings() -> None:
    assert AutoscalerConfig().resolve({}) == RevisionSettings()


def resolve(config: AutoscalerConfig | None = None, /, **annotations: str) -> RevisionSettings:
    texts = {PREFIX + name.replace("_", "-"): text for name, text in annotations.items()}
    return (config or AutoscalerConfig()).resolve(texts)


def test_camel_case_counts_where_the_canonical_spelling_is_absent() -> None:
    config = AutoscalerConfig()
    assert config.resolve({PREFIX + "minScale": "3"}).min_scale == 3
    assert config.resolve({PREFIX + "minScale": "3", PREFIX + "min-scale": "4"}).min_scale == 4
    assert config.resolve({PREFIX + "activationScale": "3"}).activation_scale == 0


@pytest.mark.parametrize(
    "name",
    [
        "window",
        "panic-window-percentage",
        "panic-threshold-percentage",
        "target",
        "target-utilization-percentage",
        "target-burst-capacity",
        "min-scale",
        "max-scale",
        "initial-scale",
        "activation-scale",
        "scale-down-delay",
        "scale-to-zero-pod-retention-period",
        "metric-aggregation-algorithm",
    ],
)
def test_an_annotation_that_does_not_parse_counts_as_absent(name: str) -> None:
    assert resolve(**{name: "a lot"}) == RevisionSettings()


@pytest.mark.parametrize("window", ["1s", "2h", "-60s", "100000h"])
def test_a_window_out_of_range_counts_as_absent(window: str) -> None:
    assert resolve(window=window).stable_window == 60


def test_a_panic_window_stays_within_a_second_and_an_hour() -> None:
    assert resolve(panic_window_percentage="0").panic_window == 1
    assert resolve(panic_window_percentage="1e9").panic_window == 3600
    assert resolve(panic_window_percentage="1e300").panic_window == 3600
    assert resolve(panic_window_percentage="-1e300").panic_window == 1
    assert resolve(window="45s").panic_window == 5  # 4.5 s


def test_algorithm_metric_and_class_are_read() -> None:
    assert resolve(metric_aggregation_algorithm="weightedExponential").aggregation == "weighted-exponential"
    assert resolve(**{"class": "hpa.autoscaling.knative.dev"}).metric == "cpu"
    assert resolve(metric="rps").total_value == 200
    assert resolve(AutoscalerConfig(pod_autoscaler_class="hpa.autoscaling.knative.dev")).metric == "cpu"


def test_negative_scales_bound_nothing() -> None:
    settings = resolve(min_scale="-3", max_scale="-1", initial_scale="-2")
    assert (settings.min_scale, settings.max_scale, settings.initial_scale) == (0, 0, 1)


def test_a_target_is_a_finite_number_whatever_is_annotated() -> None:
    settings = resolve(target="1e308", target_utilization_percentage="1e308")
    assert settings.total_value < settings.target_value < math.inf


def test_an_unreachable_revision_has_no_minimum() -> None:
    annotations = {PREFIX + "min-scale": "3"}
    assert AutoscalerConfig().resolve(annotations, reachability="Unreachable").min_scale == 0
    assert AutoscalerConfig().resolve(annotations, reachability="Unknown").min_scale == 3


def problems(limit: int = 0, zero: bool = False, /, **annotations: str) -> list[str]:
    texts = {PREFIX + name.replace("_", "-"): text for name, text in annotations.items()}
    config = AutoscalerConfig(max_scale_limit=limit, allow_zero_initial_scale=zero)
    found = validate_annotations(texts, config)
    assert all(message for _, message in found)
    return [key.removeprefix(PREFIX) for key, _ in found]


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"class": "kpa.autoscaling.knative.dev", "metric": "rps", "metric-aggregation-algorithm": "linear"},
        {"class": "hpa.autoscaling.knative.dev", "metric": "memory", "metric-aggregation-algorithm": "odd"},
        {"class": "keda.example.com", "metric": ""},
        {"target": "0.01", "target-utilization-percentage": "100", "target-burst-capacity": "-1"},
        {"window": "6s", "panic-window-percentage": "1", "panic-threshold-percentage": "1000"},
        {"min-scale": "2", "max-scale": "4", "activation-scale": "3", "initial-scale": "1"},
        {"scale-down-delay": "1h", "scale-to-zero-pod-retention-period": "1500ms"},
        {"metric-aggregation-algorithm": ""},
    ],
)
def test_good_annotations_are_admitted(annotations: dict[str, str]) -> None:
    assert problems(**annotations) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class", "vpa.autoscaling.knative.dev"),
        ("metric", "cpu"),
        ("metric-aggregation-algorithm", "cubic"),
        ("min-scale", "-1"),
        ("min-scale", "2147483648"),
        ("max-scale", "many"),
        ("activation-scale", "1"),
        ("activation-scale", "two"),
        ("initial-scale", "0"),
        ("initial-scale", "-1"),
        ("initial-scale", "one"),
        ("target", "0.001"),
        ("target", "nan"),
        ("target-utilization-percentage", "0.5"),
        ("target-utilization-percentage", "101"),
        ("target-burst-capacity", "-0.5"),
        ("panic-window-percentage", "0"),
        ("panic-threshold-percentage", "109"),
        ("panic-threshold-percentage", "1001"),
        ("window", "5s"),
        ("window", "6.5s"),
        ("window", "1h1s"),
        ("window", "60"),
        ("scale-down-delay", "-1s"),
        ("scale-down-delay", "500ms"),
        ("scale-to-zero-pod-retention-period", "61m"),
    ],
)
def test_a_bad_annotation_is_named(name: str, text: str) -> None:
    assert problems(**{name: text}) == [name]


def test_annotations_that_contradict_each_other_are_named() -> None:
    assert problems(min_scale="3", max_scale="2") == ["max-scale"]
    assert problems(min_scale="3", activation_scale="2") == ["activation-scale"]
    assert problems(max_scale="3", activation_scale="4") == ["activation-scale"]
    assert problems(**{"class": "hpa.autoscaling.knative.dev", "metric": ""}) == ["metric"]


def test_the_cluster_decides_on_limits_and_a_start_at_zero() -> None:
    assert problems(5, max_scale="6") == ["max-scale"]
    assert problems(5, max_scale="0") == ["max-scale"]
    assert problems(5, max_scale="5") == []
    assert problems(0, True, initial_scale="0") == []


def test_a_problem_names_the_spelling_that_was_used() -> None:
    [(key, _)] = validate_annotations({PREFIX + "minScale": "-1"}, AutoscalerConfig())
    assert key == PREFIX + "minScale"


@given(st.dictionaries(st.sampled_from(["window", "target", "min-scale", "metric", "class"]), st.text(max_size=8)))
def test_no_text_stops_reading_or_validation(annotations: dict[str, str]) -> None:
    texts = {PREFIX + name: text for name, text in annotations.items()}
    settings = AutoscalerConfig().resolve(texts)
    assert settings.target_value > 0
    assert 6 <= settings.stable_window <= 3600
    assert len(validate_annotations(texts, AutoscalerConfig())) <= len(annotations)

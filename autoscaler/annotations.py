"""The autoscaling annotations of a revision: lenient reading, and validation as admission does it.

Those of `autoscaling.knative.dev/` are Knative's. Kebab-case is canonical; ten keys have an older camel-case
spelling that counts when the canonical one is absent. Two of `autoscaling.upwell.dev/` say more: `metrics`, what
else a revision is scaled by, and `behavior`, how fast the HPA class follows. Alibaba Cloud's are taken,
and told of since what they ask for is not built.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from upwell.autoscaler.behavior import DEFAULT_BEHAVIOR, parse_behavior
from upwell.autoscaler.metric_targets import CPU, LEAST_TARGET, REQUEST_METRICS, MetricTarget, parse_metrics
from upwell.autoscaler.metric_targets import METRICS as KNOWN_METRICS
from upwell.autoscaler.quantities import parse_float, parse_int32, parse_seconds

if TYPE_CHECKING:
    from upwell.autoscaler.spec import AutoscalerConfig

KPA = "kpa.autoscaling.knative.dev"
HPA = "hpa.autoscaling.knative.dev"
AHPA = "ahpa.autoscaling.knative.dev"
"""Alibaba Cloud's, which Knative itself refuses."""
BUILT_CLASSES = (KPA, HPA)
LINEAR = "linear"
WEIGHTED_EXPONENTIAL = "weighted-exponential"
WEIGHTED_EXPONENTIAL_SPELLINGS = (WEIGHTED_EXPONENTIAL, "weightedExponential")

LEAST_WINDOW = 6.0
GREATEST_WINDOW = 3600.0
LEAST_ACTIVATION_SCALE = 2

PREFIX = "autoscaling.knative.dev/"
UPWELL_PREFIX = "autoscaling.upwell.dev/"
METRICS = UPWELL_PREFIX + "metrics"
BEHAVIOR = UPWELL_PREFIX + "behavior"
NOT_BUILT_PREFIXES = ("knative.aliyun.com/", "autoscaling.alibabacloud.com/")
_OWN_DOMAIN = ".knative.dev"
_CAMEL_CASE = {
    "min-scale": "minScale",
    "max-scale": "maxScale",
    "initial-scale": "initialScale",
    "scale-down-delay": "scaleDownDelay",
    "scale-to-zero-pod-retention-period": "scaleToZeroPodRetentionPeriod",
    "metric-aggregation-algorithm": "metricAggregationAlgorithm",
    "panic-window-percentage": "panicWindowPercentage",
    "panic-threshold-percentage": "panicThresholdPercentage",
    "target-burst-capacity": "targetBurstCapacity",
    "target-utilization-percentage": "targetUtilizationPercentage",
}

_NAMES = (
    *_CAMEL_CASE,
    *_CAMEL_CASE.values(),
    "class",
    "metric",
    "target",
    "window",
    "activation-scale",
)

_KEYS = (*(PREFIX + name for name in _NAMES), METRICS, BEHAVIOR)

_Value = TypeVar("_Value")
Problem = tuple[str, str]
"""The key of an annotation, and what is wrong with it."""


class AnnotationReader:
    """Reads by kebab-case name without Knative's prefix, or by whole key; what is absent or does not parse gives
    the default.
    """

    __slots__ = ("_annotations",)

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations

    def find(self, name: str) -> tuple[str, str] | None:
        """The full key under which `name` is set, and its text."""
        for spelling in (name, _CAMEL_CASE.get(name, name)):
            key = spelling if "/" in spelling else PREFIX + spelling
            text = self._annotations.get(key)
            if text is not None:
                return key, text
        return None

    def text(self, name: str) -> str:
        """The text, empty when absent."""
        found = self.find(name)
        return found[1] if found else ""

    def optional(self, name: str, parse: Callable[[str], _Value]) -> _Value | None:
        """The parsed value, None when absent or unusable."""
        found = self.find(name)
        if found is None:
            return None
        try:
            return parse(found[1])
        except ValueError:
            return None

    def number(self, name: str, default: float) -> float:
        """A finite number."""
        value = self.optional(name, parse_float)
        return default if value is None else value

    def whole(self, name: str, default: int) -> int:
        """An integer of 32 bits."""
        value = self.optional(name, parse_int32)
        return default if value is None else value

    def seconds(self, name: str, default: float) -> float:
        """A duration in seconds; a negative one gives the default."""
        value = self.optional(name, parse_seconds)
        return default if value is None or value < 0 else value


def validate_annotations(annotations: Mapping[str, str], config: AutoscalerConfig) -> list[Problem]:
    """What an API server would refuse in a revision template's autoscaling annotations, with the key of each.

    `config` holds the cluster's max-scale-limit and allow-zero-initial-scale. The rules are Knative's, except that
    numbers which are not finite are refused as well.
    """
    reader = AnnotationReader(annotations)
    return [
        *_class_problems(reader),
        *_scale_problems(reader, config.max_scale_limit),
        *_activation_scale_problems(reader),
        *_number_problems(reader),
        *_duration_problems(reader),
        *_metric_problems(reader),
        *_algorithm_problems(reader),
        *_initial_scale_problems(reader, config.allow_zero_initial_scale),
        *_metrics_problems(reader),
        *_behavior_problems(reader),
    ]


def unknown_annotations(annotations: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The autoscaling annotations that set nothing, each with the key that was probably meant."""
    unknown = []
    for key in annotations:
        prefix, slash, name = key.partition("/")
        if prefix + slash in (PREFIX, UPWELL_PREFIX) and key not in _KEYS:
            near = [known for known in _KEYS if known.startswith(prefix)]
            found = _alike(name, near) or _alike(name, _KEYS)
            unknown.append((key, found))
    return unknown


def _alike(name: str, keys: Sequence[str]) -> str | None:
    names = {key.partition("/")[2]: key for key in keys}
    found = difflib.get_close_matches(name, names, n=1)
    return names[found[0]] if found else None


def not_built(annotations: Mapping[str, str], config: AutoscalerConfig) -> list[Problem]:
    """What is taken though nothing here does as it says: the key, and what happens in its stead."""
    reader = AnnotationReader(annotations)
    found = [
        (key, "is kept, but what it asks for is not built")
        for key in annotations
        if key.startswith(NOT_BUILT_PREFIXES)
    ]
    named = reader.text("class") or config.pod_autoscaler_class
    if named not in BUILT_CLASSES:
        key, _ = reader.find("class") or ("pod-autoscaler-class", "")
        unread = " and ".join(name for name in ("metric", "target") if reader.find(name))
        aside = f" ({unread} not read)" if unread else ""
        stands_in = f"is {named}, which is not built: replicas follow {KPA} with its default metric and target"
        found.insert(0, (key, stands_in + aside))
    return found


def doubtful(annotations: Mapping[str, str], config: AutoscalerConfig) -> list[Problem]:
    """What is valid and yet does something else than it seems to: the key, and what it does."""
    reader = AnnotationReader(annotations)
    autoscaler_class = reader.text("class") or config.pod_autoscaler_class
    if autoscaler_class != HPA:
        return [(BEHAVIOR, f"counts only for {HPA}")] if reader.find(BEHAVIOR) else []
    found = reader.find("metric")
    if found is None:
        return []
    if reader.optional("target", parse_float) is None and found[1] != CPU:
        return [(found[0], f"counts only with a target: without one the metric is {CPU} at 80 percent")]
    if found[1] not in KNOWN_METRICS:
        return [(found[0], f"is nothing that is measured here ({', '.join(KNOWN_METRICS)}), so replicas are held")]
    return []


def _class_problems(reader: AnnotationReader) -> Iterator[Problem]:
    found = reader.find("class")
    if found and found[1].endswith(_OWN_DOMAIN) and found[1] not in (KPA, HPA, AHPA):
        yield found[0], f"must be {KPA}, {HPA} or a class outside of {_OWN_DOMAIN[1:]}, was {found[1]!r}"


def _scale_problems(reader: AnnotationReader, limit: int) -> Iterator[Problem]:
    for name in ("min-scale", "max-scale"):
        if found := reader.find(name):
            value = reader.optional(name, parse_int32)
            if value is None or value < 0:
                yield found[0], f"must be a whole number from 0 to {2**31 - 1}, was {found[1]!r}"
    least, most = _bounds(reader)
    found = reader.find("max-scale")
    if found is None:
        return
    if 0 < most < least:
        yield found[0], f"must not be less than min-scale ({least}), was {most}"
    if limit > 0 and not 0 < most <= limit:
        yield found[0], f"must be from 1 to the cluster's max-scale-limit ({limit}), was {most}"


def _bounds(reader: AnnotationReader) -> tuple[int, int]:
    return max(0, reader.whole("min-scale", 0)), max(0, reader.whole("max-scale", 0))


def _activation_scale_problems(reader: AnnotationReader) -> Iterator[Problem]:
    found = reader.find("activation-scale")
    if found is None:
        return
    scale = reader.optional("activation-scale", parse_int32)
    least, most = _bounds(reader)
    if scale is None:
        yield found[0], f"must be a whole number, was {found[1]!r}"
    elif scale < least:
        yield found[0], f"must not be less than min-scale ({least}), was {scale}"
    elif 0 < most < scale:
        yield found[0], f"must not be more than max-scale ({most}), was {scale}"
    elif scale < LEAST_ACTIVATION_SCALE:
        yield found[0], f"must be at least {LEAST_ACTIVATION_SCALE}, was {scale}"


_NUMBERS: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("panic-window-percentage", lambda value: 1 <= value <= 100, "must be a number from 1 to 100"),
    ("panic-threshold-percentage", lambda value: 110 <= value <= 1000, "must be a number from 110 to 1000"),
    ("target", lambda value: value >= LEAST_TARGET, f"must be a number of at least {LEAST_TARGET}"),
    ("target-utilization-percentage", lambda value: 1 <= value <= 100, "must be a number from 1 to 100"),
    ("target-burst-capacity", lambda value: value >= 0 or value == -1, "must be a number from 0 up, or -1"),
)
_DURATIONS = (
    ("window", LEAST_WINDOW, True, "from 6s to 1h"),
    ("scale-down-delay", 0.0, True, "from 0s to 1h"),
    ("scale-to-zero-pod-retention-period", 0.0, False, "from 0s to 1h"),
)


def _number_problems(reader: AnnotationReader) -> Iterator[Problem]:
    for name, holds, requirement in _NUMBERS:
        if found := reader.find(name):
            value = reader.optional(name, parse_float)
            if value is None or not holds(value):
                yield found[0], f"{requirement}, was {found[1]!r}"


def _duration_problems(reader: AnnotationReader) -> Iterator[Problem]:
    for name, least, whole, between in _DURATIONS:
        if found := reader.find(name):
            seconds = reader.optional(name, parse_seconds)
            if seconds is None or not least <= seconds <= GREATEST_WINDOW:
                yield found[0], f"must be a duration {between}, was {found[1]!r}"
            elif whole and seconds != int(seconds):
                yield found[0], f"must be whole seconds, was {found[1]!r}"


def _metric_problems(reader: AnnotationReader) -> Iterator[Problem]:
    found = reader.find("metric")
    if found is None:
        return
    autoscaler_class = reader.text("class") or KPA
    if autoscaler_class == KPA and found[1] not in REQUEST_METRICS:
        yield found[0], f"must be {' or '.join(REQUEST_METRICS)} for {KPA}, was {found[1]!r}"
    elif autoscaler_class == HPA and not found[1]:
        yield found[0], f"must not be empty for {HPA}"


def _algorithm_problems(reader: AnnotationReader) -> Iterator[Problem]:
    found = reader.find("metric-aggregation-algorithm")
    if found is None or (reader.text("class") or KPA) != KPA:
        return
    if found[1] not in ("", LINEAR, *WEIGHTED_EXPONENTIAL_SPELLINGS):
        yield found[0], f"must be {LINEAR} or {WEIGHTED_EXPONENTIAL}, was {found[1]!r}"


def _initial_scale_problems(reader: AnnotationReader, allow_zero: bool) -> Iterator[Problem]:
    found = reader.find("initial-scale")
    if found is None:
        return
    scale = reader.optional("initial-scale", parse_int32)
    if scale is None or scale < 0:
        yield found[0], f"must be a whole number of at least 0, was {found[1]!r}"
    elif scale == 0 and not allow_zero:
        yield found[0], "must be at least 1, since this cluster does not allow a revision to start at 0"


def _metrics_problems(reader: AnnotationReader) -> Iterator[Problem]:
    found = reader.find(METRICS)
    if found is None:
        return
    try:
        listed = parse_metrics(found[1])
    except ValueError as error:
        yield METRICS, f"cannot be read: {error}"
        return
    autoscaler_class = reader.text("class") or KPA
    if autoscaler_class == HPA:
        own = reader.text("metric") or CPU
        again = reader.find("target") is not None and any(each.metric == own for each in listed)
    else:
        said = reader.find("metric") or reader.find("target")
        again = autoscaler_class == KPA and said is not None and _counts_requests(listed)
    if again:
        yield METRICS, f"has a metric whose target is set by {PREFIX}metric or {PREFIX}target already; remove one"


def _counts_requests(listed: Iterable[MetricTarget]) -> bool:
    return any(each.metric in REQUEST_METRICS for each in listed)


def _behavior_problems(reader: AnnotationReader) -> Iterator[Problem]:
    found = reader.find(BEHAVIOR)
    if found is None:
        return
    try:
        parse_behavior(found[1], DEFAULT_BEHAVIOR)
    except ValueError as error:
        yield BEHAVIOR, f"cannot be read: {error}"

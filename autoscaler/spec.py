"""Settings: the `config-autoscaler` ConfigMap, and what it and a revision's annotations come to.

Two readings with two tempers, as in Knative. A ConfigMap is an operator's and is refused as a whole when one key
is unusable (`AutoscalerConfig.from_config_map`). Annotations are refused where objects are admitted
(`upwell.autoscaler.annotations`); once stored they are read leniently (`AutoscalerConfig.resolve`), so that
an object from elsewhere never stops the autoscaler.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from upwell.autoscaler.annotations import (
    BEHAVIOR,
    BUILT_CLASSES,
    GREATEST_WINDOW,
    HPA,
    KPA,
    LEAST_WINDOW,
    LINEAR,
    METRICS,
    WEIGHTED_EXPONENTIAL,
    WEIGHTED_EXPONENTIAL_SPELLINGS,
    AnnotationReader,
)
from upwell.autoscaler.behavior import DEFAULT_BEHAVIOR, Behavior, parse_behavior
from upwell.autoscaler.metric_targets import (
    CONCURRENCY,
    CPU,
    LEAST_TARGET,
    REQUEST_METRICS,
    RESOURCES,
    RPS,
    MetricTarget,
    parse_metrics,
)
from upwell.autoscaler.quantities import parse_bool, parse_float, parse_int32, parse_seconds
from upwell.functions.errors import InvalidSettings

UNREACHABLE = "Unreachable"
LEAST_PANIC_WINDOW = 1
DEFAULT_PROGRESS_DEADLINE = 600.0
DEFAULT_CPU_REQUEST = 1.0
"""Cores: what one process can use in Python."""
DEFAULT_CPU_UTILIZATION = 80.0
"""Percent: what Kubernetes aims at when a HorizontalPodAutoscaler names no metric."""
# The utilization of a requests-per-second target; unlike concurrency's it has no key of its own.
_RPS_UTILIZATION = 0.7
_CONFIG_MAP = "config-autoscaler"


class UnusableKey(InvalidSettings):
    """One key of the ConfigMap has a value that cannot be used, and so none of it is."""

    def __init__(self, key: str, what: str, hint: str) -> None:
        super().__init__(f"{key} {what}", where=_CONFIG_MAP, hint=hint)
        self.key = key
        self.fault = what


def _whole_seconds(text: str) -> float:
    seconds = parse_seconds(text)
    if seconds != int(seconds):
        raise ValueError("more precise than a second")
    return seconds


def _percentage_or_fraction(text: str) -> float:
    value = parse_float(text)
    return value / 100.0 if value > 1.0 else value


def _setting(key: str, default: Any, parse: Callable[[str], Any], explanation: str) -> Any:
    """A field that knows its ConfigMap key, its parser and what to tell an operator."""
    return field(default=default, metadata={"key": key, "parse": parse, "explanation": explanation})


@dataclass(frozen=True, slots=True)
class AutoscalerConfig:
    """The ConfigMap `config-autoscaler`. Durations are seconds, percentages as written unless said otherwise.

    Each field's metadata holds its `key`, its `parse` function and an `explanation`; documentation and the chart
    are generated from these.
    """

    pod_autoscaler_class: str = _setting(
        "pod-autoscaler-class",
        KPA,
        str,
        "Which autoscaler scales a revision that names none in its class annotation.",
    )
    container_concurrency_target_fraction: float = _setting(
        "container-concurrency-target-percentage",
        0.7,
        _percentage_or_fraction,
        "How full a replica is meant to be: the share of its concurrency that the autoscaler aims at, so that the"
        " rest is there while the next replica starts. Percent when above 1, a fraction otherwise.",
    )
    container_concurrency_target_default: float = _setting(
        "container-concurrency-target-default",
        100.0,
        parse_float,
        "Requests in flight a replica is taken to handle when containerConcurrency is 0, which means no limit.",
    )
    requests_per_second_target_default: float = _setting(
        "requests-per-second-target-default",
        200.0,
        parse_float,
        "Requests a second a replica is taken to handle where the metric is rps.",
    )
    target_burst_capacity: float = _setting(
        "target-burst-capacity",
        211.0,
        parse_float,
        "Size of a burst that may arrive at once without overloading replicas. The activator buffers while spare"
        " capacity is less. 0 keeps it out of the path except at zero replicas, -1 keeps it in always.",
    )
    stable_window: float = _setting(
        "stable-window",
        60.0,
        _whole_seconds,
        "Length of the window over which demand is averaged in normal operation, and how long demand must be zero"
        " before the last replica may go. 6s to 1h, whole seconds.",
    )
    panic_window_percentage: float = _setting(
        "panic-window-percentage",
        10.0,
        parse_float,
        "Length of the short window that notices bursts, in percent of the stable window, 1 to 100.",
    )
    panic_threshold_percentage: float = _setting(
        "panic-threshold-percentage",
        200.0,
        parse_float,
        "Demand over the short window, in percent of what ready replicas are meant to handle, from which the"
        " autoscaler panics: it then follows the short window and never scales down.",
    )
    max_scale_up_rate: float = _setting(
        "max-scale-up-rate",
        1000.0,
        parse_float,
        "The most that one decision may multiply the ready replicas by. Above 1.",
    )
    max_scale_down_rate: float = _setting(
        "max-scale-down-rate",
        2.0,
        parse_float,
        "The most that one decision may divide the ready replicas by. Above 1.",
    )
    enable_scale_to_zero: bool = _setting(
        "enable-scale-to-zero",
        True,
        parse_bool,
        "Whether an idle revision may go to zero replicas; one is kept otherwise.",
    )
    scale_to_zero_grace_period: float = _setting(
        "scale-to-zero-grace-period",
        30.0,
        parse_seconds,
        "How long the last replica stays after a revision was found inactive, so that the network has time to"
        " send requests to the activator. Above 0.",
    )
    scale_to_zero_pod_retention_period: float = _setting(
        "scale-to-zero-pod-retention-period",
        0.0,
        parse_seconds,
        "The least time the last replica stays after a revision was found inactive, whatever the network.",
    )
    activator_capacity: float = _setting(
        "activator-capacity",
        100.0,
        parse_float,
        "Requests in flight one activator is taken to handle; decides how many stand before a revision. From 1.",
    )
    initial_scale: int = _setting(
        "initial-scale",
        1,
        parse_int32,
        "Replicas a new revision must reach once before it counts as ready.",
    )
    allow_zero_initial_scale: bool = _setting(
        "allow-zero-initial-scale",
        False,
        parse_bool,
        "Whether initial-scale may be 0, so that a revision first starts when it is called.",
    )
    min_scale: int = _setting("min-scale", 0, parse_int32, "Replicas a routed revision never goes below.")
    max_scale: int = _setting(
        "max-scale", 0, parse_int32, "Replicas a revision never goes above; 0 sets no limit."
    )
    max_scale_limit: int = _setting(
        "max-scale-limit",
        0,
        parse_int32,
        "The greatest max-scale a revision may ask for; 0 sets no limit, otherwise 'no limit' is refused too.",
    )
    scale_down_delay: float = _setting(
        "scale-down-delay",
        0.0,
        _whole_seconds,
        "How long demand must stay lower before replicas are removed: the greatest wish of this time counts."
        " Whole seconds.",
    )

    @classmethod
    def from_config_map(cls, data: Mapping[str, str]) -> AutoscalerConfig:
        """The settings in a ConfigMap's `data`; raises `UnusableKey` for an unusable one.

        Keys that are absent keep their default, keys that are not ours (`_example` among them) are ignored.
        """
        values: dict[str, Any] = {}
        for each in fields(cls):
            key: str = each.metadata["key"]
            if key in data:
                values[each.name] = _parse(key, data[key], each.metadata["parse"])
        config = cls(**values)
        config._validate()
        return config

    def _validate(self) -> None:
        for key, holds, requirement in self._requirements():
            if not holds:
                raise UnusableKey(key, requirement, "Nothing was applied; correct the key.")

    def _requirements(self) -> list[tuple[str, bool, str]]:
        fraction = self.container_concurrency_target_fraction
        target = fraction * self.container_concurrency_target_default
        limit = self.max_scale_limit
        least_initial = 0 if self.allow_zero_initial_scale else 1
        return [
            ("scale-to-zero-grace-period", self.scale_to_zero_grace_period > 0, "must be above 0"),
            ("scale-to-zero-pod-retention-period", self.scale_to_zero_pod_retention_period >= 0, _NOT_NEGATIVE),
            ("scale-down-delay", self.scale_down_delay >= 0, _NOT_NEGATIVE),
            (
                "target-burst-capacity",
                self.target_burst_capacity >= 0 or self.target_burst_capacity == -1,
                "must be 0 or more, or -1 for no limit",
            ),
            ("container-concurrency-target-percentage", 0 < fraction <= 1, "must be above 0 and at most 100"),
            (
                "container-concurrency-target-default",
                target >= LEAST_TARGET,
                f"times container-concurrency-target-percentage must be at least {LEAST_TARGET}",
            ),
            (
                "requests-per-second-target-default",
                self.requests_per_second_target_default >= LEAST_TARGET,
                f"must be at least {LEAST_TARGET}",
            ),
            ("activator-capacity", self.activator_capacity >= 1, "must be at least 1"),
            ("max-scale-up-rate", self.max_scale_up_rate > 1, "must be above 1"),
            ("max-scale-down-rate", self.max_scale_down_rate > 1, "must be above 1"),
            (
                "stable-window",
                LEAST_WINDOW <= self.stable_window <= GREATEST_WINDOW,
                "must lie between 6s and 1h",
            ),
            (
                "panic-window-percentage",
                1 <= self.panic_window_percentage <= 100,
                "must lie between 1 and 100",
            ),
            (
                "initial-scale",
                self.initial_scale >= least_initial,
                "must be at least 1, or 0 where allow-zero-initial-scale is true",
            ),
            ("max-scale-limit", limit >= 0, _NOT_NEGATIVE),
            (
                "max-scale",
                self.max_scale >= (1 if limit > 0 else 0) and (limit <= 0 or self.max_scale <= limit),
                "must lie between 0 and max-scale-limit, above 0 where that is set",
            ),
            (
                "min-scale",
                self.min_scale >= 0 and (self.max_scale == 0 or self.min_scale <= self.max_scale),
                "must lie between 0 and max-scale",
            ),
        ]

    def resolve(
        self,
        annotations: Mapping[str, str],
        *,
        container_concurrency: int = 0,
        reachability: str = "",
        progress_deadline: float = DEFAULT_PROGRESS_DEADLINE,
        cpu_request: float = DEFAULT_CPU_REQUEST,
        classes: Collection[str] = BUILT_CLASSES,
    ) -> RevisionSettings:
        """What the autoscaler aims at for one revision.

        `reachability` is "Unreachable" when no route refers to the revision; `cpu_request` is in cores. An
        annotation that does not parse counts as absent, and so does a window outside of 6 s to 1 h; nothing is
        raised. For a class that is none of `classes` the KPA stands in, with its default metric and target.
        """
        read = AnnotationReader(annotations)
        autoscaler_class, metric, wished = self._class(read, classes)
        further = _further_metrics(read)
        if autoscaler_class == HPA:
            further = _hpa_metrics(metric, wished, further)
        requests = next((each for each in further if each.metric in REQUEST_METRICS), None)
        if requests is not None:
            metric, wished = requests.metric, requests.target
        if autoscaler_class != HPA:
            further = tuple(each for each in further if each is not requests)
        target, total = self._target(read, metric, wished, container_concurrency)
        stable = read.seconds("window", self.stable_window)
        if not LEAST_WINDOW <= stable <= GREATEST_WINDOW:
            stable = self.stable_window
        reachable = reachability != UNREACHABLE
        return RevisionSettings(
            autoscaler_class=autoscaler_class,
            metric=metric,
            target_value=target,
            total_value=total,
            target_burst_capacity=read.number("target-burst-capacity", self.target_burst_capacity),
            max_scale_up_rate=self.max_scale_up_rate,
            max_scale_down_rate=self.max_scale_down_rate,
            panic_threshold=read.number("panic-threshold-percentage", self.panic_threshold_percentage) / 100,
            stable_window=stable,
            panic_window=_panic_window(
                stable, read.number("panic-window-percentage", self.panic_window_percentage)
            ),
            aggregation=_aggregation(read.text("metric-aggregation-algorithm")),
            scale_down_delay=read.seconds("scale-down-delay", self.scale_down_delay),
            reachable=reachable,
            initial_scale=self._initial_scale(read),
            activation_scale=read.whole("activation-scale", 0),
            min_scale=max(0, read.whole("min-scale", self.min_scale)) if reachable else 0,
            max_scale=max(0, read.whole("max-scale", self.max_scale)),
            max_scale_limit=self.max_scale_limit,
            enable_scale_to_zero=self.enable_scale_to_zero,
            scale_to_zero_grace_period=self.scale_to_zero_grace_period,
            scale_to_zero_pod_retention_period=read.seconds(
                "scale-to-zero-pod-retention-period", self.scale_to_zero_pod_retention_period
            ),
            progress_deadline=progress_deadline,
            activator_capacity=self.activator_capacity,
            metrics=further,
            behavior=_behavior(read),
            cpu_request=cpu_request,
        )

    def _class(self, read: AnnotationReader, classes: Collection[str]) -> tuple[str, str, float | None]:
        """The class that decides, its metric, and the target that is wished for it."""
        named = read.text("class") or self.pod_autoscaler_class
        if named not in classes:
            return KPA, CONCURRENCY, None
        metric = read.text("metric") or (CPU if named == HPA else CONCURRENCY)
        if named == KPA and metric not in REQUEST_METRICS:
            return KPA, CONCURRENCY, None
        return named, metric, read.optional("target", parse_float)

    def _target(
        self, read: AnnotationReader, metric: str, wished: float | None, container_concurrency: int
    ) -> tuple[float, float]:
        if metric == RPS:
            total, utilization = self.requests_per_second_target_default, _RPS_UTILIZATION
        else:
            total = float(container_concurrency) or self.container_concurrency_target_default
            utilization = self.container_concurrency_target_fraction
        if wished is not None:
            hard = metric == CONCURRENCY and container_concurrency > 0
            total = min(wished, container_concurrency) if hard else wished
        percentage = read.optional("target-utilization-percentage", parse_float)
        if percentage is not None:
            utilization = percentage / 100
        return max(LEAST_TARGET, min(total * utilization, sys.float_info.max)), total

    def _initial_scale(self, read: AnnotationReader) -> int:
        wished = read.whole("initial-scale", self.initial_scale)
        if wished < 0 or (wished == 0 and not self.allow_zero_initial_scale):
            return self.initial_scale
        return wished


_NOT_NEGATIVE = "must not be negative"


@dataclass(frozen=True, slots=True)
class RevisionSettings:
    """One revision's settings, resolved. Durations in seconds; `target_value` is the metric per replica aimed at,
    `total_value` the metric per replica that a replica can take.
    """

    autoscaler_class: str = KPA
    metric: str = CONCURRENCY
    target_value: float = 70.0
    total_value: float = 100.0
    target_burst_capacity: float = 211.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    panic_threshold: float = 2.0
    stable_window: float = 60.0
    panic_window: int = 6
    aggregation: str = LINEAR
    scale_down_delay: float = 0.0
    reachable: bool = True
    initial_scale: int = 1
    activation_scale: int = 0
    min_scale: int = 0
    max_scale: int = 0
    max_scale_limit: int = 0
    enable_scale_to_zero: bool = True
    scale_to_zero_grace_period: float = 30.0
    scale_to_zero_pod_retention_period: float = 0.0
    progress_deadline: float = DEFAULT_PROGRESS_DEADLINE
    activator_capacity: float = 100.0
    metrics: tuple[MetricTarget, ...] = ()
    """Further metrics besides `metric`, or all of them for the HPA class: the greatest want of all wins."""
    behavior: Behavior = DEFAULT_BEHAVIOR
    """How fast the HPA class follows."""
    cpu_request: float = DEFAULT_CPU_REQUEST
    """Cores that a replica has asked for, which its use of CPU is a percentage of."""


def _parse(key: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UnusableKey(key, f"cannot be read: {error}", f"It is {text[:64]!r}; correct the key.") from error


def _panic_window(stable: float, percentage: float) -> int:
    """Whole seconds, halves rounded up, at least one and never longer than the longest stable window."""
    nanoseconds = int(max(0.0, min(stable * 1e9 * percentage / 100, GREATEST_WINDOW * 1e9)))
    return max((nanoseconds + 500_000_000) // 1_000_000_000, LEAST_PANIC_WINDOW)


def _aggregation(text: str) -> str:
    return WEIGHTED_EXPONENTIAL if text in WEIGHTED_EXPONENTIAL_SPELLINGS else LINEAR


def _further_metrics(read: AnnotationReader) -> tuple[MetricTarget, ...]:
    return read.optional(METRICS, parse_metrics) or ()


def _hpa_metrics(metric: str, target: float | None, listed: tuple[MetricTarget, ...]) -> tuple[MetricTarget, ...]:
    """The metric that the annotations give, as Knative hands it to a HorizontalPodAutoscaler, and those listed."""
    if target is None or target < LEAST_TARGET:
        return listed or (MetricTarget(CPU, DEFAULT_CPU_UTILIZATION),)
    own = MetricTarget(metric, float(math.ceil(target)) if metric in RESOURCES else target)
    return (own, *(each for each in listed if each.metric != metric))


def _behavior(read: AnnotationReader) -> Behavior:
    """As annotated; a window is the stabilization window both ways, as Knative has it, where none is said."""
    behavior = DEFAULT_BEHAVIOR
    window = read.seconds("window", 0.0)
    if LEAST_WINDOW <= window <= GREATEST_WINDOW:
        behavior = behavior.stabilized(window)
    return read.optional(BEHAVIOR, lambda written: parse_behavior(written, behavior)) or behavior

"""How fast a horizontal pod autoscaler may follow its metrics: `spec.behavior` of Kubernetes' autoscaling/v2.

Each direction has policies, of which the one that allows most (or least) counts, a window in which the most
cautious recommendation counts, and a tolerance. What is left out has Kubernetes' default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from upwell.autoscaler.quantities import parse_int32, parse_quantity
from upwell.autoscaler.structures import items, members, parse_structure, text

LONGEST_PERIOD: Final = 1800
LONGEST_STABILIZATION: Final = 3600
MOST_POLICIES: Final = 16
TOLERANCE: Final = 0.1


class PolicyType(StrEnum):
    """What a policy's value counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class SelectPolicy(StrEnum):
    """Which of several policies counts: the one that changes most, the one that changes least, or no change."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """By how much the replicas may change within `period_seconds`."""

    type: PolicyType
    value: int
    period_seconds: int


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """What holds for one direction. `tolerance` is the share of the target by which a metric may be off it."""

    policies: tuple[ScalingPolicy, ...]
    stabilization_window: float
    select_policy: SelectPolicy = SelectPolicy.MAX
    tolerance: float = TOLERANCE


SCALE_UP: Final = ScalingRules(
    (ScalingPolicy(PolicyType.PERCENT, 100, 15), ScalingPolicy(PolicyType.PODS, 4, 15)), 0.0
)
SCALE_DOWN: Final = ScalingRules((ScalingPolicy(PolicyType.PERCENT, 100, 15),), 300.0)


@dataclass(frozen=True, slots=True)
class Behavior:
    """Both directions."""

    scale_up: ScalingRules = SCALE_UP
    scale_down: ScalingRules = SCALE_DOWN

    def stabilized(self, window: float) -> Behavior:
        """This with a stabilization window of `window` seconds both ways."""
        return Behavior(
            replace(self.scale_up, stabilization_window=window),
            replace(self.scale_down, stabilization_window=window),
        )

    @property
    def longest_period(self) -> int:
        """Seconds for which changes are to be remembered."""
        return max(each.period_seconds for rules in (self.scale_up, self.scale_down) for each in rules.policies)

    @property
    def longest_window(self) -> float:
        """Seconds for which recommendations are to be remembered."""
        return max(self.scale_up.stabilization_window, self.scale_down.stabilization_window)


DEFAULT_BEHAVIOR: Final = Behavior()


def parse_behavior(written: str, default: Behavior) -> Behavior:
    """The behavior in an annotation, what it leaves out from `default`. Raises ValueError with what is wrong."""
    found = members(parse_structure(written), "it", ("scaleUp", "scaleDown"))
    return Behavior(
        _rules(found.get("scaleUp"), "scaleUp", default.scale_up),
        _rules(found.get("scaleDown"), "scaleDown", default.scale_down),
    )


def _rules(value: object, where: str, default: ScalingRules) -> ScalingRules:
    if value is None:
        return default
    found = members(value, where, ("policies", "selectPolicy", "stabilizationWindowSeconds", "tolerance"))
    policies = default.policies
    if "policies" in found:
        listed = items(found["policies"], f"{where}.policies", MOST_POLICIES)
        policies = tuple(_policy(each, f"{where}.policies[{index}]") for index, each in enumerate(listed))
    stabilization = default.stabilization_window
    if "stabilizationWindowSeconds" in found:
        stabilization = _whole(found, where, "stabilizationWindowSeconds", 0, LONGEST_STABILIZATION)
    return ScalingRules(
        policies,
        stabilization,
        SelectPolicy(_one_of(found, where, "selectPolicy", SelectPolicy, default.select_policy)),
        _tolerance(found, where, default.tolerance),
    )


def _policy(value: object, where: str) -> ScalingPolicy:
    found = members(value, where, ("type", "value", "periodSeconds"))
    return ScalingPolicy(
        PolicyType(_one_of(found, where, "type", PolicyType, "")),
        _whole(found, where, "value", 1, 2**31 - 1),
        _whole(found, where, "periodSeconds", 1, LONGEST_PERIOD),
    )


def _one_of(found: Mapping[str, object], where: str, name: str, kind: type[StrEnum], default: str) -> str:
    written = text(found.get(name, str(default)), f"{where}.{name}")
    if written not in list(kind):
        raise ValueError(f"{where}.{name} must be one of {', '.join(kind)}, was {written[:64]!r}")
    return written


def _whole(found: Mapping[str, object], where: str, name: str, least: int, most: int) -> int:
    return int(_number(found, where, name, parse_int32, (least, most)))


def _tolerance(found: Mapping[str, object], where: str, default: float) -> float:
    if "tolerance" not in found:
        return default
    return _number(found, where, "tolerance", parse_quantity, (0, math.inf))


def _number(
    found: Mapping[str, object],
    where: str,
    name: str,
    parse: Callable[[str], float],
    between: tuple[float, float],
) -> float:
    written = text(found.get(name, ""), f"{where}.{name}")
    try:
        value = parse(written)
    except ValueError as error:
        raise ValueError(f"{where}.{name} is {error}, was {written[:64]!r}") from error
    least, most = between
    if not least <= value <= most:
        upper = "" if most == math.inf else f" to {most}"
        raise ValueError(f"{where}.{name} must be from {least}{upper}, was {written[:64]!r}")
    return value

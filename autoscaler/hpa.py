"""The horizontal pod autoscaler: replicas follow what they use, or any metric, with Kubernetes' algorithm.

Each metric proposes a number of replicas (`upwell.autoscaler.replica_calculator`) and the greatest counts. It then
stays between the least recommendation of the scale-up window and the greatest of the scale-down window, and
changes by no more than the policies allow within their periods. A metric that could not be read keeps replicas
from being taken away. After pkg/controller/podautoscaler/horizontal.go.

Kubernetes looks every 15 seconds; here every tick does, which the windows and periods make the same. Its policies
count the changes that were ordered; these count the changes that were seen, at the time of the decision that asked
for them, so that what a bound did to a decision or another did to a revision counts as what it was. Without a
behavior of its own a revision has the default policies, where Kubernetes has an older limit of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from upwell.autoscaler.behavior import Behavior, PolicyType, ScalingRules, SelectPolicy
from upwell.autoscaler.decision import (
    GREATEST_COUNT,
    Bound,
    Decision,
    Inputs,
    Missing,
    Panic,
    Reading,
    SignalWant,
    State,
)
from upwell.autoscaler.metric_targets import REQUEST_METRICS
from upwell.autoscaler.replica_calculator import Counted, Tolerances, propose
from upwell.autoscaler.spec import RevisionSettings

LEAST_REPLICAS: Final = 1
"""Knative's HorizontalPodAutoscaler has no minimum below this, and Kubernetes scales nothing that is at zero."""


class _Recommendation(NamedTuple):
    at: float
    replicas: int


class _Change(NamedTuple):
    at: float
    by: int


class _Memory(NamedTuple):
    """What is remembered between two decisions; oldest first, no longer than windows and periods are."""

    at: float
    current: int
    asked: int
    highs: tuple[_Recommendation, ...]
    """Recommendations that may yet be the greatest of a window: each is less than the one before."""
    lows: tuple[_Recommendation, ...]
    """Likewise the least: each is more than the one before."""
    changes: tuple[_Change, ...] = ()


class _Step(NamedTuple):
    """How far the replicas go, what stood in the way, and between what they may be now."""

    replicas: int
    bounds: tuple[Bound, ...]
    floor: int
    ceiling: int


class HorizontalPodAutoscaler:
    """Scales by the settings' `metrics` alone, `behavior` permitting. Never asks for less than one replica."""

    def start(self, settings: RevisionSettings, ready: int, now: float) -> State:
        """The state of a revision that begins now; what is ready counts as recommended."""
        return State(None, 0, None, 0, _remembering(ready, now))

    def decide(self, settings: RevisionSettings, state: State, inputs: Inputs, now: float) -> Decision:
        """The decision at `now` (Unix seconds), from the readings of `inputs` in the order of the metrics."""
        current = inputs.ready + inputs.starting
        memory = _followed(_memory(state, inputs, now), settings.behavior, current, now)
        wants = _proposals(settings, inputs, now)
        known = [each for each in wants if each.missing is None]
        if inputs.missing is Missing.REPLICA_COUNT_FAILED:
            return _decision(settings, state, inputs, wants, now)._replace(missing=inputs.missing)
        if not known and inputs.ready > 0:
            missing = next((each.missing for each in wants), Missing.NO_DATA)
            return _decision(settings, state, inputs, wants, now)._replace(missing=missing)
        want = max((each.want for each in known), default=current)
        held = len(known) < len(wants) and want < current
        if held:
            want = current
            step = _Step(want, (Bound.SIGNAL_MISSING,), *_limits(settings.behavior, memory, now))
        else:
            memory, step = _step(settings.behavior, memory, want, now)
            step = step._replace(bounds=(*_tolerance(known, want), *step.bounds))
        if step.replicas < LEAST_REPLICAS:
            step = step._replace(replicas=LEAST_REPLICAS, bounds=(*step.bounds, Bound.CLASS_KEEPS_ONE))
        decision = _decision(
            settings, State(None, 0, None, 0, memory._replace(asked=step.replicas)), inputs, wants, now
        )
        return decision._replace(
            stable_want=want,
            rate_floor=step.floor,
            rate_ceiling=step.ceiling,
            undelayed=step.replicas,
            desired=step.replicas,
            bounds=step.bounds,
        )


def _proposals(settings: RevisionSettings, inputs: Inputs, now: float) -> tuple[SignalWant, ...]:
    rules = settings.behavior
    counted = Counted(
        inputs.ready + inputs.starting,
        settings.cpu_request,
        Tolerances(rules.scale_down.tolerance, rules.scale_up.tolerance),
    )
    requests = Reading(inputs.stable, inputs.missing)
    return tuple(
        propose(metric, requests if metric.metric in REQUEST_METRICS else reading, counted, now)
        for metric, reading in zip(settings.metrics, inputs.readings, strict=True)
    )


def _decision(
    settings: RevisionSettings, state: State, inputs: Inputs, wants: tuple[SignalWant, ...], now: float
) -> Decision:
    """A decision without a wish; the metric that asks for most is the one it is about."""
    most = max(wants, key=lambda each: each.want, default=SignalWant(settings.metric, 0.0, 0.0, 0, 0))
    return Decision(
        at=now,
        state=state,
        metric=most.metric,
        stable_value=most.value,
        panic_value=0.0,
        in_flight=inputs.in_flight,
        ready=inputs.ready,
        starting=inputs.starting,
        target_value=most.target,
        stable_window=0.0,
        panic_window=0.0,
        panic_threshold=0.0,
        missing=None,
        stable_raw=most.raw,
        panic=Panic.OFF,
        signals=wants,
        binding=most.metric if len(wants) > 1 and most.want > 0 else "",
    )


def _tolerance(known: Sequence[SignalWant], want: int) -> tuple[Bound, ...]:
    near = any(each.want == want != each.raw for each in known)
    return (Bound.TOLERANCE,) if near else ()


# What is remembered


def _remembering(replicas: int, now: float) -> _Memory:
    first = (_Recommendation(now, replicas),)
    return _Memory(now, replicas, replicas, first, first)


def _memory(state: State, inputs: Inputs, now: float) -> _Memory:
    """The state's, or that of one that begins where another class left off."""
    if isinstance(state.memory, _Memory):
        return state.memory
    return _remembering(inputs.ready + inputs.starting, now)


def _followed(memory: _Memory, behavior: Behavior, current: int, now: float) -> _Memory:
    """With the change of replicas since the last decision noted, and what is too old forgotten."""
    changes = [each for each in memory.changes if each.at > now - behavior.longest_period]
    by = current - memory.current
    if by:
        asked = (memory.asked - memory.current) * by > 0
        changes.append(_Change(memory.at if asked else now, by))
    return memory._replace(at=now, current=current, changes=tuple(changes))


def _recommended(memory: _Memory, replicas: int, oldest: float) -> _Memory:
    latest = _Recommendation(memory.at, replicas)
    return memory._replace(
        highs=(*(each for each in memory.highs if each.replicas > replicas and each.at > oldest), latest),
        lows=(*(each for each in memory.lows if each.replicas < replicas and each.at > oldest), latest),
    )


# Windows and policies


def _step(behavior: Behavior, memory: _Memory, want: int, now: float) -> tuple[_Memory, _Step]:
    current = memory.current
    least = min(want, *_since(memory.lows, now - behavior.scale_up.stabilization_window), GREATEST_COUNT)
    most = max(want, *_since(memory.highs, now - behavior.scale_down.stabilization_window), 0)
    stable = min(max(current, least), most)
    floor, ceiling = _limits(behavior, memory, now)
    replicas = min(max(stable, min(current, floor)), max(current, ceiling))
    bounds = []
    if stable != want:
        bounds.append(Bound.STABILIZATION)
    if replicas != stable:
        bounds.append(Bound.SCALE_UP_POLICY if replicas < stable else Bound.SCALE_DOWN_POLICY)
    recorded = _recommended(memory, want, now - behavior.longest_window)
    return recorded, _Step(replicas, tuple(bounds), floor, ceiling)


def _since(recommendations: Iterable[_Recommendation], cutoff: float) -> list[int]:
    return [each.replicas for each in recommendations if each.at > cutoff]


def _limits(behavior: Behavior, memory: _Memory, now: float) -> tuple[int, int]:
    """The least and the most replicas that the policies allow now."""
    current = memory.current
    floor = _limit(behavior.scale_down, memory, now, -1)
    ceiling = _limit(behavior.scale_up, memory, now, 1)
    return max(0, min(floor, current)), min(max(ceiling, current), GREATEST_COUNT)


def _limit(rules: ScalingRules, memory: _Memory, now: float, sign: int) -> int:
    if rules.select_policy is SelectPolicy.DISABLED:
        return memory.current
    proposed = []
    for policy in rules.policies:
        changed = sum(each.by for each in memory.changes if each.at > now - policy.period_seconds)
        began = memory.current - changed
        if policy.type is PolicyType.PODS:
            proposed.append(began + sign * policy.value)
        else:
            share = began * (1 + sign * policy.value / 100)
            proposed.append(math.ceil(share) if sign > 0 else math.trunc(share))
    furthest = rules.select_policy is SelectPolicy.MAX
    return max(proposed) if furthest == (sign > 0) else min(proposed)

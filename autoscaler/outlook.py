"""What would change a decision: how much more or less load, and which moments, by themselves.

The inverse of what `upwell.autoscaler.kpa` and `upwell.autoscaler.bounds` decide. It holds no second copy of their
rules: the wish only grows with demand, so that the production code is asked for the decision at one number of
replicas' demand after the other, by bisection, and what it says at the greatest and the least demand names what
allows no more and no fewer. All is told from a decision and its settings as they stand: the next decision at the
same replicas, with but one input changed. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.annotations import HPA
from upwell.autoscaler.behavior import TOLERANCE
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, Bound, Clamp, Decision, Inputs, SignalWant, Status, saturated
from upwell.autoscaler.metric_targets import RESOURCES
from upwell.autoscaler.replica_calculator import Tolerances
from upwell.autoscaler.spec import RevisionSettings

_MOST_STEPS: Final = 8
"""On the way to zero: there are fewer kinds of waits than this."""
_RESOURCE: Final = Tolerances(TOLERANCE, TOLERANCE)
_EXACT: Final = Tolerances(0.0, 0.0)
_INSTANT: Final = 1e-6
"""Seconds; what ends with a window is over after it."""


class Held(StrEnum):
    """What keeps the number of replicas besides the bounds and the rates."""

    PANIC = "panic"
    DELAY = "scale-down-delay"
    SIGNAL = "another-metric"


class Turn(StrEnum):
    """What happens by the passing of time, if the load stays as it is."""

    PANIC_ENDS = "panic-ends"
    DELAY_ENDS = "scale-down-delay-ends"
    ZERO = "scale-to-zero"


Reason = Bound | Clamp | Held


@dataclass(frozen=True, slots=True)
class Threshold:
    """A load at which the next decision is another."""

    window: float
    """Seconds over which the metric is averaged."""
    value: float
    """The metric summed over all replicas. To the last digit: the change comes above it or, for fewer replicas, at
    it and below."""
    scale: int
    """Replicas that are wanted then."""


@dataclass(frozen=True, slots=True)
class SignalThreshold:
    """The value of one of several metrics above which it asks for more replicas than are wanted now."""

    metric: str
    value: float
    """In the target's unit, summed over all replicas when each of them was measured."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time (Unix seconds) from which the next decision is another, with the load as it is."""

    at: float
    turn: Turn
    scale: int
    """Replicas that are wanted then."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would change a decision. Where `more` is None, `no_more` says why, and so it is with `fewer`."""

    scale: int
    """Replicas wanted now."""
    more: Threshold | None = None
    no_more: Reason | None = None
    fewer: Threshold | None = None
    no_fewer: Reason | None = None
    panic: Threshold | None = None
    """The load above which panic mode begins, or begins anew."""
    moments: tuple[Moment, ...] = ()
    """In the order of time."""
    signals: tuple[SignalThreshold, ...] = ()
    """Of the further metrics, and of all of a class that scales by what replicas use."""


def outlook(settings: RevisionSettings, decision: Decision) -> Outlook | None:
    """What would change `decision`, which was made under `settings`.

    None where that cannot be told: with demand unknown while something runs.
    """
    if settings.autoscaler_class == HPA:
        return _of_use(settings, decision) if decision.valid else None
    if decision.ready + decision.starting == 0:
        return _from_nothing(settings, decision)
    if not decision.valid:
        return None
    return _Look(settings, decision).outlook()


def _from_nothing(settings: RevisionSettings, decision: Decision) -> Outlook:
    """At zero the first request decides, without a window."""
    poked = kpa.decide(settings, decision.state, Inputs(0.0, 0.0, 0, in_flight=1.0), decision.at)
    found = _bound(settings, decision, poked, decision.at)
    return Outlook(
        scale=decision.wanted or 0,
        more=None if found.scale is None else Threshold(0.0, 0.0, found.scale),
        no_fewer=_reason_at_least(found) if decision.wanted else None,
    )


def _of_use(settings: RevisionSettings, decision: Decision) -> Outlook:
    """Where each metric is a matter of its own, and what stood around the wish is what would stand there again."""
    bounds, rules = decision.bounds, settings.behavior
    tolerances = Tolerances(rules.scale_down.tolerance, rules.scale_up.tolerance)
    return Outlook(
        scale=decision.wanted or 0,
        no_more=next((each for each in _CUTTING if each in bounds), None),
        no_fewer=next((each for each in _HOLDING if each in bounds), None),
        signals=_raising(decision, decision.signals, tolerances),
    )


def _raising(
    decision: Decision, signals: Sequence[SignalWant], tolerances: Tolerances
) -> tuple[SignalThreshold, ...]:
    """A metric raises once it comes to more targets than replicas are wanted; near to its target it asks for what
    there is."""
    scale, current = decision.wanted or 0, decision.ready + decision.starting
    if current > scale:
        least = min(float(scale), current * (1.0 - tolerances.down))
    else:
        least = max(float(scale), current * (1.0 + tolerances.up))
    return tuple(SignalThreshold(each.metric, each.target * least) for each in signals)


class _Look:
    """One decision, asked again and again."""

    def __init__(self, settings: RevisionSettings, decision: Decision) -> None:
        self._settings = settings
        self._decision = decision
        self._others = [each for each in decision.signals if each.metric != decision.metric]
        missing = any(each.missing is not None for each in self._others)
        self._held = decision.ready + decision.starting if missing else 0
        self._scale = self._wanted(self._again())

    def outlook(self) -> Outlook:
        """What would change the decision."""
        stable, panic = self._settings.stable_window, float(self._settings.panic_window)
        by_stable, by_panic = self._at_stable, self._at_panic
        panicking = self._again().panicking
        more = self._more(by_panic, panic) if panicking else self._more(by_stable, stable)
        fewer = self._fewer(by_stable, stable)
        return Outlook(
            scale=self._scale,
            more=more,
            no_more=None if more else _reason_at_most(by_stable(self._enough())),
            fewer=fewer,
            no_fewer=None if fewer or self._scale == 0 else self._reason_to_keep(by_stable(0.0)),
            panic=self._panic_above(panic),
            moments=self._moments(),
            signals=self._signals(),
        )

    def _signals(self) -> tuple[SignalThreshold, ...]:
        use = [each for each in self._others if each.metric in RESOURCES]
        rest = [each for each in self._others if each.metric not in RESOURCES]
        return (*_raising(self._decision, use, _RESOURCE), *_raising(self._decision, rest, _EXACT))

    def _again(
        self, *, stable: float | None = None, panic: float | None = None, at: float | None = None
    ) -> Decision:
        """The next decision, with the same inputs but for one."""
        before = self._decision
        inputs = Inputs(
            before.stable_value if stable is None else stable,
            before.panic_value if panic is None else panic,
            before.ready,
            before.starting,
        )
        now = before.at if at is None else at
        found = kpa.decide(self._settings, before.state, inputs, now)
        assert found.desired is not None, "nothing is missing"
        return _bound(self._settings, before, self._with_others(found), now)

    def _with_others(self, found: Decision) -> Decision:
        """A decision on requests, raised to what further metrics ask for, or what is held while one misses."""
        idle = found.stable_raw == 0 == found.panic_raw
        idle = idle and not any(each.raw > 0 for each in self._others if each.metric not in RESOURCES)
        wants = (self._want(each) for each in self._others if not (idle and each.metric in RESOURCES))
        others, desired = max(wants, default=0), found.desired or 0
        if self._held > max(desired, others):
            return found._replace(desired=self._held, bounds=(Bound.SIGNAL_MISSING,))
        return found._replace(desired=max(desired, others))

    def _want(self, signal: SignalWant) -> int:
        """Also of a resource's whose want did not count, since nothing was asked of the revision."""
        return signal.want or min(signal.raw, self._decision.rate_ceiling)

    def _at_stable(self, value: float) -> Decision:
        return self._again(stable=value)

    def _at_panic(self, value: float) -> Decision:
        return self._again(panic=value)

    def _wanted(self, found: Decision) -> int:
        """While zero waits for an activation, it is wanted all the same."""
        return found.wanted or 0

    def _enough(self) -> float:
        """More demand than this changes nothing any more."""
        return _greatest(self._replicas(), self._settings.target_value)

    def _replicas(self) -> int:
        """Whose demand every rate and bound has cut off, and which means panic."""
        ready = max(1, self._decision.ready)
        up = max(self._settings.max_scale_up_rate, self._settings.panic_threshold)
        return math.ceil(saturated(up * ready)) + self._settings.activation_scale + self._scale + 2

    def _more(self, ask: Callable[[float], Decision], window: float) -> Threshold | None:
        return self._above(ask, window, lambda found: self._wanted(found) > self._scale)

    def _panic_above(self, window: float) -> Threshold | None:
        return self._above(self._at_panic, window, lambda found: found.panic_raw > 0 and _is_over(found))

    def _above(
        self, ask: Callable[[float], Decision], window: float, changed: Callable[[Decision], bool]
    ) -> Threshold | None:
        """The load above which the decision is `changed`."""
        target = self._settings.target_value
        first = _first(self._replicas(), lambda replicas: changed(ask(_greatest(replicas, target))))
        if first is None:
            return None
        return Threshold(window, _greatest(first - 1, target), self._wanted(ask(_greatest(first, target))))

    def _fewer(self, ask: Callable[[float], Decision], window: float) -> Threshold | None:
        """The load at which there are fewer replicas, and below."""
        target = self._settings.target_value
        kept = _first(self._replicas(), lambda n: self._wanted(ask(_greatest(n, target))) >= self._scale)
        if not kept:
            return None
        value = _greatest(kept - 1, target)
        return Threshold(window, value, self._wanted(ask(value)))

    def _reason_to_keep(self, idle: Decision) -> Reason:
        """What keeps the replicas even without any load."""
        assert idle.desired is not None, "nothing is missing"
        reason = _reason_at_least(idle)
        if reason is not None:
            return reason
        if idle.panicking:
            return Held.PANIC
        if any(each.want >= idle.desired > idle.undelayed for each in self._others):
            return Held.SIGNAL
        return Held.DELAY if idle.delayed else Clamp.SCALE_DOWN_RATE

    def _moments(self) -> tuple[Moment, ...]:
        found = [*self._panic_end(), *self._delay_end(), *self._zero()]
        return tuple(sorted(found, key=lambda moment: moment.at))

    def _panic_end(self) -> list[Moment]:
        since = self._decision.state.panic_since
        if since is None or _is_over(self._decision):
            return []
        end = since + self._settings.stable_window
        return [Moment(end, Turn.PANIC_ENDS, self._wanted(self._again(at=_after(end))))]

    def _delay_end(self) -> list[Moment]:
        delay = self._decision.state.delay
        if delay is None or not self._decision.delayed:
            return []
        buckets = math.ceil(delay.duration / delay.granularity)
        end = float((delay.peaks[0].bucket + buckets) * delay.granularity)
        return [Moment(end, Turn.DELAY_ENDS, self._wanted(self._again(at=end)))]

    def _zero(self) -> list[Moment]:
        """When the last replica goes, once nothing is asked for."""
        at = self._decision.at
        activity = self._decision.activity
        wish = self._again()._replace(bounds=())
        if wish.desired or activity is None:
            return []
        if self._decision.next_check is not None and Bound.GRACE_PERIOD in self._decision.bounds:
            return [Moment(self._decision.next_check, Turn.ZERO, 0)]
        for _ in range(_MOST_STEPS):
            found = bounds.bound(self._settings, activity, wish, _path(self._decision), at)
            if found.scale == 0:
                return [Moment(at, Turn.ZERO, 0)] if at > self._decision.at else []
            if found.next_check is None or found.activity is None:
                return []
            activity, at = found.activity, max(at, found.next_check)
        return []


def _first(most: int, holds: Callable[[int], bool]) -> int | None:
    """The least number to `most` for which `holds`, as it does for all above it; None where it never does."""
    if not holds(most):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _greatest(replicas: int, target: float) -> float:
    """The greatest load that asks for no more than `replicas`, to the last digit."""
    if replicas <= 0:
        return 0.0
    value = replicas * target
    while value / target > replicas:
        value = math.nextafter(value, 0.0)
    while math.nextafter(value, math.inf) / target <= replicas:
        value = math.nextafter(value, math.inf)
    return value


def _after(moment: float) -> float:
    """The first time of which the window that ended at `moment` is not part."""
    return max(moment + 2 * _INSTANT, math.nextafter(moment, math.inf))


def _is_over(decision: Decision) -> bool:
    return decision.panic_raw / max(1, decision.ready) >= decision.panic_threshold


def _bound(settings: RevisionSettings, before: Decision, wished: Decision, now: float) -> Decision:
    activity = before.activity or Activity(Status.ACTIVE, before.at, True)
    return bounds.bound(settings, activity, wished, _path(before), now)


def _path(decision: Decision) -> RequestPath:
    return RequestPath(activator_answers=Bound.ACTIVATOR_NOT_IN_PATH not in decision.bounds)


def _reason_at_most(busiest: Decision) -> Reason | None:
    """What cuts off the greatest demand."""
    for bound in (Bound.MAX_SCALE_LIMIT, Bound.MAX_SCALE):
        if bound in busiest.bounds:
            return bound
    return busiest.stable_clamp if busiest.stable_clamp is not Clamp.NONE else None


def _reason_at_least(idle: Decision) -> Reason | None:
    """Which bound stands below the least demand."""
    return next((bound for bound in idle.bounds if bound in _KEEPING), None)


_CUTTING: Final = (Bound.MAX_SCALE_LIMIT, Bound.MAX_SCALE, Bound.SCALE_UP_POLICY)
_HOLDING: Final = (
    Bound.MIN_SCALE,
    Bound.CLASS_KEEPS_ONE,
    Bound.SIGNAL_MISSING,
    Bound.STABILIZATION,
    Bound.SCALE_DOWN_POLICY,
    Bound.TOLERANCE,
)
_KEEPING: Final = frozenset(
    {
        Bound.SIGNAL_MISSING,
        Bound.MIN_SCALE,
        Bound.INITIAL_SCALE,
        Bound.SCALE_TO_ZERO_DISABLED,
        Bound.ACTIVATING,
        Bound.ACTIVE_TOO_BRIEFLY,
    }
)

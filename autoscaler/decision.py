"""The record of one decision: what was seen, what followed from it and why.

Logs, metrics, `explain`, plots and tests read this and nothing else. `upwell.autoscaler.kpa` fills in the demand
part, `upwell.autoscaler.bounds` the rest. Immutable; what has no meaning in a decision that is not valid is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from upwell.autoscaler.window import MaxWindow

GREATEST_COUNT: Final = 2**31 - 1
"""The most replicas that are counted, as wide as Kubernetes' own counts; what comes to more counts as this."""


def saturated(count: float) -> float:
    """`count`, infinite if need be, as a number that can be rounded to a count of replicas, either sign."""
    return max(-GREATEST_COUNT, min(count, GREATEST_COUNT))


class Missing(StrEnum):
    """Why demand cannot be told, so that nothing is to be changed."""

    NO_DATA = "no-data"
    METRICS_FAILED = "metrics-failed"
    REPLICA_COUNT_FAILED = "replica-count-failed"


class Clamp(StrEnum):
    """What changed the number of replicas that a window's demand alone asks for."""

    NONE = "none"
    SCALE_UP_RATE = "max-scale-up-rate"
    SCALE_DOWN_RATE = "max-scale-down-rate"
    ACTIVATION_SCALE = "activation-scale"


class Panic(StrEnum):
    """Panic mode, and what this decision did to it."""

    OFF = "off"
    ENTERED = "entered"
    RENEWED = "renewed"
    HELD = "held"
    LEFT = "left"


class Bound(StrEnum):
    """What stands around the demand: each changed the scale, or held it. Listed in the order of application."""

    TOLERANCE = "tolerance"
    STABILIZATION = "stabilization-window"
    SCALE_UP_POLICY = "scale-up-policy"
    SCALE_DOWN_POLICY = "scale-down-policy"
    SIGNAL_MISSING = "signal-missing"
    CLASS_KEEPS_ONE = "class-keeps-one"
    POKE_NEEDS_ONE = "poke-needs-one"
    NO_DEMAND_KNOWN = "no-demand-known"
    MIN_SCALE = "min-scale"
    INITIAL_SCALE = "initial-scale"
    MAX_SCALE = "max-scale"
    MAX_SCALE_LIMIT = "max-scale-limit"
    SCALE_TO_ZERO_DISABLED = "scale-to-zero-disabled"
    ACTIVATING = "activating"
    ACTIVATION_TIMED_OUT = "activation-timed-out"
    ACTIVE_TOO_BRIEFLY = "active-too-briefly"
    FOUND_INACTIVE = "found-inactive"
    ACTIVATOR_NOT_IN_PATH = "activator-not-in-path"
    GRACE_PERIOD = "scale-to-zero-grace-period"
    RETENTION_PERIOD = "scale-to-zero-pod-retention-period"
    POKE_ONLY_RAISES = "poke-only-raises"


class Status(StrEnum):
    """Whether a revision can serve: the Active condition of Knative's PodAutoscaler."""

    ACTIVATING = "activating"
    ACTIVE = "active"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class State:
    """What the algorithm remembers between two decisions."""

    panic_since: float | None
    """The latest time (Unix seconds) at which demand was over the panic threshold; None outside panic mode."""
    max_panic_replicas: int
    """The number of replicas that panic mode does not go below."""
    delay: MaxWindow | None
    """Past wishes that put off scaling down; None when there is no scale-down delay."""
    excess_burst_capacity: int
    """As of the latest valid decision, or what a new revision starts with."""
    memory: object = None
    """What a class other than the KPA remembers; nobody else looks into it."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Where a revision stands between zero and serving."""

    status: Status
    since: float
    """When it came to this status, Unix seconds."""
    initialized: bool
    """Whether the initial scale was reached once."""
    timed_out: bool = False
    """Inactive because it could not be activated in time."""


class ReplicaReading(NamedTuple):
    """What one replica uses of a resource, or has of a metric. Times are Unix seconds."""

    name: str
    value: float | None
    """Cores, bytes or the metric's own unit; None when it could not be read."""
    ready: bool = True
    started_at: float = 0.0
    ready_changed_at: float = 0.0


class Reading(NamedTuple):
    """What is known of one of a revision's further metrics.

    `value` is the sum over all replicas (the whole backlog, what a query returned); `replicas` says it of each,
    where it is measured so. With `missing` set there is no value.
    """

    value: float = 0.0
    missing: Missing | None = None
    replicas: tuple[ReplicaReading, ...] = ()


class SignalWant(NamedTuple):
    """What one of several metrics asks for."""

    metric: str
    value: float
    """Over all replicas, in the target's unit."""
    target: float
    """A replica's share."""
    raw: int
    """Replicas before any clamp."""
    want: int
    missing: Missing | None = None


class Inputs(NamedTuple):
    """What is known of a revision at one moment.

    `stable` and `panic` are the metric over the two windows, summed over all replicas. `in_flight` is set for a
    poke: the requests that wait or run now. With `missing` set the metrics, or `ready`, mean nothing.
    """

    stable: float
    panic: float
    ready: int
    starting: int = 0
    missing: Missing | None = None
    in_flight: float | None = None
    readings: tuple[Reading, ...] = ()
    """Of the settings' further metrics, one each in their order."""


class Decision(NamedTuple):
    """One decision with its reasons. Replica counts unless said otherwise; times are Unix seconds.

    A named tuple because thousands are made every tick, for a third of what a frozen dataclass costs.
    """

    at: float
    state: State
    """What to pass to the next decision."""

    metric: str
    stable_value: float
    panic_value: float
    """The metric over the short window, or a poke's requests in flight when these are more."""
    in_flight: float | None
    """The poke that asked for this decision; None at a tick."""
    ready: int
    starting: int
    target_value: float
    """The metric per replica that is aimed at."""
    stable_window: float
    """0 for a class that averages nothing over windows."""
    panic_window: float
    panic_threshold: float
    missing: Missing | None
    """Why there is no demand to follow, None for a valid decision."""

    stable_raw: int = 0
    """What the stable window asks for, before any clamp; likewise `panic_raw`."""
    panic_raw: int = 0
    rate_floor: int = 0
    """The least that the scale-down rate allows now; `rate_ceiling` is the most that the scale-up rate allows."""
    rate_ceiling: int = 0
    stable_clamp: Clamp = Clamp.NONE
    panic_clamp: Clamp = Clamp.NONE
    stable_want: int = 0
    panic_want: int = 0
    panic: Panic = Panic.OFF
    undelayed: int = 0
    """The wish before the scale-down delay."""
    desired: int | None = None
    """The wish of the algorithm; None when the decision is not valid."""
    signals: tuple[SignalWant, ...] = ()
    """What each metric asks for, the KPA's own first; empty for the KPA on requests alone."""
    binding: str = ""
    """The metric whose want is the greatest, where there are several."""
    activators: int = 0
    """How many activators are to stand before the revision, were it for them to be chosen."""

    revision: str = ""
    scale: int | None = None
    """What to set, after bounds; None means that nothing is to be changed."""
    wanted: int | None = None
    """What is known to be wanted in the end: 0 already while the way to zero is not over. None when unknown."""
    bounds: tuple[Bound, ...] = ()
    """What stood around the wish, in the order in which it did."""
    activity: Activity | None = None
    next_check: float | None = None
    """When this may come out differently by the passing of time alone, if that is known."""

    @property
    def valid(self) -> bool:
        """Whether demand was known."""
        return self.missing is None

    @property
    def panicking(self) -> bool:
        """Whether panic mode is on after this decision."""
        return self.state.panic_since is not None

    @property
    def delayed(self) -> bool:
        """Whether the scale-down delay keeps replicas that demand does not ask for."""
        return self.desired is not None and self.desired > self.undelayed

    @property
    def excess_burst_capacity(self) -> int:
        """Capacity to spare beyond the target burst capacity; negative keeps the activator in the path."""
        return self.state.excess_burst_capacity

    @property
    def outcome(self) -> tuple[object, ...]:
        """What tells this decision from one with the same result for the same reasons."""
        return (
            self.scale,
            self.desired,
            self.missing,
            self.stable_clamp,
            self.panic_clamp,
            self.panicking,
            self.delayed,
            self.bounds,
            self.binding,
            self.activity.status if self.activity else None,
        )

    def sentence(self) -> str:
        """A plain explanation in one line."""
        parts = [self._result(), *self._demand(), *(_BOUND_TEXTS[bound] for bound in self.bounds)]
        return f"{self.revision}: {'; '.join(parts)}" if self.revision else "; ".join(parts)

    def _result(self) -> str:
        have = f"{self.ready} ready" + (f", {self.starting} starting" if self.starting else "")
        if self.scale is None:
            return f"stay as is ({have})"
        return f"scale to {self.scale} ({have})"

    def _demand(self) -> list[str]:
        if self.signals and self.missing is not Missing.REPLICA_COUNT_FAILED:
            return self._signals()
        if self.missing is Missing.NO_DATA and self.ready + self.starting == 0:
            return ["nothing runs and nothing was reported"]
        if self.missing is not None:
            return [_MISSING_TEXTS[self.missing]]
        parts = self._requests()
        if self.delayed:
            parts.append(self._delay_text())
        return parts

    def _signals(self) -> list[str]:
        own = 1 if self.stable_window > 0 else 0
        requests, further = self.signals[:own], self.signals[own:]
        parts = self._requests() if any(each.missing is None for each in requests) else []
        parts += [_signal_text(each) for each in (*(() if parts else requests), *further)]
        if self.binding:
            parts.append(f"{self.binding} asks for most")
        if self.delayed:
            parts.append(self._delay_text())
        return parts

    def _requests(self) -> list[str]:
        stable = self._demanded(self.stable_value, self.stable_window)
        panic = self._demanded(self.panic_value, self.panic_window)
        parts = [
            f"{self.metric}: {stable} asks for {self.stable_raw}"
            f"{self._clamped(self.stable_clamp, self.stable_want)}",
            f"{panic} asks for {self.panic_raw}{self._clamped(self.panic_clamp, self.panic_want)},"
            f" at {self.target_value:.6g} a replica",
        ]
        if self.panic is not Panic.OFF:
            parts.append(self._panic_text())
        return parts

    def _delay_text(self) -> str:
        return f"the scale-down delay keeps {self.desired} instead of {self.undelayed}"

    def _demanded(self, value: float, window: float) -> str:
        if self.in_flight is not None and self.in_flight == value:
            return f"a poke with {value:g} in flight"
        return f"{value:.6g} over {window:g} s"

    def _clamped(self, clamp: Clamp, want: int) -> str:
        if clamp is Clamp.NONE:
            return ""
        return f", {clamp} makes that {want}"

    def _panic_text(self) -> str:
        if self.panic is Panic.LEFT:
            return f"panic is over, demand stayed below the threshold for {self.stable_window:g} s"
        held = f"at least {self.state.max_panic_replicas} until demand has been lower for {self.stable_window:g} s"
        if self.panic is Panic.HELD:
            return f"panic holds {held}"
        return (
            f"panic {self.panic}, {self.panic_raw} is {self.panic_threshold:g} or more times"
            f" the {max(1, self.ready)} at hand: {held}"
        )


def _signal_text(signal: SignalWant) -> str:
    if signal.missing is not None:
        return f"{signal.metric} {_UNREAD_TEXTS[signal.missing]}"
    value = f"{signal.value:.6g}{_UNITS.get(signal.metric, '')}"
    clamped = "" if signal.want == signal.raw else f", made {signal.want}"
    return f"{signal.metric}: {value} asks for {signal.raw}{clamped}, at {signal.target:.6g} a replica"


_UNITS = {"cpu": "% of the requested CPU", "memory": " MiB"}
_UNREAD_TEXTS = {
    Missing.NO_DATA: "was not reported within the window",
    Missing.METRICS_FAILED: "could not be read",
    Missing.REPLICA_COUNT_FAILED: "means nothing without a count of replicas",
}
_MISSING_TEXTS = {
    Missing.NO_DATA: "no report within the window, so demand is unknown",
    Missing.METRICS_FAILED: "metrics could not be read, so demand is unknown",
    Missing.REPLICA_COUNT_FAILED: "ready replicas could not be counted, so nothing is decided",
}
_BOUND_TEXTS = {
    Bound.TOLERANCE: "the metric is near enough to its target",
    Bound.STABILIZATION: "the stabilization window holds an earlier recommendation",
    Bound.SCALE_UP_POLICY: "the scale-up policies allow no more yet",
    Bound.SCALE_DOWN_POLICY: "the scale-down policies allow no less yet",
    Bound.SIGNAL_MISSING: "a metric could not be read, so replicas are not taken away",
    Bound.CLASS_KEEPS_ONE: "this class never goes to zero, so one stays",
    Bound.MIN_SCALE: "min-scale asks for more",
    Bound.INITIAL_SCALE: "the initial scale was not reached yet",
    Bound.MAX_SCALE: "max-scale allows no more",
    Bound.MAX_SCALE_LIMIT: "the cluster's max-scale-limit allows no more",
    Bound.POKE_NEEDS_ONE: "a request waits, so one replica is needed",
    Bound.POKE_ONLY_RAISES: "a poke only raises the scale, and there is enough",
    Bound.NO_DEMAND_KNOWN: "the scale is held while demand is unknown",
    Bound.SCALE_TO_ZERO_DISABLED: "scale to zero is disabled, so one stays",
    Bound.ACTIVATING: "it is being activated, so zero waits",
    Bound.ACTIVATION_TIMED_OUT: "it could not be activated in time, so it goes to zero",
    Bound.ACTIVE_TOO_BRIEFLY: "it was active for less than the stable window, so one stays",
    Bound.FOUND_INACTIVE: "it is inactive from now on, the grace period begins",
    Bound.ACTIVATOR_NOT_IN_PATH: "the activator does not answer for it yet, so zero waits",
    Bound.GRACE_PERIOD: "the grace period before zero is not over",
    Bound.RETENTION_PERIOD: "the retention period of the last replica is not over",
}

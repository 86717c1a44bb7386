"""Knative's pod autoscaler: from demand over two windows to a number of replicas.

Every tick the mean demand over a long (stable) and a short (panic) window is divided by the target per replica.
Demand over the short window of `panic_threshold` times what is ready means panic: until the stable window has
passed without such demand the greater of both wishes counts and the scale never sinks. Rates bound each step, and
a scale-down delay takes the greatest wish of a while. Pure: state goes in, a decision with the next state comes
out. After Knative Serving's pkg/autoscaler/scaling, which the golden data was recorded from.
"""

from __future__ import annotations

import math

from upwell.autoscaler.decision import Clamp, Decision, Inputs, Missing, Panic, State, saturated
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow

TICK = 2
"""Seconds between two evaluations, and the granularity of the scale-down delay."""
LEAST_ACTIVATORS = 2
_MICROSECONDS = 1_000_000


def start(settings: RevisionSettings, ready: int, now: float) -> State:
    """The state of an autoscaler that begins now.

    With more than one replica ready it begins in panic: its windows are empty, and what runs must not be taken
    down for want of history. The scale-down delay is fixed here for good.
    """
    delay = MaxWindow(settings.scale_down_delay, TICK) if settings.scale_down_delay > 0 else None
    return State(
        panic_since=now if ready > 1 else None,
        max_panic_replicas=ready,
        delay=delay,
        excess_burst_capacity=_initial_excess_burst_capacity(settings),
    )


def activators(settings: RevisionSettings, ready: int) -> int:
    """How many activators are to stand before a revision with `ready` replicas, as Knative computes it."""
    burst = settings.target_burst_capacity
    if burst == 0:
        return LEAST_ACTIVATORS
    covered = ready * settings.total_value + max(burst, 0.0)
    return max(LEAST_ACTIVATORS, math.ceil(saturated(covered / settings.activator_capacity)))


def rate_limits(settings: RevisionSettings, ready: int) -> tuple[int, int]:
    """The least and the most replicas that the rates allow one decision to ask for where `ready` are ready."""
    served = max(1, ready)
    floor = math.floor(served / settings.max_scale_down_rate) if settings.reachable else 0
    return floor, math.ceil(saturated(settings.max_scale_up_rate * served))


def _initial_excess_burst_capacity(settings: RevisionSettings) -> int:
    burst = settings.target_burst_capacity
    if burst <= 0:
        return 0 if burst == 0 else -1
    return math.floor(saturated(settings.initial_scale * settings.total_value - burst))


def decide(settings: RevisionSettings, state: State, inputs: Inputs, now: float) -> Decision:
    """The decision at `now` (Unix seconds, not before the state's); its `state` goes into the next one."""
    in_flight = inputs.in_flight
    stable, panic, missing = inputs.stable, inputs.panic, inputs.missing
    if in_flight is not None:
        if missing in (Missing.NO_DATA, Missing.METRICS_FAILED):
            stable = panic = 0.0
            missing = None
        panic = max(panic, in_flight)
        if inputs.ready + inputs.starting == 0:
            stable = max(stable, in_flight)  # from zero no history speaks against it
    if missing is not None:
        return _undecided(settings, state, inputs, missing, now)

    ready = max(1, inputs.ready)
    floor, ceiling = rate_limits(settings, inputs.ready)
    stable_raw = math.ceil(saturated(stable / settings.target_value))
    panic_raw = math.ceil(saturated(panic / settings.target_value))
    stable_want, stable_clamp = _clamp(stable_raw, floor, ceiling, settings.activation_scale)
    panic_want, panic_clamp = _clamp(panic_raw, floor, ceiling, settings.activation_scale)

    over = panic_raw / ready >= settings.panic_threshold
    mode, since, held = _panic(state, over, settings.stable_window, now)
    wish = stable_want
    if since is not None:
        wish = held = max(stable_want, panic_want, held)
    desired, delay = wish, state.delay
    if delay is not None and settings.reachable:
        delay = delay.record(now, wish)
        desired = delay.current
    return Decision(
        at=now,
        state=State(since, held, delay, _excess_burst_capacity(settings, inputs.ready, panic)),
        metric=settings.metric,
        stable_value=stable,
        panic_value=panic,
        in_flight=in_flight,
        ready=inputs.ready,
        starting=inputs.starting,
        target_value=settings.target_value,
        stable_window=settings.stable_window,
        panic_window=settings.panic_window,
        panic_threshold=settings.panic_threshold,
        missing=None,
        stable_raw=stable_raw,
        panic_raw=panic_raw,
        rate_floor=floor,
        rate_ceiling=ceiling,
        stable_clamp=stable_clamp,
        panic_clamp=panic_clamp,
        stable_want=stable_want,
        panic_want=panic_want,
        panic=mode,
        undelayed=wish,
        desired=desired,
        activators=activators(settings, inputs.ready),
    )


def _undecided(settings: RevisionSettings, state: State, inputs: Inputs, missing: Missing, now: float) -> Decision:
    return Decision(
        at=now,
        state=state,
        metric=settings.metric,
        stable_value=0.0,
        panic_value=0.0,
        in_flight=inputs.in_flight,
        ready=inputs.ready,
        starting=inputs.starting,
        target_value=settings.target_value,
        stable_window=settings.stable_window,
        panic_window=settings.panic_window,
        panic_threshold=settings.panic_threshold,
        missing=missing,
        panic=Panic.OFF if state.panic_since is None else Panic.HELD,
        activators=activators(settings, inputs.ready),
    )


def _clamp(raw: int, floor: int, ceiling: int, activation: int) -> tuple[int, Clamp]:
    want, clamp = raw, Clamp.NONE
    if want < floor:
        want, clamp = floor, Clamp.SCALE_DOWN_RATE
    if want > ceiling:
        want, clamp = ceiling, Clamp.SCALE_UP_RATE
    if activation > want and activation > 1 and raw > 0:
        want, clamp = activation, Clamp.ACTIVATION_SCALE
    return want, clamp


def _panic(state: State, over: bool, stable_window: float, now: float) -> tuple[Panic, float | None, int]:
    """The mode, since when demand was last over the threshold, and the replicas held so far."""
    since, held = state.panic_since, state.max_panic_replicas
    if over:
        return (Panic.ENTERED if since is None else Panic.RENEWED), now, held
    if since is None:
        return Panic.OFF, None, held
    # Whole microseconds: the end of the window is exact, where a difference of two floats is not.
    if round((now - since) * _MICROSECONDS) > stable_window * _MICROSECONDS:
        return Panic.LEFT, None, 0
    return Panic.HELD, since, held


def _excess_burst_capacity(settings: RevisionSettings, ready: int, panic: float) -> int:
    burst = settings.target_burst_capacity
    if burst > 0:
        return math.floor(saturated(ready * settings.total_value - burst - panic))
    return 0 if burst == 0 else -1

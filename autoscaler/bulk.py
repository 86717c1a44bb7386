"""The decision of `kpa` and `bounds`, for many revisions at once.

The same steps in the same order as the decision of one, each on columns: what an `if` chooses there a mask chooses
here. Every float is computed by the same operations on the same doubles, so results are equal to the last bit; a
property test and the golden data hold both to that. It is for revisions scaled by concurrency or requests a second
alone, and for ticks: pokes and further metrics go one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from upwell.autoscaler.arrays import BoolArray, Codes, FloatArray, IntArray
from upwell.autoscaler.columns import SettingsColumns, StateColumns, Table, delay_passed
from upwell.autoscaler.decision import GREATEST_COUNT, Bound, Clamp, Panic, Status
from upwell.autoscaler.kpa import LEAST_ACTIVATORS
from upwell.autoscaler.records import (
    CLAMPS,
    DELAYED,
    NONE,
    PANIC_CLAMP,
    PANICKING,
    PANICS,
    RECORD,
    STATUSES,
    Records,
    bit,
)

_Number = TypeVar("_Number", np.int64, np.float64, np.uint8)

# Rows that are decided together: columns in between are small enough to stay in memory that is at hand.
_BLOCK = 5000
_MICROSECONDS = 1_000_000
# What means nothing, and is zero, while demand is unknown.
_OF_DEMAND = (
    *("stable_value", "panic_value", "stable_raw", "panic_raw", "rate_floor", "rate_ceiling", "clamps"),
    *("stable_want", "panic_want", "undelayed"),
)

_OFF, _ENTERED, _RENEWED, _HELD, _LEFT = (PANICS.index(panic) for panic in Panic)
_ACTIVATING, _ACTIVE, _INACTIVE = (STATUSES.index(status) for status in Status)
_NO_CLAMP, _SCALE_UP_RATE, _SCALE_DOWN_RATE, _ACTIVATION_SCALE = (CLAMPS.index(clamp) for clamp in Clamp)
_NO_DEMAND_KNOWN = bit(Bound.NO_DEMAND_KNOWN)
_MIN_SCALE, _INITIAL_SCALE = bit(Bound.MIN_SCALE), bit(Bound.INITIAL_SCALE)
_MAX_SCALE, _MAX_SCALE_LIMIT = bit(Bound.MAX_SCALE), bit(Bound.MAX_SCALE_LIMIT)
_SCALE_TO_ZERO_DISABLED, _BEING_ACTIVATED = bit(Bound.SCALE_TO_ZERO_DISABLED), bit(Bound.ACTIVATING)
_ACTIVATION_TIMED_OUT, _ACTIVE_TOO_BRIEFLY = bit(Bound.ACTIVATION_TIMED_OUT), bit(Bound.ACTIVE_TOO_BRIEFLY)
_FOUND_INACTIVE, _ACTIVATOR_NOT_IN_PATH = bit(Bound.FOUND_INACTIVE), bit(Bound.ACTIVATOR_NOT_IN_PATH)
_GRACE_PERIOD, _RETENTION_PERIOD = bit(Bound.GRACE_PERIOD), bit(Bound.RETENTION_PERIOD)


class BulkInputs(NamedTuple):
    """What is known of n revisions at one moment; as `Inputs`, each field of shape (n,)."""

    stable: FloatArray
    panic: FloatArray
    ready: IntArray
    starting: IntArray
    missing: Codes
    """Places in `records.MISSING`, so 0 where demand is known."""

    def part(self, where: slice) -> BulkInputs:
        """What is known of some of the revisions."""
        return BulkInputs(
            self.stable[where], self.panic[where], self.ready[where], self.starting[where], self.missing[where]
        )


def decide(
    settings: SettingsColumns, states: StateColumns, rows: IntArray, inputs: BulkInputs, now: float | FloatArray
) -> Records:
    """The decisions of `rows` at `now` (Unix seconds; one time or one each), in the order of `rows`.

    Nothing is changed: `states.store` takes over what follows.
    """
    records = np.zeros(len(rows), RECORD)
    times: FloatArray = np.broadcast_to(np.float64(now), rows.shape)
    with np.errstate(over="ignore"):  # what is too large for a float saturates as any count that is too large
        for begin in range(0, len(rows), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            _decide(records[block], settings, states, rows[block], inputs.part(block), times[block])
    return records


def _decide(
    records: Records,
    settings: SettingsColumns,
    states: StateColumns,
    rows: IntArray,
    inputs: BulkInputs,
    now: FloatArray,
) -> None:
    given, state = settings.of(rows), states.of(rows)
    known: BoolArray = inputs.missing == 0
    _note(records, given, inputs, now)
    wish = _wish(records, given, state, inputs, known, now)
    records["put_off"] = known & state["has_delay"] & given["reachable"]
    desired = _put_off(records["put_off"], state, states, rows, wish, now)
    records["desired"] = np.where(known, desired, NONE)
    records["mode"] = PANICKING * ~np.isnan(records["panic_since"]) + DELAYED * (desired > wish)
    unknown = np.flatnonzero(~known)
    for name in _OF_DEMAND if len(unknown) else ():
        records[name][unknown] = 0
    _bound(records, given, state, now)


def _note(records: Records, given: Table, inputs: BulkInputs, now: FloatArray) -> None:
    """Write down what is decided on."""
    records["at"] = now
    records["stable_value"], records["panic_value"] = inputs.stable, inputs.panic
    records["ready"], records["starting"] = inputs.ready, inputs.starting
    records["missing"] = inputs.missing
    records["in_flight"] = np.nan
    for name in ("metric", "target_value", "stable_window", "panic_window", "panic_threshold"):
        records[name] = given[name]


def _wish(
    records: Records, given: Table, state: Table, inputs: BulkInputs, known: BoolArray, now: FloatArray
) -> IntArray:
    """What demand and panic mode ask for, as `kpa.decide` has it before the delay; any number where unknown."""
    stable, panic = np.where(known, inputs.stable, 0.0), np.where(known, inputs.panic, 0.0)
    ready = np.maximum(1, inputs.ready)
    floor = np.where(given["reachable"], np.floor(ready / given["max_scale_down_rate"]), 0).astype(np.int64)
    ceiling = _whole(np.ceil(given["max_scale_up_rate"] * ready))
    stable_raw = _whole(np.ceil(stable / given["target_value"]))
    panic_raw = _whole(np.ceil(panic / given["target_value"]))
    stable_want, stable_clamp = _clamp(stable_raw, floor, ceiling, given["activation_scale"])
    panic_want, panic_clamp = _clamp(panic_raw, floor, ceiling, given["activation_scale"])

    over = known & (panic_raw / ready >= given["panic_threshold"])
    mode, since, held = _panic(given, state, over, known, now)
    panicking = ~np.isnan(since)
    wish: IntArray = np.where(panicking, np.maximum(np.maximum(stable_want, panic_want), held), stable_want)

    records["rate_floor"], records["rate_ceiling"] = floor, ceiling
    records["stable_raw"], records["panic_raw"] = stable_raw, panic_raw
    records["stable_want"], records["panic_want"] = stable_want, panic_want
    records["clamps"] = stable_clamp + PANIC_CLAMP * panic_clamp
    records["panic"], records["panic_since"] = mode, since
    records["max_panic_replicas"] = np.where(known & panicking, wish, held)
    burst = _excess_burst_capacity(given, inputs.ready, panic)
    records["excess_burst_capacity"] = np.where(known, burst, state["excess_burst_capacity"])
    records["activators"] = _activators(given, inputs.ready)
    records["undelayed"] = wish
    return wish


def _first(
    cases: Sequence[BoolArray], values: Sequence[npt.NDArray[_Number] | float], otherwise: npt.NDArray[_Number]
) -> npt.NDArray[_Number]:
    """In each row the value of the first case that is true."""
    chosen = otherwise.copy()
    for case, value in zip(reversed(cases), reversed(values), strict=True):
        np.copyto(chosen, value, where=case)
    return chosen


def _whole(counts: FloatArray) -> IntArray:
    return np.minimum(np.maximum(counts, -GREATEST_COUNT), GREATEST_COUNT).astype(np.int64)


def _clamp(raw: IntArray, floor: IntArray, ceiling: IntArray, activation: IntArray) -> tuple[IntArray, Codes]:
    raised = np.maximum(raw, floor)
    want = np.minimum(raised, ceiling)
    activated = (activation > want) & (activation > 1) & (raw > 0)
    cases = (activated, raised > ceiling, raw < floor)
    clamp = _first(
        cases, (_ACTIVATION_SCALE, _SCALE_UP_RATE, _SCALE_DOWN_RATE), np.full(len(raw), _NO_CLAMP, np.uint8)
    )
    return np.where(activated, activation, want), clamp


def _panic(
    given: Table, state: Table, over: BoolArray, known: BoolArray, now: FloatArray
) -> tuple[Codes, FloatArray, IntArray]:
    """The mode, since when demand was last over the threshold, and the replicas held so far."""
    since, held = state["panic_since"], state["max_panic_replicas"]
    panicked = ~np.isnan(since)
    passed = np.rint((now - since) * _MICROSECONDS) > given["stable_window"] * _MICROSECONDS
    left = known & ~over & passed
    cases = (over & panicked, over, left, panicked)
    mode = _first(cases, (_RENEWED, _ENTERED, _LEFT, _HELD), np.full(len(now), _OFF, np.uint8))
    return mode, np.where(over, now, np.where(left, np.nan, since)), np.where(left, 0, held)


def _excess_burst_capacity(given: Table, ready: IntArray, panic: FloatArray) -> IntArray:
    burst = given["target_burst_capacity"]
    left = _whole(np.floor(ready * given["total_value"] - burst - panic))
    return np.where(burst > 0, left, np.where(burst == 0, 0, -1))


def _activators(given: Table, ready: IntArray) -> IntArray:
    burst = given["target_burst_capacity"]
    covered = ready * given["total_value"] + np.maximum(burst, 0.0)
    needed = np.maximum(LEAST_ACTIVATORS, _whole(np.ceil(covered / given["activator_capacity"])))
    return np.where(burst == 0, LEAST_ACTIVATORS, needed)


def _put_off(
    applies: BoolArray, state: Table, states: StateColumns, rows: IntArray, wish: IntArray, now: FloatArray
) -> IntArray:
    """The greatest wish of the scale-down delay, where `applies` says that there is one."""
    if not applies.any():
        return wish
    lower = applies & (wish < state["delay_peak"])
    _, passed = delay_passed(state, now)
    desired = np.where(lower & ~passed, state["delay_peak"], wish)
    for index in np.flatnonzero(lower & passed & ~state["delay_alone"]).tolist():
        delay = states.delay(int(rows[index]))
        assert delay is not None, "has_delay says so"
        desired[index] = delay.record(float(now[index]), int(wish[index])).current
    return desired


def _bound(records: Records, given: Table, state: Table, now: FloatArray) -> None:
    """What stands around the wish, as `bounds.bound` has it for ticks."""
    overdue = now > state["since"] + given["longest_activation"]
    scale, reasons = _within(records, given, state, overdue)
    wanted, check = scale, np.full(len(scale), np.nan)
    zero = scale == 0
    if zero.any():
        least, known, reason, again = _toward_zero(given, state, overdue, now)
        scale, wanted = np.where(zero, least, scale), np.where(zero, known, wanted)
        reasons, check = reasons | np.where(zero, reason, 0), np.where(zero, again, check)
    records["scale"], records["wanted"] = scale, wanted
    records["bounds"], records["next_check"] = reasons, check
    _follow(records, given, state, wanted, now)


def _within(records: Records, given: Table, state: Table, overdue: BoolArray) -> tuple[IntArray, IntArray]:
    """The wish between minimum and maximum, -1 when it is unknown and what is there will do; and the reasons."""
    desired = records["desired"].astype(np.int64)
    known = desired != NONE
    least, most = given["min_scale"], given["most"]
    activating = state["status"] == _ACTIVATING
    counts = (desired > 0) | (activating & ~overdue)
    initially = given["reachable"] & ~state["initialized"] & counts & (least < given["initial_scale"])
    least = np.where(initially, given["initial_scale"], least)
    least = np.where(most > 0, np.minimum(least, most), least)

    may_be_zero = given["enable_scale_to_zero"]
    gives_up = ~known & activating & (least == 0) & may_be_zero
    there = records["ready"].astype(np.int64) + records["starting"]
    stays = ~known & ~gives_up & (there >= np.maximum(least, np.where(may_be_zero, 0, 1)))
    wish = np.where(known, desired, 0)
    below = ~stays & (wish < least)
    above = (most > 0) & (most < wish)
    reasons = np.where(known, 0, _NO_DEMAND_KNOWN)
    reasons |= np.where(below, np.where(initially, _INITIAL_SCALE, _MIN_SCALE), 0)
    reasons |= np.where(above, np.where(given["limited"], _MAX_SCALE_LIMIT, _MAX_SCALE), 0)
    return _first((stays, below, above), (NONE, least, most), wish), reasons


def _toward_zero(
    given: Table, state: Table, overdue: BoolArray, now: FloatArray
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """What zero comes to: the scale to set, the scale known to be wanted, the reason, and when to look again."""
    since, status = state["since"], state["status"]
    long_enough, too_late = since + given["stable_window"], since + given["longest_activation"]
    active = status == _ACTIVE
    scale, reason, check = _from_inactive(given, state, np.where(active, now, since), now)
    activating = status == _ACTIVATING
    cases = (
        ~given["enable_scale_to_zero"],
        activating & overdue,
        activating,
        active & (now < long_enough),
        active,
    )
    reasons = (
        *(_SCALE_TO_ZERO_DISABLED, _ACTIVATION_TIMED_OUT, _BEING_ACTIVATED),
        *(_ACTIVE_TOO_BRIEFLY, _FOUND_INACTIVE),
    )
    checks = (np.nan, np.nan, np.nextafter(too_late, np.inf), long_enough, check)
    return (
        _first(cases, (1, 0, NONE, 1, NONE), scale),
        _first(cases, (1, 0, NONE, 1, 0), np.zeros_like(scale)),
        _first(cases, reasons, reason),
        _first(cases, checks, check),
    )


def _from_inactive(
    given: Table, state: Table, since: FloatArray, now: FloatArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """The scale to set, the reason and when to look again, of what is inactive since `since`."""
    retention = np.where(given["reachable"], given["scale_to_zero_pod_retention_period"], 0.0)
    retained = since + retention
    over = np.fmin(since, state["proxying_since"]) + given["scale_to_zero_grace_period"]
    away = (given["target_burst_capacity"] != -1) & ~state["activator_answers"]
    cases = (away, now < retained, now < over)
    return (
        _first(cases, (NONE, NONE, NONE), np.zeros(len(now), np.int64)),
        _first(cases, (_ACTIVATOR_NOT_IN_PATH, _RETENTION_PERIOD, _GRACE_PERIOD), np.zeros(len(now), np.int64)),
        _first(cases, (np.nan, retained, over), np.full(len(now), np.nan)),
    )


def _follow(records: Records, given: Table, state: Table, wanted: IntArray, now: FloatArray) -> None:
    """The activity after a round in which `wanted` replicas were wanted (-1: unknown)."""
    ready, before = records["ready"], state["status"]
    threshold = np.where(state["initialized"], given["needed"], given["needed_at_first"])
    rests = (wanted == 0) | ((threshold == 0) & (wanted < 0))
    rises = ~rests & ((wanted > 0) | (before != _INACTIVE))
    serves = ready >= np.maximum(1, threshold)
    status = _first((rests, rises & serves, rises), (_INACTIVE, _ACTIVE, _ACTIVATING), before)
    changed = status != before
    failed = rests & (state["timed_out"] | ((before == _ACTIVATING) & (threshold > 0)))
    records["status"] = status
    records["since"] = np.where(changed, now, state["since"])
    records["initialized"] = state["initialized"] | (ready >= threshold)
    records["timed_out"] = np.where(changed, failed, state["timed_out"])

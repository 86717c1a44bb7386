"""The decision of `kpa` and `bounds`, for many revisions at once.

The same steps in the same order as the decision of one, each on columns: what an `if` chooses there a mask chooses
here. Every float is computed by the same operations on the same doubles, so results are equal to the last bit; a
property test and the golden data hold both to that. It is for revisions scaled by concurrency or requests a second
alone, and for ticks: pokes and further metrics go one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from upwell.autoscaler.bounds import ACTIVATION_MARGIN, RequestPath, maximum, needed
from upwell.autoscaler.decision import Activity, Bound, Clamp, Panic, State, Status
from upwell.autoscaler.kpa import LEAST_ACTIVATORS
from upwell.autoscaler.records import (
    CLAMPS,
    DELAYED,
    GREATEST_COUNT,
    METRICS,
    NONE,
    PANIC_CLAMP,
    PANICKING,
    PANICS,
    RECORD,
    STATUSES,
    Records,
    bit,
    nan_for_none,
    or_none,
)
from upwell.autoscaler.slabs import BoolArray, FloatArray, IntArray, grown
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow

Codes = npt.NDArray[np.uint8]
_Number = TypeVar("_Number", np.int64, np.float64, np.uint8)
Table = Mapping[str, npt.NDArray[Any]]

# Rows that are decided together: columns in between are small enough to stay in memory that is at hand.
_BLOCK = 5000
_MICROSECONDS = 1_000_000
_SETTINGS = {
    **dict.fromkeys(("target_value", "total_value", "target_burst_capacity", "activator_capacity"), 0.0),
    **dict.fromkeys(("max_scale_up_rate", "max_scale_down_rate", "panic_threshold", "stable_window"), 0.0),
    **dict.fromkeys(("scale_to_zero_grace_period", "scale_to_zero_pod_retention_period"), 0.0),
    **dict.fromkeys(("panic_window", "initial_scale", "activation_scale", "min_scale"), 0),
    **dict.fromkeys(("reachable", "enable_scale_to_zero"), False),
}
# What follows from the settings alone.
_FURTHER_SETTINGS = {
    "longest_activation": 0.0,
    **dict.fromkeys(("metric", "most", "needed", "needed_at_first"), 0),
    "limited": False,
}
_STATE = {
    **dict.fromkeys(("panic_since", "proxying_since"), np.nan),
    "since": 0.0,
    **dict.fromkeys(("max_panic_replicas", "excess_burst_capacity", "status"), 0),
    **dict.fromkeys(("initialized", "timed_out", "has_delay"), False),
    "activator_answers": True,
    # Of the scale-down delay: its greatest past wish (-1: none), the bucket of that, whether it is the only wish,
    # how many buckets the delay reaches back and how many seconds a bucket has.
    "delay_peak": NONE,
    **dict.fromkeys(("delay_bucket", "delay_reach"), 0),
    "delay_granularity": 1,
    "delay_alone": True,
}
_STORED = (
    *("panic_since", "max_panic_replicas", "excess_burst_capacity"),
    *("status", "since", "initialized", "timed_out"),
)
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


class _Columns:
    """Columns of equal length that grow; what was not written holds the column's default, which tells its type."""

    def __init__(self, defaults: Mapping[str, float | int | bool]) -> None:
        self._defaults = defaults
        self.columns: dict[str, npt.NDArray[Any]] = {
            name: np.full(0, default) for name, default in defaults.items()
        }

    def write(self, row: int, values: Mapping[str, float | int | bool]) -> None:
        for name, column in self.columns.items():
            self.columns[name] = column = grown(column, row, self._defaults[name])
            if name in values:
                column[row] = values[name]

    def read(self, row: int) -> dict[str, Any]:
        return {name: column[row].item() for name, column in self.columns.items()}

    def of(self, rows: IntArray) -> Table:
        """The columns at `rows`, to be read at once: of rows in one piece they are no copies."""
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, -1)
        in_one_piece = last - first == len(rows) - 1 and bool((rows[1:] > rows[:-1]).all())
        where: slice | IntArray = slice(first, last + 1) if in_one_piece else rows
        return {name: column[where] for name, column in self.columns.items()}

    def clear(self, row: int) -> None:
        self.write(row, self._defaults)


class SettingsColumns:
    """What `decide` needs of the settings of each row; grows itself."""

    def __init__(self) -> None:
        self._columns = _Columns(_SETTINGS | _FURTHER_SETTINGS)

    def set(self, row: int, settings: RevisionSettings) -> None:
        """Hold `settings` for a row from now on; their metric is one of `records.METRICS`."""
        most = maximum(settings)
        further = {
            "longest_activation": settings.progress_deadline + ACTIVATION_MARGIN,
            "metric": METRICS.index(settings.metric),
            "most": most,
            "limited": most != settings.max_scale,
            "needed": needed(settings, initialized=True),
            "needed_at_first": needed(settings, initialized=False),
        }
        self._columns.write(row, {name: getattr(settings, name) for name in _SETTINGS} | further)

    def of(self, rows: IntArray) -> Table:
        """The settings of `rows` by RevisionSettings' names, and what follows from them."""
        return self._columns.of(rows)


class StateColumns:
    """State, activity and request path of each row; grows itself."""

    def __init__(self) -> None:
        self._columns = _Columns(_STATE)
        # Of rows that have one; where a peak stands alone its columns tell it, and this but how far it reaches.
        self._delays: dict[int, MaxWindow] = {}
        self._memories: dict[int, object] = {}

    def get(self, row: int) -> tuple[State, Activity, RequestPath]:
        """What a row was set to, or came to by `store`."""
        values = self._columns.read(row)
        state = State(
            or_none(values["panic_since"]),
            values["max_panic_replicas"],
            self.delay(row),
            values["excess_burst_capacity"],
            self._memories.get(row),
        )
        status = STATUSES[values["status"]]
        assert status is not None, "rows are read after they were set"
        activity = Activity(status, values["since"], values["initialized"], values["timed_out"])
        return state, activity, RequestPath(values["activator_answers"], or_none(values["proxying_since"]))

    def set(self, row: int, state: State, activity: Activity, path: RequestPath | None = None) -> None:
        """Set a row; without a path that stays as it was, `RequestPath()` in a row that is new or was cleared."""
        values: dict[str, float | int | bool] = {
            "panic_since": nan_for_none(state.panic_since),
            "max_panic_replicas": state.max_panic_replicas,
            "excess_burst_capacity": state.excess_burst_capacity,
            "has_delay": state.delay is not None,
            "status": STATUSES.index(activity.status),
            "since": activity.since,
            "initialized": activity.initialized,
            "timed_out": activity.timed_out,
        }
        if state.delay is not None:
            values |= _delay_values(state.delay)
        self._columns.write(row, values)
        _keep(self._delays, row, state.delay)
        _keep(self._memories, row, state.memory)
        if path is not None:
            self.set_path(row, path)

    def set_path(self, row: int, path: RequestPath) -> None:
        """Set how requests reach a row's revision."""
        proxying_since = nan_for_none(path.proxying_since)
        self._columns.write(row, {"activator_answers": path.activator_answers, "proxying_since": proxying_since})

    def clear(self, row: int) -> None:
        """Forget a row, so that its number can be given to another revision."""
        self._columns.clear(row)
        self._delays.pop(row, None)
        self._memories.pop(row, None)

    def delay(self, row: int) -> MaxWindow | None:
        """The scale-down delay in a row's state."""
        delay = self._delays.get(row)
        columns = self._columns.columns
        if delay is None or not columns["delay_alone"][row]:
            return delay
        alone, peak = MaxWindow(delay.duration, delay.granularity), int(columns["delay_peak"][row])
        return alone if peak == NONE else alone.record(columns["delay_bucket"][row] * delay.granularity, peak)

    def of(self, rows: IntArray) -> Table:
        """State, activity and path of `rows` by the names of their types' fields."""
        return self._columns.of(rows)

    def store(self, rows: IntArray, records: Records) -> None:
        """Take over the next state and activity from decisions of `decide`. Rows are unique."""
        for name in _STORED:
            self._columns.columns[name][rows] = records[name]
        delayed = np.flatnonzero(records["put_off"])
        if len(delayed):
            self._store_delays(rows[delayed], records["at"][delayed], records["undelayed"][delayed])

    def _store_delays(self, rows: IntArray, at: FloatArray, wish: IntArray) -> None:
        columns, state = self._columns.columns, self._columns.of(rows)
        bucket, passed = _passed(state, at)
        # A wish as great as all in reach makes them forgotten: then there is one peak, and no window to be made.
        alone = (wish >= state["delay_peak"]) | (state["delay_alone"] & passed)
        renewed = rows[alone]
        columns["delay_peak"][renewed], columns["delay_bucket"][renewed] = wish[alone], bucket[alone]
        columns["delay_alone"][renewed] = True
        for index in np.flatnonzero(~alone).tolist():
            row = int(rows[index])
            delay = self.delay(row)
            assert delay is not None, "has_delay says so"
            self._delays[row] = delay = delay.record(float(at[index]), int(wish[index]))
            self._columns.write(row, _delay_values(delay))


def _delay_values(delay: MaxWindow) -> dict[str, float | int | bool]:
    peaks = delay.peaks
    return {
        "delay_peak": peaks[0].value if peaks else NONE,
        "delay_bucket": peaks[0].bucket if peaks else 0,
        "delay_alone": len(peaks) < 2,
        "delay_reach": math.ceil(delay.duration / delay.granularity),
        "delay_granularity": delay.granularity,
    }


def _passed(state: Table, now: FloatArray) -> tuple[IntArray, BoolArray]:
    """The delay's bucket of now, and whether the greatest past wish is out of reach by then."""
    bucket = now.astype(np.int64) // state["delay_granularity"]
    return bucket, state["delay_bucket"] <= bucket - state["delay_reach"]


def _keep(those: dict[int, Any], row: int, value: object) -> None:
    if value is None:
        those.pop(row, None)
    else:
        those[row] = value


def decide(
    settings: SettingsColumns, states: StateColumns, rows: IntArray, inputs: BulkInputs, now: float | FloatArray
) -> Records:
    """The decisions of `rows` at `now` (Unix seconds; one time or one each), in the order of `rows`.

    Nothing is changed: `states.store` takes over what follows.
    """
    records = np.zeros(len(rows), RECORD)
    times: FloatArray = np.broadcast_to(np.float64(now), rows.shape)
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
    return np.clip(counts, -GREATEST_COUNT, GREATEST_COUNT).astype(np.int64)


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
    _, passed = _passed(state, now)
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

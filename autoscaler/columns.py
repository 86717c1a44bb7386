"""Settings and states of many revisions as columns, for `upwell.autoscaler.bulk` to decide on.

A row is the engine's number of a revision. What a scale-down delay waits for is a column too where one wish alone
is left of it, which is the rule; otherwise its window stands beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from upwell.autoscaler.arrays import BoolArray, FloatArray, IntArray, grown
from upwell.autoscaler.bounds import ACTIVATION_MARGIN, RequestPath, maximum, needed
from upwell.autoscaler.decision import Activity, State, Status
from upwell.autoscaler.records import METRICS, NONE, STATUSES, Records, nan_for_none, or_none
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow

_INACTIVE = STATUSES.index(Status.INACTIVE)

Table = Mapping[str, npt.NDArray[Any]]
"""Columns of equal length by name."""

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


class _Columns:
    """Columns of equal length that grow; what was not written holds the column's default, which tells its type."""

    def __init__(self, defaults: Mapping[str, float | int | bool]) -> None:
        self._defaults = defaults
        self.columns: dict[str, npt.NDArray[Any]] = {
            name: np.full(0, default) for name, default in defaults.items()
        }
        self._length = 0

    def write(self, row: int, values: Mapping[str, float | int | bool]) -> None:
        if row >= self._length:
            for name, column in self.columns.items():
                self.columns[name] = column = grown(column, row, self._defaults[name])
                self._length = len(column)
        for name, value in values.items():
            self.columns[name][row] = value

    def read(self, row: int) -> dict[str, Any]:
        return {name: column.item(row) for name, column in self.columns.items()}

    def of(self, rows: IntArray) -> Table:
        """The columns at `rows`, to be read at once: of rows in one piece they are no copies."""
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, -1)
        in_one_piece = last - first == len(rows) - 1 and bool((rows[1:] > rows[:-1]).all())
        if in_one_piece:
            return {name: column[first : last + 1] for name, column in self.columns.items()}
        return {name: column.take(rows) for name, column in self.columns.items()}

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

    def at_rest(self, rows: IntArray) -> BoolArray:
        """Which of `rows` are inactive with nothing to be remembered, as `SavedRevision.is_at_rest` has it."""
        state = self.of(rows)
        resting: BoolArray = (state["status"] == _INACTIVE) & state["initialized"] & ~state["timed_out"]
        resting &= np.isnan(state["panic_since"]) & (~state["has_delay"] | (state["delay_peak"] == NONE))
        return resting

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
        bucket, passed = delay_passed(state, at)
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


def delay_passed(state: Table, now: FloatArray) -> tuple[IntArray, BoolArray]:
    """The delay's bucket of now, and whether the greatest past wish is out of reach by then."""
    bucket = now.astype(np.int64) // state["delay_granularity"]
    return bucket, state["delay_bucket"] <= bucket - state["delay_reach"]


def _keep(those: dict[int, Any], row: int, value: object) -> None:
    if value is None:
        those.pop(row, None)
    else:
        those[row] = value

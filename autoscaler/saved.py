"""What an autoscaler writes down of a revision, so that a restart goes on where the last one ended.

Windows are not among it: they fill again with the first reports. What cannot be had again is since when a
revision is active or on its way to zero, a panic, and the wishes that put off scaling down. Pure: `SavedRevision`
to and from JSON, and `resume`, which says what a saved revision comes to now. Times are Unix seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from upwell.autoscaler import bounds
from upwell.autoscaler.annotations import GREATEST_WINDOW
from upwell.autoscaler.decision import GREATEST_COUNT, Activity, State, Status
from upwell.autoscaler.kpa import TICK
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow

GREATEST_LEAD = 1.0
"""Seconds that a saved state may lie in the future: no clock is slewed by more between two runs."""
MOST_PEAKS = int(GREATEST_WINDOW) // TICK + 1
_MOST_EXCESS = 2**53


@dataclass(frozen=True, slots=True)
class SavedRevision:
    """One revision as it stood at `saved_at`; the fields are those of `State` and `Activity`."""

    status: Status
    since: float
    initialized: bool
    timed_out: bool
    panic_since: float | None
    max_panic_replicas: int
    delay_peaks: tuple[tuple[int, int], ...]
    """(second, replicas) of the wishes that scaling down waits for: ever newer and smaller."""
    excess_burst_capacity: int
    saved_at: float

    @classmethod
    def of(cls, state: State, activity: Activity, now: float, *, shift: int = 0) -> SavedRevision:
        """The revision at `now` of the clock, which the times of `state` and `activity` are `shift` seconds ahead
        of."""
        delay = state.delay
        peaks = () if delay is None else delay.peaks
        return cls(
            status=activity.status,
            since=activity.since - shift,
            initialized=activity.initialized,
            timed_out=activity.timed_out,
            panic_since=None if state.panic_since is None else state.panic_since - shift,
            max_panic_replicas=state.max_panic_replicas,
            delay_peaks=tuple((bucket * TICK - shift, value) for bucket, value in peaks),
            excess_burst_capacity=state.excess_burst_capacity,
            saved_at=now,
        )

    @property
    def is_at_rest(self) -> bool:
        """Whether a revision that is simply known to have been up before would begin in the same way, so that
        there is nothing to save."""
        resting = self.status is Status.INACTIVE and self.initialized and not self.timed_out
        return resting and self.panic_since is None and not self.delay_peaks

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads, without what is as it mostly is."""
        data: dict[str, Any] = {
            "status": str(self.status),
            "since": self.since,
            "excessBurstCapacity": self.excess_burst_capacity,
            "savedAt": self.saved_at,
        }
        if self.initialized:
            data["initialized"] = True
        if self.timed_out:
            data["timedOut"] = True
        if self.panic_since is not None:
            data |= {"panicSince": self.panic_since, "maxPanicReplicas": self.max_panic_replicas}
        if self.delay_peaks:
            data["delayPeaks"] = [list(peak) for peak in self.delay_peaks]
        return data

    @classmethod
    def from_json(cls, data: object) -> SavedRevision | None:
        """The revision that `to_json` wrote; None for anything else, whatever it is."""
        if not isinstance(data, Mapping):
            return None
        try:
            return cls._read(data)
        except ValueError:
            return None

    @classmethod
    def _read(cls, data: Mapping[Any, Any]) -> SavedRevision:
        panic_since = _time(data["panicSince"]) if "panicSince" in data else None
        return cls(
            status=Status(_required(data, "status")),
            since=_time(_required(data, "since")),
            initialized=_flag(data, "initialized"),
            timed_out=_flag(data, "timedOut"),
            panic_since=panic_since,
            max_panic_replicas=0 if panic_since is None else _whole(_required(data, "maxPanicReplicas")),
            delay_peaks=_peaks(data.get("delayPeaks", [])),
            excess_burst_capacity=_whole(_required(data, "excessBurstCapacity"), -_MOST_EXCESS, _MOST_EXCESS),
            saved_at=_time(_required(data, "savedAt")),
        )


def resume(
    saved: SavedRevision,
    begun: State,
    settings: RevisionSettings,
    ready: int,
    now: float,
    *,
    initialized: bool = False,
) -> tuple[State, Activity] | None:
    """Where a saved revision with `ready` replicas stands at `now`; None when what was saved says nothing any
    more.

    That is so when it is older than the stable window, or from the future. `begun` is the state in which its class
    begins now, of which all stays that was not saved; `initialized` when it is known otherwise to have reached its
    initial scale. A panic that begins now, since the windows are empty, holds what one that was on held before.
    With no replica left, as after the end of a machine, nothing is brought back before it is asked for: the
    revision is active no longer then.
    """
    age = now - saved.saved_at
    if not -GREATEST_LEAD <= age <= settings.stable_window:
        return None
    return _state(saved, begun, now), _activity(saved, settings, ready, now, initialized=initialized)


def _state(saved: SavedRevision, begun: State, now: float) -> State:
    resumed = replace(begun, excess_burst_capacity=saved.excess_burst_capacity)
    if begun.delay is not None:
        resumed = replace(resumed, delay=_delay(saved, begun.delay, now))
    if saved.panic_since is None:
        return resumed
    return replace(
        resumed,
        panic_since=min(saved.panic_since, now) if begun.panic_since is None else begun.panic_since,
        max_panic_replicas=max(saved.max_panic_replicas, begun.max_panic_replicas),
    )


def _delay(saved: SavedRevision, delay: MaxWindow, now: float) -> MaxWindow:
    for second, replicas in saved.delay_peaks:
        if now - delay.duration <= second <= now:
            delay = delay.record(second, replicas)
    return delay


def _activity(
    saved: SavedRevision, settings: RevisionSettings, ready: int, now: float, *, initialized: bool
) -> Activity:
    initialized = initialized or saved.initialized
    since = min(saved.since, now)
    if ready == 0 and saved.status is not Status.INACTIVE:
        begun = bounds.begin(settings, 0, now, initialized=initialized)
        # A restart does not give more time to a revision that cannot start.
        keeps = saved.status is begun.status
        return replace(begun, since=since) if keeps else begun
    return Activity(saved.status, since, initialized, saved.timed_out)


def _required(data: Mapping[Any, Any], name: str) -> Any:
    if name not in data:
        raise ValueError(name)
    return data[name]


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_EXCESS:
        raise ValueError(value)
    return float(value)


def _whole(value: object, least: int = 0, most: int = GREATEST_COUNT) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(value)
    return value


def _flag(data: Mapping[Any, Any], name: str) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _peaks(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or len(value) > MOST_PEAKS:
        raise ValueError("peaks")
    peaks: list[tuple[int, int]] = []
    earlier, greater = -math.inf, math.inf
    for peak in value:
        if not isinstance(peak, list) or len(peak) != 2:
            raise ValueError(peak)
        second, replicas = _whole(peak[0], most=_MOST_EXCESS), _whole(peak[1])
        if second <= earlier or replicas >= greater:
            raise ValueError(peak)
        earlier, greater = second, replicas
        peaks.append((second, replicas))
    return tuple(peaks)

"""Why revisions stand at the replicas they have, as it travels: decisions, settings, outlook and series.

Light, since commands import it. In JSON times are RFC 3339 in UTC; in these objects they are Unix seconds. The
fields of a decision keep their names; its sentence goes along for those who read the JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

from upwell.autoscaler.decision import (
    Activity,
    Bound,
    Clamp,
    Decision,
    Missing,
    Panic,
    SignalWant,
    State,
    Status,
)
from upwell.autoscaler.outlook import Held, Moment, Outlook, Reason, SignalThreshold, Threshold, Turn
from upwell.autoscaler.path import intended
from upwell.autoscaler.spec import RevisionSettings

T = TypeVar("T")
_REASONS: Final[Mapping[str, Reason]] = {str(each): each for kind in (Bound, Clamp, Held) for each in kind}


class Point(NamedTuple):
    """What was so at a time."""

    at: float
    load: float | None
    """The metric over the short window, summed over all replicas; None when unknown."""
    want: int | None
    ready: int


class ReplicaStart(NamedTuple):
    """A replica that became ready, and how long its start took."""

    ready_at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """One revision: the decision that holds, what would change it, and what went before."""

    namespace: str
    revision: str
    service: str
    """Empty when it belongs to none."""
    percent: int
    """Of its Service's traffic."""
    settings: RevisionSettings
    latest: Decision
    outlook: Outlook | None
    history: tuple[Decision, ...]
    """Decisions whose outcome or reason differs from the one before, oldest first; the first may be from before
    the time that was asked for, and held when that began."""
    ready_since: float | None
    """From when on as many replicas were ready as now, Unix seconds; None when that is longer ago than is kept."""
    series: tuple[Point, ...]
    starts: tuple[ReplicaStart, ...]
    notes: tuple[str, ...]
    """What the revision's conditions say of its scaling."""

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "namespace": self.namespace,
            "revision": self.revision,
            "service": self.service,
            "percent": self.percent,
            "notes": list(self.notes),
            "ready_since": _or_none(stamp, self.ready_since),
            "latest": decision_to_json(self.latest),
            "outlook": None if self.outlook is None else outlook_to_json(self.outlook),
            "path": intended(self.latest)._asdict(),
            "settings": asdict(self.settings),
            "history": [decision_to_json(each) for each in self.history],
            "series": [{**each._asdict(), "at": stamp(each.at)} for each in self.series],
            "starts": [{"ready_at": stamp(each.ready_at), "seconds": each.seconds} for each in self.starts],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Explanation:
        """As it came."""
        return cls(
            namespace=data["namespace"],
            revision=data["revision"],
            service=data["service"],
            percent=data["percent"],
            settings=_settings(data["settings"]),
            latest=decision_from_json(data["latest"]),
            outlook=None if data["outlook"] is None else outlook_from_json(data["outlook"]),
            history=tuple(decision_from_json(each) for each in data["history"]),
            ready_since=_or_none(seconds, data["ready_since"]),
            series=tuple(Point(**{**each, "at": seconds(each["at"])}) for each in data["series"]),
            starts=tuple(ReplicaStart(seconds(each["ready_at"]), each["seconds"]) for each in data["starts"]),
            notes=tuple(data["notes"]),
        )


@dataclass(frozen=True, slots=True)
class Explained:
    """The revisions of what was asked for, at one time."""

    now: float
    revisions: tuple[Explanation, ...]

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        return {"now": stamp(self.now), "revisions": [each.to_json() for each in self.revisions]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Explained:
        """As it came."""
        return cls(seconds(data["now"]), tuple(Explanation.from_json(each) for each in data["revisions"]))


def stamp(moment: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(stamped: str) -> float:
    """And back."""
    return datetime.fromisoformat(stamped).timestamp()


def decision_to_json(decision: Decision) -> dict[str, Any]:
    """A decision by the names of its fields, of its state what tells something, and its sentence."""
    told: dict[str, Any] = _finite(decision)
    state = decision.state
    told["at"] = stamp(decision.at)
    told["state"] = {
        "panic_since": _or_none(stamp, state.panic_since),
        "max_panic_replicas": state.max_panic_replicas,
        "excess_burst_capacity": state.excess_burst_capacity,
    }
    told["bounds"] = list(decision.bounds)
    told["signals"] = [_finite(each) for each in decision.signals]
    activity = decision.activity
    told["activity"] = activity and {**asdict(activity), "since": stamp(activity.since)}
    told["next_check"] = _or_none(stamp, decision.next_check)
    told["sentence"] = decision.sentence()
    return told


def decision_from_json(data: Mapping[str, Any]) -> Decision:
    """And back; the scale-down delay and a class' own memory do not travel."""
    given = {name: value for name, value in data.items() if name != "sentence"}
    state = given["state"]
    since = _or_none(seconds, state["panic_since"])
    given["at"] = seconds(given["at"])
    given["state"] = State(since, state["max_panic_replicas"], None, state["excess_burst_capacity"])
    given["missing"] = _or_none(Missing, given["missing"])
    given |= {name: Clamp(given[name]) for name in ("stable_clamp", "panic_clamp")}
    given["panic"] = Panic(given["panic"])
    given["bounds"] = tuple(map(Bound, given["bounds"]))
    given["signals"] = tuple(
        SignalWant(**{**each, "missing": _or_none(Missing, each["missing"])}) for each in given["signals"]
    )
    given["activity"] = _or_none(_activity, given["activity"])
    given["next_check"] = _or_none(seconds, given["next_check"])
    return Decision(**given)


def outlook_to_json(outlook: Outlook) -> dict[str, Any]:
    """What would change a decision."""
    told = asdict(outlook)
    told["moments"] = [{**asdict(each), "at": stamp(each.at)} for each in outlook.moments]
    return told


def outlook_from_json(data: Mapping[str, Any]) -> Outlook:
    """And back."""
    thresholds = {
        name: _or_none(lambda told: Threshold(**told), data[name]) for name in ("more", "fewer", "panic")
    }
    return Outlook(
        scale=data["scale"],
        no_more=_or_none(reason, data["no_more"]),
        no_fewer=_or_none(reason, data["no_fewer"]),
        moments=tuple(Moment(seconds(each["at"]), Turn(each["turn"]), each["scale"]) for each in data["moments"]),
        signals=tuple(SignalThreshold(**each) for each in data["signals"]),
        **thresholds,
    )


def reason(text: str) -> Reason:
    """The bound, rate or mode of that name; raises KeyError when there is none."""
    return _REASONS[text]


def _settings(data: Mapping[str, Any]) -> RevisionSettings:
    """Numbers and words alone: a class' own policies and further metrics are for those who read the JSON."""
    plain = {name: value for name, value in data.items() if not isinstance(value, (dict, list))}
    return RevisionSettings(**plain)


def _activity(data: Mapping[str, Any]) -> Activity:
    return Activity(**{**data, "status": Status(data["status"]), "since": seconds(data["since"])})


def _finite(record: Decision | SignalWant) -> dict[str, Any]:
    """By field. JSON has no infinity, and a number that is none stands for nothing known."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record._asdict().items()
    }


def _or_none(change: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else change(value)

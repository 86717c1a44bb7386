"""Gradual rollout: how traffic moves from the old latest revision of a configuration to the new one, step by step.

The state is one JSON text, kept in an annotation of the Ingress with Knative's own names, so that either side can
go on where the other stopped. The algorithm is Knative's (knative/serving, pkg/reconciler/route/traffic): a new
revision starts with 1 %; when the Ingress is Ready with that, the time it took is the shortest step, and the rest
of the duration is divided into equal steps. All times are Unix nanoseconds; nothing here reads a clock.

A target that names a revision does not roll out, and neither does one with 1 % or nothing. A configuration or a
tag that is new has its whole share at once. Where the share of a configuration falls below the size of a step, the
next reading finds a state that contradicts itself and the rollout ends there, as it does in Knative.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, NamedTuple

from upwell.autoscaler.quantities import parse_duration

ROLLOUT_ANNOTATION: Final = "networking.internal.knative.dev/rollout"
"""Of an Ingress: the state."""
DURATION_ANNOTATIONS: Final = ("serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration")
"""Of a Route, or of the Service that it is made for; the first that is there counts."""
NANOSECONDS: Final = 1_000_000_000
"""In a second."""


class Assigned(NamedTuple):
    """A target of a Route after its configuration has been resolved to a revision."""

    revision: str
    configuration: str
    percent: int
    latest: bool
    """Whether the target follows the configuration's latest revision, and so rolls out."""
    tag: str
    """Empty when it has none."""
    port: int = 80
    """Of the revision's service: 80, or 81 where it speaks HTTP/2 in the clear (`h2c`)."""


class RevisionRollout(NamedTuple):
    """A revision's share, of the whole Route's (or tag's) traffic."""

    revision: str
    percent: int


@dataclass(frozen=True, slots=True)
class StepParameters:
    """When a rollout began and how it goes on; all 0 when there is none."""

    start_time: int = 0
    next_step_time: int = 0
    """0 until the Ingress was Ready with the first percent."""
    step_duration: int = 0
    step_size: int = 0
    """Percent moved in one step."""


@dataclass(frozen=True, slots=True)
class ConfigurationRollout:
    """The revisions of a configuration that share what it has under a tag, the oldest first."""

    configuration: str
    tag: str
    percent: int
    revisions: tuple[RevisionRollout, ...]
    """One in the steady state; the last is the latest."""
    step: StepParameters = StepParameters()

    @property
    def is_done(self) -> bool:
        """Whether no traffic is on its way to another revision."""
        return len(self.revisions) < 2


@dataclass(frozen=True, slots=True)
class Rollout:
    """The state of all targets of a Route that follow a latest revision, sorted by tag and configuration."""

    configurations: tuple[ConfigurationRollout, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether no configuration is rolling out."""
        return all(each.is_done for each in self.configurations)

    def of(self, tag: str, configuration: str) -> ConfigurationRollout | None:
        """The state of a configuration's target under a tag."""
        found = (c for c in self.configurations if c.tag == tag and c.configuration == configuration)
        return next(found, None)

    def to_json(self) -> str:
        """The text of the annotation."""
        written = [_written(each) for each in self.configurations]
        return json.dumps(
            {"configurations": written} if written else {}, separators=(",", ":"), ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str | None) -> Rollout | None:
        """The state of an annotation's text; None when there is none or it contradicts itself."""
        try:
            value = json.loads(text or "")
            configurations = value.get("configurations") or []
            rollout = cls(tuple(_read(each) for each in configurations))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        return rollout if all(map(_is_consistent, rollout.configurations)) else None


class Stepped(NamedTuple):
    """What a step came to."""

    rollout: Rollout
    next_step_at: int | None
    """Unix nanoseconds; None when nothing is to be done at a known time."""


def targets_by_tag(traffic: Iterable[Assigned]) -> dict[str, list[Assigned]]:
    """The targets that answer under each tag, the main one ("") first, then sorted; those of one revision are one.

    All targets are under "", those with a tag under it as well, with 100 %. Of a revision named twice the first
    target stands for both, with their percent together.
    """
    grouped: dict[str, dict[str, Assigned]] = {"": {}}
    for each in traffic:
        main = grouped[""]
        same = main.get(each.revision)
        main[each.revision] = each if same is None else same._replace(percent=same.percent + each.percent)
        if each.tag:
            grouped.setdefault(each.tag, {}).setdefault(each.revision, each._replace(percent=100))
    return {tag: list(grouped[tag].values()) for tag in sorted(grouped)}


def wanted_rollout(traffic: Iterable[Assigned]) -> Rollout:
    """The state that the traffic asks for, without what is on its way."""
    wanted = (
        _at_once(each.configuration, tag, each.percent, each.revision)
        for tag, targets in targets_by_tag(traffic).items()
        for each in targets
        if each.latest and each.percent
    )
    return Rollout(tuple(sorted(wanted, key=_place)))


def rollout_seconds(annotations: Mapping[str, str], default: int) -> int:
    """How long a rollout may take by a Route's annotations, else `default`; 0 for at once.

    As in Knative, 0 in an annotation leaves it to the default.
    """
    text = next((annotations[name] for name in DURATION_ANNOTATIONS if name in annotations), "")
    try:
        return read_rollout_duration(text) or default
    except ValueError:
        return default


def read_rollout_duration(text: str) -> int:
    """The seconds of a rollout-duration annotation; 0 for an empty one. Raises ValueError."""
    if not text:
        return 0
    duration = parse_duration(text)
    if duration < 0:
        raise ValueError("must not be negative")
    if duration % NANOSECONDS:
        raise ValueError("must be whole seconds")
    return duration // NANOSECONDS


def step(previous: Rollout | None, wanted: Rollout, now: int, duration: float, *, became_ready: bool) -> Stepped:
    """The state that follows `previous` at `now` (Unix nanoseconds), and when to come again.

    `duration` are the seconds that a rollout may take; below 1 everything has its share at once. `became_ready`
    says that the Ingress is Ready with the shares of `previous` while the Route does not say so yet.
    """
    seconds = int(duration)
    if seconds < 1 or previous is None or not previous.configurations:
        return Stepped(wanted, None)
    if became_ready:
        previous = Rollout(tuple(_timed(each, now, seconds) for each in previous.configurations))
    before = {tag: list(group) for tag, group in groupby(sorted(previous.configurations, key=_place), _tag)}
    after: list[ConfigurationRollout] = []
    for tag, group in groupby(wanted.configurations, _tag):
        after += _stepped(list(group), before.get(tag, []), now)
    times = [each.step.next_step_time for each in after if each.step.next_step_time > 0]
    return Stepped(Rollout(tuple(sorted(after, key=_place))), min(times, default=None))


def _stepped(
    wanted: list[ConfigurationRollout], before: list[ConfigurationRollout], now: int
) -> list[ConfigurationRollout]:
    """The configurations of one tag: those known before go on from there, the others have their share at once."""
    if not before:
        # Knative notes but one of the configurations of a tag that is new, and the others with the next step.
        return wanted[:1]
    known = {each.configuration: each for each in before}
    return [
        _advanced(goal, known[goal.configuration], now)
        if goal.configuration in known and goal.percent > 1
        else goal
        for goal in wanted
    ]


def _advanced(goal: ConfigurationRollout, previous: ConfigurationRollout, now: int) -> ConfigurationRollout:
    """A configuration on its way to `goal`, which has one revision: a new rollout, a step of the present one or,
    where there is none, the goal."""
    latest = goal.revisions[-1].revision
    shares = _adjusted(previous, goal.percent)
    if not shares:
        return goal
    if shares[-1].revision == latest:
        if len(shares) < 2:
            return goal
        current = replace(goal, revisions=shares, step=previous.step)
        return _moved(current, now) if current.step.step_size > 0 else current
    return replace(goal, revisions=_begun(shares, latest), step=StepParameters(start_time=now))


def _adjusted(previous: ConfigurationRollout, percent: int) -> tuple[RevisionRollout, ...]:
    """The shares when the configuration has `percent` now: the latest gains, the oldest lose."""
    shares = list(previous.revisions)
    missing = percent - previous.percent
    if shares and missing > 0:
        shares[-1] = shares[-1]._replace(percent=shares[-1].percent + missing)
    surplus = max(0, -missing)
    while shares and surplus > 0:
        oldest = shares[0]
        if oldest.percent > surplus:
            shares[0] = oldest._replace(percent=oldest.percent - surplus)
            break
        surplus -= oldest.percent
        del shares[0]
    return tuple(shares)


def _begun(shares: tuple[RevisionRollout, ...], latest: str) -> tuple[RevisionRollout, ...]:
    """The shares when a revision joins with 1 %, taken from the newest that has any."""
    remaining = list(shares)
    giving = max(index for index, share in enumerate(remaining) if share.percent > 0)
    remaining[giving] = remaining[giving]._replace(percent=remaining[giving].percent - 1)
    return (*(share for share in remaining if share.percent), RevisionRollout(latest, 1))


def _moved(current: ConfigurationRollout, now: int) -> ConfigurationRollout:
    """One step further, if it is time: the latest takes from those just before it, the newest first."""
    timing = current.step
    if now < timing.next_step_time:
        return current
    older, latest = list(current.revisions[:-1]), current.revisions[-1]
    remaining = timing.step_size
    while remaining and older and older[-1].percent <= remaining:
        remaining -= older.pop().percent
    if older and remaining:
        older[-1] = older[-1]._replace(percent=older[-1].percent - remaining)
    share = min(latest.percent + timing.step_size, current.percent)
    if not older:
        return replace(current, revisions=(latest._replace(percent=share),), step=StepParameters())
    after = replace(timing, next_step_time=now + timing.step_duration)
    return replace(current, revisions=(*older, latest._replace(percent=share)), step=after)


def _timed(current: ConfigurationRollout, now: int, seconds: int) -> ConfigurationRollout:
    """With the steps laid out, where a rollout has begun and its first percent is served now."""
    start = current.step.start_time
    if current.step.step_duration or start <= 0 or current.percent < 2:
        return current
    shortest = float(max(1, -((start - now) // NANOSECONDS)))
    remaining = max(1.0, seconds - shortest)
    percent = float(current.percent - 1)
    steps = min(max(1.0, remaining / shortest), percent)
    duration = remaining / steps * NANOSECONDS
    # Go rounds a half away from zero; Python's round() would make it even.
    size = math.floor(percent / steps + 0.5)
    return replace(current, step=StepParameters(start, int(float(now) + duration), int(duration), size))


def _at_once(configuration: str, tag: str, percent: int, revision: str) -> ConfigurationRollout:
    return ConfigurationRollout(configuration, tag, percent, (RevisionRollout(revision, percent),))


def _tag(configuration: ConfigurationRollout) -> str:
    return configuration.tag


def _place(configuration: ConfigurationRollout) -> tuple[str, str]:
    return configuration.tag, configuration.configuration


# The annotation


def _written(configuration: ConfigurationRollout) -> dict[str, Any]:
    revisions = [{"revisionName": each.revision, "percent": each.percent} for each in configuration.revisions]
    timing = configuration.step
    parameters = {
        "starttime": timing.start_time,
        "nextStepTime": timing.next_step_time,
        "stepDuration": timing.step_duration,
        "stepSize": timing.step_size,
    }
    return {
        "configurationName": configuration.configuration,
        **({"tag": configuration.tag} if configuration.tag else {}),
        "percent": configuration.percent,
        **({"revisions": revisions} if revisions else {}),
        "stepParams": {name: value for name, value in parameters.items() if value},
    }


def _read(value: Mapping[str, Any]) -> ConfigurationRollout:
    """Raises ValueError, TypeError or AttributeError for what has another form."""
    revisions = value.get("revisions") or []
    timing = value.get("stepParams") or {}
    return ConfigurationRollout(
        _text(value, "configurationName"),
        _text(value, "tag"),
        _whole(value, "percent"),
        tuple(RevisionRollout(_text(each, "revisionName"), _whole(each, "percent")) for each in revisions),
        StepParameters(*(_whole(timing, name) for name in _PARAMETERS)),
    )


_PARAMETERS: Final = ("starttime", "nextStepTime", "stepDuration", "stepSize")


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name) or ""
    if not isinstance(found, str):
        raise TypeError(name)
    return found


def _whole(value: Mapping[str, Any], name: str) -> int:
    found = value.get(name) or 0
    if not isinstance(found, int) or isinstance(found, bool) or abs(found) >= 2**63:
        raise TypeError(name)
    return found


def _is_consistent(configuration: ConfigurationRollout) -> bool:
    """As Knative asks of it, and that no share is below nothing."""
    shares = [each.percent for each in configuration.revisions]
    if configuration.percent > 100 or not 0 <= configuration.step.step_size <= configuration.percent:
        return False
    return sum(shares) == configuration.percent and min(shares, default=0) >= 0

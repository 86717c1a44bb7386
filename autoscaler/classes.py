"""What a revision may be scaled by: the class that decides, and where its further metrics are read.

Both are interfaces. The engine knows the KPA on requests by heart and decides it in bulk; every other class is
asked one revision at a time, so that a forecast, a schedule or a class of somebody's own is a class here and no
change there.
"""

from __future__ import annotations

from typing import Final, Protocol

from upwell.autoscaler.decision import Decision, Inputs, Missing, Reading, State
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.spec import RevisionSettings


class ScalingClass(Protocol):
    """Decides how many replicas a revision should have, before the bounds that hold for every class.

    Pure: all that it remembers is the state that it returns, whose `memory` is its own to fill.
    """

    def start(self, settings: RevisionSettings, ready: int, now: float) -> State:
        """The state of a revision that begins now (Unix seconds) with `ready` replicas."""
        ...

    def decide(self, settings: RevisionSettings, state: State, inputs: Inputs, now: float) -> Decision:
        """The decision at `now`; its `state` goes into the next one."""
        ...


class SignalReader(Protocol):
    """Where metrics besides requests are known, as of now: in memory, since nobody waits for it."""

    def read(self, revision: str, metric: MetricTarget, now: float) -> Reading:
        """The metric of the revision `namespace/name`; its `missing` says why there is none."""
        ...


class NoSignals:
    """Knows of nothing but requests."""

    def read(self, revision: str, metric: MetricTarget, now: float) -> Reading:
        """Nothing."""
        return Reading(missing=Missing.METRICS_FAILED)


NO_SIGNALS: Final = NoSignals()

"""The autoscaler's engine as the simulation uses it: a batch of reports in, what changed out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from upwell.autoscaler.decision import Decision
from upwell.autoscaler.engine import Engine
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report, RequestAverages


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick came to: replica counts to set, and decisions that came out otherwise than the one before."""

    to_scale: Sequence[Decision]
    news: Sequence[Decision]


class Autoscaling:
    """Every revision of a simulation. Times are seconds of the virtual clock, not decreasing."""

    def __init__(self) -> None:
        self._engine = Engine()
        self._sequence = 0
        self._outcomes: dict[str, tuple[object, ...]] = {}

    def add(self, key: str, settings: RevisionSettings, now: float, *, initialized: bool) -> None:
        """Scale a revision from now on that has no replica."""
        self._engine.set_revision(key, settings, now, ready=0, initialized=initialized)

    def remove(self, key: str) -> None:
        """Forget a revision."""
        self._engine.remove_revision(key)
        self._outcomes.pop(key, None)

    def observe(self, key: str, ready: int, starting: int) -> None:
        """Replicas of a revision that serve, and that are on the way."""
        self._engine.observe(key, ready=ready, starting=starting)

    def report(self, reporter: str, now: float, keys: Sequence[str], loads: Sequence[RequestAverages]) -> None:
        """The loads of revisions as one reporter saw them over spans that end now."""
        self._sequence += 1
        for key, load in zip(keys, loads, strict=True):
            report = Report(
                revision=key,
                reporter=reporter,
                sequence=self._sequence,
                started=now - load.span,
                ended=now,
                average_concurrency=load.average_concurrency,
                average_proxied_concurrency=load.average_proxied_concurrency,
                request_count=load.request_count,
                proxied_request_count=load.proxied_request_count,
            )
            self._engine.report(report, now)

    def poke(self, key: str, in_flight: int, now: float) -> Decision | None:
        """The decision that raises the scale at once, if there is one."""
        return self._engine.poke(key, in_flight, now)

    def tick(self, now: float) -> Ticked:
        """Decide for every revision."""
        decisions = self._engine.tick(now)
        news = []
        for decision in decisions:
            if self._outcomes.get(decision.revision) != decision.outcome:
                self._outcomes[decision.revision] = decision.outcome
                news.append(decision)
        return Ticked([each for each in decisions if each.scale is not None], news)

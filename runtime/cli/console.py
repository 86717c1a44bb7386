"""What a person sees while a function runs: a line for each rise and fall, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import click

from upwell.autoscaler.decision import Decision
from upwell.functions.errors import UpwellError
from upwell.runtime.cluster.interface import Exit, Replica, ReplicaState, StartFailure
from upwell.runtime.lines import Lines

MOST_FILES: Final = 3
"""Named of those that changed at once: a checkout changes hundreds."""


class Replicas(Protocol):
    """Where the replicas are counted: the cluster."""

    def replicas(self, revision: str) -> tuple[Replica, ...]:
        """The replicas of a revision that are not gone."""
        ...


class RunConsole:
    """Prints lines. Implements the cluster's observer."""

    def __init__(self, lines: Lines, *, colour: bool) -> None:
        self._lines = lines
        self._colour = colour
        self._cluster: Replicas | None = None
        self._why: dict[str, str] = {}

    def importing(self, module: str) -> None:
        """It takes a while."""
        self._print("…", None, f"importing {module}")

    def serving(self, urls: Sequence[str], port: int, admin_port: int, cluster: Replicas) -> None:
        """The functions answer from now on; from now on their replicas are told of."""
        self._cluster = cluster
        also = f"  (also http://localhost:{port})" if len(urls) == 1 else ""
        for url in urls:
            self._print("●", "green", f"{click.style(url, bold=True)}{also}")
        self._print(" ", None, f"metrics at http://127.0.0.1:{admin_port}/metrics; Ctrl-C ends it")

    def warned(self, warning: str) -> None:
        """It is served, but maybe not as it is meant."""
        self._print("!", "yellow", warning)

    def changed(self, files: Sequence[str]) -> None:
        """Files were saved that what is served depends on; none are named when that was seen without the watch."""
        named = ", ".join(files[:MOST_FILES]) + (" …" if len(files) > MOST_FILES else "") or "the source"
        self._print("↻", "cyan", f"{named} changed")

    def replaced(self, revision: str, seconds: float) -> None:
        """A new revision has the traffic, so long after the change was seen."""
        self._print("●", "green", f"{revision} serves, {seconds * 1000:.0f} ms later")

    def to_be_mended(self, error: UpwellError) -> None:
        """Nothing serves yet; what is saved will be tried."""
        self._print("✗", "red", f"{error}\n  waiting for it to be mended")

    def kept_serving(self, error: UpwellError) -> None:
        """What was saved cannot be served."""
        self._print("✗", "red", f"{error}\n  what served before goes on serving")

    def stopping(self, requests: int, seconds: float) -> None:
        """The platform is about to end: what falls now needs no line."""
        self._cluster = None
        wait = f"; {requests} under way, for {seconds:g} s at most; Ctrl-C again ends it now" if requests else ""
        self._print("■", None, f"stopping{wait}")

    def decided(self, decision: Decision) -> None:
        """Keep why a revision is scaled down, for the line that follows."""
        if decision.scale is not None and decision.scale < decision.ready:
            self._why[decision.revision] = decision.sentence().removeprefix(f"{decision.revision}: ")

    def replica_changed(self, replica: Replica) -> None:
        """A line for a replica that became ready or is about to leave."""
        if replica.state is ReplicaState.READY:
            phases = ", ".join(f"{name} {ms:.1f} ms" for name, ms in replica.phases.items())
            self._count("↑", "green", replica.revision, phases)
        elif replica.ready_at is not None and replica.state is ReplicaState.DRAINING:
            self._count("↓", "yellow", replica.revision, self._why.pop(replica.revision, ""))

    def replica_exited(self, exit: Exit) -> None:
        """A line for one that ended of its own accord."""
        if not exit.expected and self._cluster is not None:
            self._print("✗", "red", f"{exit.replica} ended: {exit.reason}")

    def start_failed(self, failure: StartFailure) -> None:
        """Why nothing rises. Of an import that failed the traceback: the command's own error, or `kept_serving`,
        says the rest, as it does of all that fails while it is first deployed."""
        if failure.traceback:
            self._print("✗", "red", failure.traceback.rstrip())
        elif self._cluster is not None:
            self._print("✗", "red", f"{failure.revision} cannot start: {failure.reason}")

    def _count(self, mark: str, colour: str, revision: str, note: str) -> None:
        if self._cluster is not None:
            ready = sum(r.state is ReplicaState.READY for r in self._cluster.replicas(revision))
            self._print(mark, colour, f"{revision}  {ready} ready  {note}".rstrip())

    def _print(self, mark: str, colour: str | None, text: str) -> None:
        line = f"{click.style(mark, fg=colour) if colour else mark} {text}\n"
        self._lines.write(line if self._colour else click.unstyle(line))
        self._lines.flush()

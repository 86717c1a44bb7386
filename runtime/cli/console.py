"""What a person sees while a function runs: a line for each rise and fall, and why."""

from __future__ import annotations

import contextlib

import click

from upwell.autoscaler.decision import Decision
from upwell.runtime.cluster.interface import Exit, Replica, ReplicaState, StartFailure


class RunConsole:
    """Prints to standard output. Implements the cluster's observer."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._serving = False
        self._ready: dict[str, int] = {}
        self._why: dict[str, str] = {}

    def serving(self, url: str, port: int, admin_port: int) -> None:
        """The function answers from now on."""
        self._serving = True
        self._print(
            click.style("●", fg="green") + f" {click.style(url, bold=True)}  (also http://localhost:{port})"
        )
        self._print(f"  metrics at http://127.0.0.1:{admin_port}/metrics; Ctrl-C ends it")

    def stopping(self) -> None:
        """The platform is about to end."""
        self._print("stopping")

    def decided(self, decision: Decision) -> None:
        """Keep why a revision is scaled down, for the line that follows."""
        if decision.scale is not None and decision.scale < decision.ready:
            self._why[decision.revision] = decision.sentence()

    def replica_changed(self, replica: Replica) -> None:
        """A line for a replica that became ready or left."""
        if replica.state is ReplicaState.READY:
            count = self._count(replica, +1)
            phases = " ".join(f"{name} {ms:.1f} ms" for name, ms in replica.phases.items())
            self._print(f"{click.style('↑', fg='green')} {replica.revision} {count} ready  {phases}")
        elif replica.ready_at is not None and replica.state is ReplicaState.DRAINING:
            count = self._count(replica, -1)
            why = self._why.pop(replica.revision, "")
            self._print(f"{click.style('↓', fg='yellow')} {replica.revision} {count} ready  {why}")

    def replica_exited(self, exit: Exit) -> None:
        """A line for one that ended of its own accord."""
        if not exit.expected:
            if exit.was_ready:
                self._ready[exit.revision] = self._ready.get(exit.revision, 1) - 1
            self._print(f"{click.style('✗', fg='red')} {exit.replica} ended: {exit.reason}")

    def start_failed(self, failure: StartFailure) -> None:
        """Why nothing rises; while it is being deployed, the command's own error says so."""
        if self._serving:
            self._print(f"{click.style('✗', fg='red')} {failure.revision} cannot start: {failure.reason}")

    def _count(self, replica: Replica, change: int) -> int:
        count = self._ready.get(replica.revision, 0) + change
        self._ready[replica.revision] = count
        return count

    def _print(self, line: str) -> None:
        if not self._quiet:
            with contextlib.suppress(OSError):  # whoever read it has left; the function goes on
                click.echo(line)

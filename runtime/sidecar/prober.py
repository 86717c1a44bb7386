"""Asks a replica's probes, from its start to its end.

Owner of the tasks is whoever awaits `until_ready` and `until_dead`; nothing runs between calls. The order is the
kubelet's: the startup probe first, and only once it has passed readiness and liveness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from upwell.runtime.clock import Clock
from upwell.runtime.sidecar.checks import Check
from upwell.runtime.sidecar.probing import Action, Probe, Probes, Tally, Verdict, pause, startup_seconds

Asker: TypeAlias = Callable[[Action, float], Awaitable[Check]]
"""Carries out an action within so many seconds."""


class ProbeFailed(Exception):
    """A probe has failed for good; its text says which and why."""


class Prober:
    """The probes of one replica."""

    def __init__(self, probes: Probes, ask: Asker, clock: Clock) -> None:
        self.last = ""
        """Why the latest answer was none; empty when it was one."""
        self._probes = probes
        self._ask = ask
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Prober {self.last or 'well'}>"

    async def until_ready(self) -> None:
        """Until the replica has started up and is ready. Raises ProbeFailed when its startup probe fails."""
        if self._probes.startup is not None:
            await self._pass(self._probes.startup, startup_seconds(self._probes.startup), "startup")
        if self._probes.readiness is not None:
            await self._pass(self._probes.readiness, None, "readiness")

    async def until_dead(self) -> str:
        """Until the liveness probe fails, and why it did; for ever when there is none."""
        probe = self._probes.liveness
        if probe is None:
            await asyncio.get_running_loop().create_future()
            raise AssertionError("nobody sets it")
        tally = Tally()
        await asyncio.sleep(probe.initial_delay)
        while True:
            tally = tally.after(await self._passes(probe))
            if tally.verdict(probe) is Verdict.FAILED:
                return f"its liveness probe failed {tally.failures} times in a row: {self.last}"
            await asyncio.sleep(probe.period)

    async def _pass(self, probe: Probe, seconds: float | None, name: str) -> None:
        await asyncio.sleep(probe.initial_delay)
        began = self._clock.monotonic()
        tally = Tally()
        while True:
            tally = tally.after(await self._passes(probe))
            elapsed = self._clock.monotonic() - began
            if tally.verdict(probe) is Verdict.PASSED:
                return
            if seconds is not None and tally.failures and elapsed + probe.initial_delay >= seconds:
                raise ProbeFailed(f"its {name} probe failed for {seconds:g} s: {self.last}")
            await asyncio.sleep(pause(elapsed, probe.period))

    async def _passes(self, probe: Probe) -> bool:
        passed, self.last = await self._ask(probe.action, probe.timeout)
        return passed

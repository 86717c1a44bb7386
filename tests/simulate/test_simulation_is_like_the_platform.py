"""The simulator is held to reality: a run of the platform, simulated from its own access log.

How long replicas take to start is taken from the same run, in the order of their starts: many at once on few cores
take longer than one does, and until they are ready each further request of a burst is worth a poke.
"""

import asyncio
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from support.platform import Function, deploy, platform, run
from support.simulation import ReadyCounts, observe
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.interface import Exit, Replica, StartFailure
from upwell.runtime.gateway.access_log import JsonAccessLog
from upwell.runtime.lines import LineWriter
from upwell.runtime.simulate.distributions import Constant
from upwell.runtime.simulate.plans import Declared
from upwell.runtime.simulate.simulation import Conditions
from upwell.runtime.simulate.traces import load_trace

TICK = 2.0
STEP = 0.1
ONE_START = 0.01
"""Seconds that a replica takes beyond those that the platform started."""
SETTINGS = {
    "stable-window": "6s",
    "scale-to-zero-grace-period": "1s",
    "container-concurrency-target-default": "4",
}
SOURCE = """
import asyncio

async def handle(request):
    await asyncio.sleep(0.25)
    return "done"
"""
LOAD = ((2.0, 4), (3.0, 40), (3.0, 8), (2.5, 120), (2.0, 8))
"""Seconds, and requests a second for as long. Each step is far from the threshold of panic, and longer than the
panic window: no request more or less decides."""


@dataclass
class Watcher:
    """Notes how many replicas the gateway may use, whenever that may have changed."""

    clock: SystemClock
    function: Function | None = None
    steps: list[tuple[float, int]] = field(default_factory=list)
    """Unix time, and the count from then on."""
    started: dict[str, Replica] = field(default_factory=dict)
    """Replicas by name, in the order of their starts."""

    def replica_changed(self, replica: Replica) -> None:
        self.started.setdefault(replica.name, replica)
        if self.function is not None:
            self.steps.append((self.clock.now(), self.function.ready()))

    def start_seconds(self) -> list[float]:
        """How long each replica took to start that did."""
        return [each.ready_at - each.started_at for each in self.started.values() if each.ready_at is not None]

    def replica_exited(self, exit: Exit) -> None:
        """Noted before."""

    def start_failed(self, failure: StartFailure) -> None:
        raise AssertionError(failure.reason)


async def recorded(directory: Path, log: Path) -> tuple[Watcher, float]:
    """What there was of replicas, and when (Unix time) the function had been at zero again for a while."""
    clock = SystemClock()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    lines = LineWriter(descriptor)
    watcher = Watcher(clock)
    try:
        async with platform(
            directory,
            access_log=JsonAccessLog(clock, lines),
            stable_window=SETTINGS["stable-window"],
            scale_to_zero_grace_period=SETTINGS["scale-to-zero-grace-period"],
            container_concurrency_target_default=SETTINGS["container-concurrency-target-default"],
        ) as on:
            function = watcher.function = await deploy(on, SOURCE)
            watcher.steps.append((clock.now(), function.ready()))
            on.cluster.observe(watcher)
            await asyncio.gather(*[ask(function, when) for when in moments()])
            async with asyncio.timeout(20):
                while function.ready():
                    await asyncio.sleep(0.05)
            return watcher, clock.now() + TICK
    finally:
        lines.close()
        os.close(descriptor)


def moments() -> list[float]:
    """Seconds from the beginning at which requests are sent."""
    found, began = [], 0.0
    for seconds, rate in LOAD:
        found += [began + index / rate for index in range(int(seconds * rate))]
        began += seconds
    return found


async def ask(function: Function, when: float) -> None:
    await asyncio.sleep(when)
    assert (await function.ask()).text == "done"


def apart(one: ReadyCounts, other: ReadyCounts, end: float) -> list[tuple[float, int, list[int]]]:
    """Where a count is not met by the other within one tick and one replica: the time, and what there is."""
    found = []
    for index in range(int(end / STEP)):
        time = index * STEP
        near = other.between(time - TICK, time + TICK)
        if all(abs(one.at(time) - count) > 1 for count in near):
            found.append((time, one.at(time), near))
    return found


def test_the_same_traffic_has_the_same_replicas_within_one_and_one_tick(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    watcher, ended = run(recorded(tmp_path, log))
    trace = load_trace(str(log), seed=0)
    assert len(trace) == len(moments())
    given = Conditions(trace.lasting(ended - trace.began), Declared(above=SETTINGS), Constant(ONE_START))
    observed = observe(given, start=itertools.chain(watcher.start_seconds(), itertools.repeat(ONE_START)))
    real = ReadyCounts([(-1e9, 0), *((time - trace.began, count) for time, count in watcher.steps)])
    simulated = ReadyCounts.of(observed)
    length = given.trace.seconds
    assert apart(real, simulated, length) == []
    assert apart(simulated, real, length) == []
    # So that agreeing says something: it rose from zero, high above one tick's and one replica's worth, and fell.
    assert max(real.counts) >= 10
    assert abs(max(real.counts) - max(simulated.counts)) <= 1
    assert real.counts[-1] == simulated.counts[-1] == 0

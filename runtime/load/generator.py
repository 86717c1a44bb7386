"""A run from its first connection to its report."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Final

from upwell.functions.errors import Unavailable
from upwell.runtime.clock import Clock
from upwell.runtime.load.arrivals import always, apportioned, constant, limited, poisson
from upwell.runtime.load.connection import LoadConnection
from upwell.runtime.load.dial import Address, DialFailed, addresses, dial
from upwell.runtime.load.lane import Lane, Terms
from upwell.runtime.load.plan import Load
from upwell.runtime.load.report import LoadReport, report
from upwell.runtime.load.requests import Requests

SWEEP_SECONDS: Final = 0.05
"""How late a timeout may be told."""


async def generate(load: Load, clock: Clock, stop: asyncio.Event) -> LoadReport:
    """Run the load to its end, or until `stop` is set, which cuts off what is under way.

    Raises Unavailable when there is no connection to begin with, and InvalidSettings for what cannot be sent.
    """
    run = _Run(load, clock)
    return await run.to_its_end(stop)


class _Run:
    def __init__(self, load: Load, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._address: Address
        self._over = asyncio.Event()
        numbers = itertools.count(1)
        requests = [Requests(each.outline) for each in load.classes]
        self._lanes = [
            Lane(each, numbers, terms, self._dial, clock, self._on_finished)
            for each, terms in zip(requests, _terms(load), strict=True)
        ]

    async def to_its_end(self, stop: asyncio.Event) -> LoadReport:
        first = await self._first_connection(self._lanes[0].connection)
        started_at = self._clock.monotonic()
        for lane in self._lanes:
            lane.start(started_at, first if lane is self._lanes[0] else None)
        sweeper = asyncio.create_task(self._sweep())
        stopped = asyncio.create_task(stop.wait())
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({stopped, over, sweeper}, return_when=asyncio.FIRST_COMPLETED)
            if sweeper.done():
                sweeper.result()
            interrupted = not self._over.is_set()
            for lane in self._lanes:
                if not lane.finished:
                    lane.stop()
            ended_at = self._clock.monotonic()
        finally:
            for task in (sweeper, stopped, over):
                task.cancel()
            await asyncio.gather(sweeper, stopped, over, return_exceptions=True)
            for lane in self._lanes:
                await lane.close()
        records = [lane.record for lane in self._lanes]
        return report(self._load, records, ended_at - started_at, interrupted=interrupted)

    async def _first_connection(self, make: Callable[[], LoadConnection]) -> LoadConnection:
        """Find the address that takes connections, so that a run on nothing is not a run that failed."""
        place = self._load.place
        causes: dict[str, None] = {}
        for address in await addresses(place):
            try:
                made = await dial(place, address, make, self._load.timeout)
            except DialFailed as error:
                causes[str(error)] = None
                continue
            self._address = address
            return made
        raise Unavailable(f"nothing takes a connection: {', '.join(causes)}", where=str(place))

    async def _dial(self, make: Callable[[], LoadConnection]) -> LoadConnection:
        return await dial(self._load.place, self._address, make, self._load.timeout)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for lane in self._lanes:
                if not lane.finished:
                    lane.sweep()

    def _on_finished(self) -> None:
        if all(lane.finished for lane in self._lanes):
            self._over.set()


def _terms(load: Load) -> Iterator[Terms]:
    """Each class' part of the rate, the connections and the count."""
    shares = [each.share for each in load.classes]
    connections = apportioned(load.connections, shares, least=1)
    counts = [None] * len(shares) if load.count is None else apportioned(load.count, shares)
    seconds = load.seconds if load.count is None else None
    for at, share in enumerate(shares):
        rate = None if load.rate is None else load.rate * share / sum(shares)
        times = _arrivals(load, rate, at)
        arrivals = limited(times, counts[at], seconds if rate is not None else None)
        yield Terms(arrivals, rate is not None, connections[at], seconds, load.timeout, load.keep_alive)


def _arrivals(load: Load, rate: float | None, at: int) -> Iterator[float]:
    if rate is None:
        return always()
    if load.is_poisson:
        return poisson(rate, random.Random(f"{load.seed}/{at}").random)
    return constant(rate, at / (load.rate or rate))

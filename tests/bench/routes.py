"""A thousand routes with three revisions each beside one such route: CPU a request, and how soon a change is live.

Two platforms are up at once. On each, one service has a replica of every revision, and requests are split between
the three; all other revisions are at zero. A platform that knows thousands of revisions does something even when
nobody asks; what each spends at rest is measured too, and a row says the same without it.

The goal's figures are those of platforms that were started on what is stored. Another row is of the same two
before, when all that had just been applied: making thousands of objects leaves a heap full of holes, whose price
is the memory's and not that of finding a route.

A change is a traffic edit that moves all requests of the service from one revision to another. It is applied
through the platform's interface while another thread asks on a kept connection as fast as it is answered; it is
live when the first answer of the new revision has come, and the time runs from before the edit is sent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from upwell.runtime.api.client import Client

from . import load, processes
from .deployed import READY_SECONDS, Up, upwell_up
from .figures import median, percentile
from .load import Target
from .machine import pinned, shares
from .manifests import IMAGE, Manifest, replicas, service
from .plan import FUNCTIONS, Plan
from .request_cpu import CONNECTIONS, WARM_UP_REQUESTS, Subject, measure
from .table import Result, Row, Skipped
from .waiting import until_current, until_replicas

ASKED: Final = "asked"
REVISIONS: Final = 3
SHARES: Final = (34, 33, 33)
CPU_GOAL: Final = "<= 1.03"
LIVE_GOAL: Final = "<= 20"
REST_SECONDS: Final = 10.0
"""For what the platform does at rest, several of the autoscaler's ticks."""
PATIENCE_SECONDS: Final = 10.0
BETWEEN_SECONDS: Final = 0.2
"""Between two edits, for what follows the first to end."""


@dataclass(slots=True)
class Side:
    """A platform with so many routes, and what was measured of it."""

    platform: Up
    subject: Subject
    at_rest: float = 0.0
    """Seconds of CPU a second."""
    applied: list[float] = field(default_factory=list)
    """Milliseconds that the edits took to be stored."""
    live: list[float] = field(default_factory=list)


def run(plan: Plan) -> Result:
    """Rows for the CPU of a request and for the time until a change is live."""
    generator = load.find_generator()
    if generator is None:
        return Result(skipped=[Skipped("routes", load.REMEDY)])
    counts = (1, plan.choose(quick=50, default=1000))
    rounds = plan.choose(quick=2, default=7, everything=15)
    edits = plan.choose(quick=5, default=30, everything=100)
    servers, _ = shares()
    with contextlib.ExitStack() as stack:
        with pinned(servers):
            made = [_make(plan, stack, count) for count in counts]
        _measure(plan, generator, made, max(2, rounds // 2))
    with contextlib.ExitStack() as stack:
        with pinned(servers):
            one, many = (_started(plan, stack, count, f"again-{count}") for count in counts)
        _measure(plan, generator, [one, many], rounds)
        for side in (one, many):
            side.at_rest = _at_rest(side)
        for side in (one, many):
            plan.progress(f"{edits} edits of a route on {side.subject.name}")
            for number in range(edits):
                _edit(side, number)
    return Result(
        _rows(made, one, many),
        notes=[
            f"routes: {generator.name}; {rounds} rounds of {one.subject.requests} requests, {CONNECTIONS} "
            f"connections; at rest the gateway's process spends {one.at_rest * 1000:.1f} ms a second with one "
            f"route, {many.at_rest * 1000:.1f} with {counts[1]}; {edits} edits on each"
        ],
    )


def _make(plan: Plan, stack: contextlib.ExitStack, routes: int) -> Side:
    """A platform to which so many routes have just been applied."""
    plan.progress(f"{_named(routes)} of {REVISIONS} revisions each")
    platform = stack.enter_context(upwell_up(_data(plan, routes), plan.directory / f"made-{routes}.log"))
    names = [ASKED, *(f"function-{number:04}" for number in range(1, routes))]
    for revision in range(1, REVISIONS + 1):
        _apply(platform.client, [_split(each, revision) for each in names])
    return _side(plan, platform, routes)


def _started(plan: Plan, stack: contextlib.ExitStack, routes: int, name: str) -> Side:
    """A platform started on so many routes."""
    plan.progress(f"start on {_named(routes)}")
    return _side(plan, stack.enter_context(upwell_up(_data(plan, routes), plan.directory / f"{name}.log")), routes)


def _side(plan: Plan, platform: Up, routes: int) -> Side:
    for revision in range(1, REVISIONS + 1):
        until_replicas(platform.client, _revision(ASKED, revision), 1, READY_SECONDS)
    target = Target(f"{ASKED}.default.localhost", platform.client.platform().port)
    requests = plan.choose(quick=5_000, default=20_000)
    return Side(platform, Subject(_named(routes), platform.pid, target, requests))


def _measure(plan: Plan, generator: load.Generator, sides: list[Side], rounds: int) -> None:
    _, generators = shares()
    with pinned(generators):
        for side in sides:
            generator.run(side.subject.target, WARM_UP_REQUESTS, CONNECTIONS)
        for number in range(rounds):
            plan.progress(f"round {number + 1} of {rounds}")
            for side in sides if number % 2 else sides[::-1]:
                side.subject.samples.append(measure(side.subject, generator))


def _data(plan: Plan, routes: int) -> Path:
    return plan.directory / f"routes-{routes}"


def _named(routes: int) -> str:
    return f"{routes} route{'s' if routes > 1 else ''}"


def _split(name: str, revision: int) -> Manifest:
    """The service with its revision of that number; the last one's traffic is split between all."""
    numbers = range(1, REVISIONS + 1) if revision == REVISIONS else ()
    traffic = [_entry(name, number, percent) for number, percent in zip(numbers, SHARES, strict=False)]
    return _service(name, revision, traffic)


def _service(name: str, revision: int, traffic: list[Manifest]) -> Manifest:
    annotations = replicas(1) if name == ASKED else {}
    return service(name, annotations=annotations, environment={"NUMBER": str(revision)}, traffic=traffic)


def _entry(name: str, revision: int, percent: int) -> Manifest:
    """With a tag, which keeps a revision without requests within reach, and so its replica."""
    return {"revisionName": _revision(name, revision), "percent": percent, "tag": f"number-{revision}"}


def _revision(name: str, number: int) -> str:
    return f"{name}-{number:05}"


def _apply(client: Client, services: list[Manifest]) -> None:
    until_current(client, client.apply(services, images=_images()), READY_SECONDS)


def _at_rest(side: Side) -> float:
    pid = side.platform.pid
    began, before = time.monotonic(), processes.cpu_seconds(pid)[pid]
    time.sleep(REST_SECONDS)
    return (processes.cpu_seconds(pid)[pid] - before) / (time.monotonic() - began)


class Watch:
    """Asks on a kept connection, in a thread of its own, until a revision answers."""

    def __init__(self, target: Target, revision: str) -> None:
        self._target = target
        self._revision = revision
        self._thread = threading.Thread(target=self._ask)
        self._first = threading.Event()
        self.seen_at: float | None = None
        """Monotonic seconds at which its first answer had come."""

    def __enter__(self) -> Watch:
        self._thread.start()
        self._first.wait(PATIENCE_SECONDS)
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._target.port, timeout=PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        with contextlib.closing(connection):
            while self.seen_at is None and time.monotonic() < deadline:
                connection.request("GET", "/", headers={"host": self._target.host})
                answer = connection.getresponse().read().decode()
                if answer == self._revision:
                    self.seen_at = time.monotonic()
                self._first.set()


def _edit(side: Side, number: int) -> None:
    """Send all requests to another revision than before, and take the time."""
    client, target = side.platform.client, side.subject.target
    to = number % REVISIONS + 1
    if number == 0:  # from here on one revision gets all, so that an answer of another one tells
        _apply(client, [_all_to(to % REVISIONS + 1)])
    time.sleep(BETWEEN_SECONDS)
    with Watch(target, _revision(ASKED, to)) as watch:
        began = time.monotonic()
        client.apply([_all_to(to)], images=_images())
        stored = time.monotonic()
    if watch.seen_at is None:
        raise TimeoutError(f"{side.subject.name}: the edit was not live within {PATIENCE_SECONDS:g} s")
    side.applied.append((stored - began) * 1000)
    side.live.append((watch.seen_at - began) * 1000)


def _all_to(revision: int) -> Manifest:
    numbers = range(1, REVISIONS + 1)
    return _service(
        ASKED, REVISIONS, [_entry(ASKED, number, 100 if number == revision else 0) for number in numbers]
    )


def _images() -> dict[str, str]:
    return {IMAGE: json.dumps({"path": str(FUNCTIONS / "revision.py")})}


def _rows(made: list[Side], one: Side, many: Side) -> list[Row]:
    spent = [side.subject.middle(lambda sample: sample.root) for side in (one, many)]
    resting = [_without_rest(side) for side in (one, many)]
    name, of = f"routes: gateway, {many.subject.name} x {REVISIONS} revisions", one.subject.name
    rows = [
        Row(f"{name}", spent[1], "us/request", of, spent[0]),
        Row(f"{name}, median of the rounds' ratios", _ratio(one, many), "x", of, 1.0, CPU_GOAL),
        Row(f"{name}, the same just after all was applied", _ratio(*made), "x", of, 1.0),
        Row(f"{name}, without what it spends at rest", resting[1], "us/request", of, resting[0]),
    ]
    for side in (one, many):
        row = f"routes: a change live among {side.subject.name}"
        rows += [
            Row(f"{row}, p50", median(side.live), "ms", "stored by then", median(side.applied), LIVE_GOAL),
            Row(f"{row}, p95", percentile(side.live, 95), "ms", "stored", percentile(side.applied, 95)),
        ]
    return rows


def _ratio(one: Side, many: Side) -> float:
    """Of neighbours in time, so that what disturbs both counts for neither."""
    pairs = zip(one.subject.samples, many.subject.samples, strict=True)
    return median([theirs.root / alone.root for alone, theirs in pairs])


def _without_rest(side: Side) -> float:
    """Microseconds of the gateway for a request, its work at rest during the round taken off."""
    return median([sample.root - side.at_rest / sample.rate * 1e6 for sample in side.subject.samples])

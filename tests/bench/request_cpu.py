"""CPU time a request costs: in the gateway, in the replica, on the whole path; beside what people run without us.

The same raw ASGI application answers everywhere but on functions-framework, which runs the function of its own
README. The replica's share above uvicorn, the queue layer, is told from two servers asked in the same way: the
replica on its own Unix socket, past the gateway, and bare uvicorn on a Unix socket.

Servers run on all processors but the last, the load generator on the last. All subjects are up at once, take
turns, and idle while another is asked.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from . import load, processes
from .command import upwell_run
from .figures import median, quietest
from .framework import FUNCTIONS_FRAMEWORK, NotInstalled, environment
from .load import Generator, Target
from .machine import pinned, shares
from .plan import FUNCTIONS, Plan
from .table import Result, Row, Skipped

CONNECTIONS: Final = 32
WARM_UP_REQUESTS: Final = 2000
SLOW_SHARE: Final = 5
"""functions-framework gets this much less in a round: it takes as long for it."""
GATEWAY_GOAL: Final = "<= 60"
QUEUE_LAYER_GOAL: Final = "<= 15"
PATH_GOAL: Final = "<= 160"
BARE_UVICORN: Final = (
    "--no-access-log",
    "--no-proxy-headers",
    "--no-server-header",
    "--log-level",
    "critical",
    "--timeout-keep-alive",
    "75",
)
"""Bare: without what a function behind a gateway does not need either, and with our keep-alive."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: microseconds of CPU a request, of the first process, of its busiest descendant, and of all."""

    root: float
    busiest: float
    total: float
    rate: float
    """Requests a second."""


@dataclass(slots=True)
class Subject:
    """A server whose process `pid` and descendants are accounted."""

    name: str
    pid: int
    target: Target
    requests: int
    samples: list[Sample] = field(default_factory=list)

    def middle(self, figure: Callable[[Sample], float]) -> float:
        """The median over the rounds."""
        return median([figure(sample) for sample in self.samples])

    def least(self, figure: Callable[[Sample], float]) -> float:
        """The quietest round's."""
        return quietest([figure(sample) for sample in self.samples])


@dataclass(frozen=True, slots=True)
class Subjects:
    """All that take turns; the last three only where they can be had."""

    path: Subject
    uvicorn: Subject
    replica: Subject | None
    uvicorn_unix: Subject | None
    framework: Subject | None

    def present(self) -> list[Subject]:
        """Those that are there."""
        every = (self.path, self.uvicorn, self.replica, self.uvicorn_unix, self.framework)
        return [subject for subject in every if subject is not None]


def run(plan: Plan) -> Result:
    """Rows for gateway, queue layer and path, with requests a second for information."""
    generator = load.find_generator()
    if generator is None:
        return Result(skipped=[Skipped("request_cpu", load.REMEDY)])
    result = Result()
    servers, generators = shares()
    rounds = plan.choose(quick=2, default=5, everything=11)
    with contextlib.ExitStack() as stack:
        with pinned(servers):
            subjects = _start(plan, generator, stack, result)
        with pinned(generators):
            for subject in subjects.present():
                generator.run(subject.target, max(WARM_UP_REQUESTS, subject.requests // 4), CONNECTIONS)
            for number in range(rounds):
                plan.progress(f"round {number + 1} of {rounds}, {len(subjects.present())} servers")
                for subject in subjects.present():
                    subject.samples.append(measure(subject, generator))
    result.rows += _rows(subjects)
    result.notes += _notes(subjects, generator, servers, generators)
    return result


def measure(subject: Subject, generator: Generator) -> Sample:
    """Ask `subject` its number of requests. Raises GeneratorFailed when one of them fails."""
    before = processes.cpu_seconds(subject.pid)
    sent = generator.run(subject.target, subject.requests, CONNECTIONS)
    after = processes.cpu_seconds(subject.pid)
    if sent.failed:
        raise load.GeneratorFailed(f"{subject.name}: {sent.failed} of {subject.requests} requests failed")
    spent = {pid: (seconds - before.get(pid, 0.0)) / sent.answered * 1e6 for pid, seconds in after.items()}
    others = [each for pid, each in spent.items() if pid != subject.pid]
    return Sample(spent[subject.pid], max(others, default=0.0), sum(spent.values()), sent.answered / sent.seconds)


def _start(plan: Plan, generator: Generator, stack: contextlib.ExitStack, result: Result) -> Subjects:
    requests = plan.choose(quick=10_000, default=20_000)
    plan.progress("starting servers")
    platform = stack.enter_context(upwell_run(FUNCTIONS / "asgi_hello.py", plan.directory / "upwell.log"))
    path = Subject("upwell", platform.pid, platform.target, requests)
    uvicorn = _uvicorn(plan, stack, Target("127.0.0.1", processes.free_port()), requests)
    replica = uvicorn_unix = None
    if generator.unix:
        pid = _replica(path, generator)
        replica = Subject("replica", pid, Target("localhost", path=processes.unix_listener(pid)), requests)
        uvicorn_unix = _uvicorn(plan, stack, Target("localhost", path=str(plan.directory / "uvicorn")), requests)
    else:
        result.skipped.append(Skipped("request_cpu: the queue layer over bare uvicorn", load.REMEDY))
    try:
        framework = _framework(plan, stack, requests // SLOW_SHARE)
    except NotInstalled as error:
        result.skipped.append(
            Skipped("request_cpu: functions-framework", f"{FUNCTIONS_FRAMEWORK.remedy} ({error})")
        )
        framework = None
    return Subjects(path, uvicorn, replica, uvicorn_unix, framework)


def _replica(path: Subject, generator: Generator) -> int:
    """The process that answers: the busiest of the platform's descendants."""
    before = processes.cpu_seconds(path.pid)
    generator.run(path.target, WARM_UP_REQUESTS, CONNECTIONS)
    after = processes.cpu_seconds(path.pid)
    after.pop(path.pid)
    return max(after, key=lambda pid: after[pid] - before.get(pid, 0.0))


def _uvicorn(plan: Plan, stack: contextlib.ExitStack, target: Target, requests: int) -> Subject:
    bind = ["--uds", target.path] if target.path else ["--port", str(target.port)]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "asgi_hello:app",
        "--app-dir",
        str(FUNCTIONS),
        *bind,
        *BARE_UVICORN,
    ]
    log = plan.directory / f"uvicorn-{'unix' if target.path else 'tcp'}.log"
    process = stack.enter_context(processes.server(command, log))
    processes.wait_for_listener(process, log, target.path or ("127.0.0.1", target.port))
    return Subject("bare uvicorn", process.pid, target, requests)


def _framework(plan: Plan, stack: contextlib.ExitStack, requests: int) -> Subject:
    """As its README says: ``functions-framework --target=hello``, in the folder of ``main.py``."""
    folder = environment(FUNCTIONS_FRAMEWORK)
    port = processes.free_port()
    command = [str(folder / "bin" / "functions-framework"), "--target=hello", f"--port={port}"]
    log = plan.directory / "functions-framework.log"
    search = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", os.defpath)])
    process = stack.enter_context(
        processes.server(command, log, directory=FUNCTIONS / "framework", environment={"PATH": search})
    )
    processes.wait_for_listener(process, log, ("127.0.0.1", port))
    return Subject("functions-framework", process.pid, Target("127.0.0.1", port), requests)


def _root(sample: Sample) -> float:
    return sample.root


def _busiest(sample: Sample) -> float:
    return sample.busiest


def _total(sample: Sample) -> float:
    return sample.total


def _rate(sample: Sample) -> float:
    return sample.rate


def _rows(subjects: Subjects) -> list[Row]:
    path, uvicorn, framework = subjects.path, subjects.uvicorn, subjects.framework
    bare = uvicorn.middle(_total)
    whole = path.middle(_total)
    rows = [
        _row("gateway", path.middle(_root), uvicorn.name, bare, GATEWAY_GOAL),
        _row("replica, behind the gateway", path.middle(_busiest), uvicorn.name, bare),
        _row("whole path, gateway + replica", whole, uvicorn.name, bare, PATH_GOAL),
    ]
    if framework is not None:
        rows.append(_row("whole path", whole, framework.name, framework.middle(_total)))
    if subjects.replica is not None and subjects.uvicorn_unix is not None:
        replica, unix = subjects.replica.middle(_total), subjects.uvicorn_unix.middle(_total)
        name = "bare uvicorn, Unix socket"
        rows.append(_row("replica alone, Unix socket", replica, name, unix))
        rows.append(_row("queue layer, the difference of those", replica - unix, name, unix, QUEUE_LAYER_GOAL))
    rate = uvicorn.middle(_rate)
    rows.append(Row("request_cpu: requests a second", path.middle(_rate), "1/s", uvicorn.name, rate))
    if framework is not None:
        rows.append(
            Row(
                "request_cpu: requests a second",
                path.middle(_rate),
                "1/s",
                framework.name,
                framework.middle(_rate),
            )
        )
    return rows


def _row(name: str, value: float, baseline: str, baseline_value: float, goal: str | None = None) -> Row:
    return Row(f"request_cpu: {name}", value, "us/request", baseline, baseline_value, goal)


def _notes(
    subjects: Subjects, generator: Generator, servers: frozenset[int], generators: frozenset[int]
) -> Sequence[str]:
    path = subjects.path
    rounds = len(path.samples)
    quiet = ", ".join(f"{subject.name} {subject.least(_total):.1f}" for subject in subjects.present())
    return [
        f"request_cpu: {generator.name} on processor {_listed(generators)}, servers on {_listed(servers)}; "
        f"medians of {rounds} rounds of {path.requests} requests ({path.requests // SLOW_SHARE} to "
        f"functions-framework), {CONNECTIONS} keep-alive connections; a process's threads are counted with it",
        f"request_cpu: quietest rounds, us/request: gateway {path.least(_root):.1f}, {quiet}",
    ]


def _listed(processors: frozenset[int]) -> str:
    return ",".join(map(str, sorted(processors)))

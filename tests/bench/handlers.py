"""CPU time a request costs in a replica, for each kind of function, beside the nearest thing on bare uvicorn.

An application runs as it is in both. A function of another kind stands beside the application that one would
write in its place: raw ASGI for one without arguments, Starlette for one of a request or an event, FastAPI for one
of a typed body. All listen on Unix sockets, without a gateway; the pair that a row compares takes turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from upwell.runtime.clock import SystemClock
from upwell.runtime.host.launcher import HostLauncher
from upwell.runtime.host.process import ReplicaProcess
from upwell.runtime.host.settings import HostSettings
from upwell.runtime.host.source import FunctionSource

from . import load, processes
from .load import Generator, Target
from .machine import pinned, shares
from .plan import FUNCTIONS, Plan
from .request_cpu import BARE_UVICORN, CONNECTIONS, Sample, Subject, measure
from .table import Result, Row, Skipped

ORDER: Final = b'{"customer":"Ada","items":[{"name":"tea","price":4.5},{"name":"cup","price":9,"quantity":2}]}'
JSON: Final = ("content-type: application/json",)
EVENT: Final = (*JSON, "ce-specversion: 1.0", "ce-id: 1", "ce-source: /bench", "ce-type: order")
START_SECONDS: Final = 60.0
ORDERED: Final = (None, ORDER, JSON)
BACKLOG: Final = 4096


@dataclass(frozen=True, slots=True)
class Kind:
    """A row: the function, the application beside it (each ``module:attribute``), and what both are sent."""

    name: str
    function: str
    beside: str
    label: str
    goal: str | None = None
    body: bytes = b""
    headers: tuple[str, ...] = ()
    interface: str = "asgi3"


KINDS: Final = (
    Kind("Starlette app", "handler_apps:starlette_app", "handler_apps:starlette_app", "the same", "<= 1.3"),
    Kind("FastAPI app", "handler_apps:fastapi_app", "handler_apps:fastapi_app", "the same", "<= 1.2"),
    Kind("raw ASGI app", "asgi_hello:app", "asgi_hello:app", "the same"),
    Kind("WSGI app", "handler_apps:wsgi_app", "handler_apps:wsgi_app", "the same", interface="wsgi"),
    Kind("async def f()", "handler_kinds:nullary", "asgi_hello:app", "raw ASGI"),
    Kind("def f()", "handler_kinds:nullary_sync", "handler_apps:wsgi_app", "WSGI", interface="wsgi"),
    Kind("f(request)", "handler_kinds:request", "handler_apps:starlette_app", "Starlette"),
    Kind("f(event)", "handler_kinds:event", "handler_apps:starlette_app", "Starlette", None, ORDER, EVENT),
    Kind(
        "f(dataclass)", "handler_kinds:order_dataclass", "handler_apps:fastapi_app", "FastAPI", None, ORDER, JSON
    ),
    Kind("f(pydantic)", "handler_kinds:order_pydantic", "handler_apps:fastapi_app", "FastAPI", *ORDERED),
    Kind("f(msgspec)", "handler_kinds:order_msgspec", "handler_apps:fastapi_app", "FastAPI", *ORDERED),
)


class Started:
    """Waits for a replica. Implements the host's observer."""

    def __init__(self) -> None:
        self.ready_or_ended = asyncio.Event()
        self.reason = ""

    def ready(self, process: ReplicaProcess, phases: object) -> None:
        self.ready_or_ended.set()

    def report(self, process: ReplicaProcess, report: object) -> None:
        """Not what is measured."""

    def update(self, process: ReplicaProcess, metrics: object) -> None:
        """Not what is measured."""

    def stuck(self, process: ReplicaProcess) -> None:
        """Not what is measured."""

    def unhealthy(self, process: ReplicaProcess, reason: str) -> None:
        """Not what is measured."""

    def exited(self, process: ReplicaProcess, status: object) -> None:
        self.reason = str(status)
        self.ready_or_ended.set()


def run(plan: Plan) -> Result:
    """A row for each kind."""
    generator = load.find_generator()
    if generator is None or not generator.unix:
        return Result(skipped=[Skipped("handlers", load.REMEDY)])
    return asyncio.run(_run(plan, generator))


async def _run(plan: Plan, generator: Generator) -> Result:
    result = Result()
    servers, generators = shares()
    requests = plan.choose(quick=2000, default=10_000)
    rounds = plan.choose(quick=2, default=9, everything=15)
    body = plan.directory / "body"
    body.write_bytes(ORDER)
    launcher = HostLauncher(HostSettings(), SystemClock())
    with pinned(servers):
        await launcher.start()
    try:
        for number, kind in enumerate(KINDS):
            plan.progress(kind.name)
            with contextlib.ExitStack() as stack:
                with pinned(servers):
                    bare = _uvicorn(plan, stack, kind, number, requests)
                    replica = await _replica(plan, stack, launcher, kind, number, requests)
                subjects = [replace_target(each, kind, body) for each in (replica, bare)]
                with pinned(generators):
                    await asyncio.to_thread(_take_turns, subjects, generator, rounds)
                result.rows.append(_row(kind, *subjects))
    finally:
        await launcher.stop(0.0)
    result.notes.append(
        f"handlers: medians of {rounds} rounds of {requests} requests over {CONNECTIONS} "
        f"keep-alive connections, by turns; Unix sockets, no gateway"
    )
    return result


def replace_target(subject: Subject, kind: Kind, body: Path) -> Subject:
    """The subject with what its requests carry."""
    if kind.body:
        subject.target = replace(subject.target, body=str(body), headers=kind.headers)
    return subject


def _take_turns(subjects: list[Subject], generator: Generator, rounds: int) -> None:
    for subject in subjects:
        generator.run(subject.target, subject.requests // 4, CONNECTIONS)
    for _ in range(rounds):
        for subject in subjects:
            subject.samples.append(measure(subject, generator))


def _row(kind: Kind, replica: Subject, bare: Subject) -> Row:
    value, baseline = replica.middle(_total), bare.middle(_total)
    if kind.goal is None:
        return Row(f"handlers: {kind.name}", value, "us/request", f"uvicorn, {kind.label}", baseline)
    ratio = value / baseline
    name = f"handlers: {kind.name}, {value:.0f} us/request"
    return Row(name, ratio, "times", f"uvicorn, {kind.label}, {baseline:.0f} us/request", 1.0, kind.goal)


def _total(sample: Sample) -> float:
    return sample.total


def _uvicorn(plan: Plan, stack: contextlib.ExitStack, kind: Kind, number: int, requests: int) -> Subject:
    path = str(plan.directory / f"bare-{number}")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "uvicorn",
        kind.beside,
        "--app-dir",
        str(FUNCTIONS),
        "--uds",
        path,
    ]
    log = plan.directory / f"bare-{number}.log"
    process = stack.enter_context(processes.server([*command, "--interface", kind.interface, *BARE_UVICORN], log))
    processes.wait_for_listener(process, log, path)
    return Subject("bare uvicorn", process.pid, Target("localhost", path=path), requests)


async def _replica(
    plan: Plan, stack: contextlib.ExitStack, launcher: HostLauncher, kind: Kind, number: int, requests: int
) -> Subject:
    path = str(plan.directory / f"replica-{number}")
    module, _, attribute = kind.function.partition(":")
    template = launcher.load(FunctionSource(f"default/kind-{number}", FUNCTIONS, module, attribute))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    started = Started()
    process = template.start_replica(f"kind-{number}", listener, started)
    stack.callback(process.drain, 0.0)
    async with asyncio.timeout(START_SECONDS):
        await started.ready_or_ended.wait()
    if started.reason or process.pid is None:
        raise processes.DidNotStart(f"{kind.function}: {started.reason}")
    return Subject("replica", process.pid, Target("localhost", path=path), requests)

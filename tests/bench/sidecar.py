"""What the sidecar costs in front of a program: CPU a request, memory, and how fast a gigabyte passes it.

Beside it, in the same run and in front of the same program, stands a relay that passes bytes and looks at nothing.
Servers run on all processors but the last, load generator and the reader of the stream on the last.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from . import load, passing, processes
from .figures import median
from .load import Target
from .machine import pinned, shares
from .plan import Plan
from .request_cpu import CONNECTIONS, WARM_UP_REQUESTS, Subject, measure
from .table import Result, Row, Skipped

CPU_GOAL: Final = "<= 60"
MEMORY_GOAL: Final = "<= 35"
STREAM_GOAL: Final = ">= 0.5"
GROWTH_GOAL: Final = "<= 4"
"""MB. Buffers of 64 KiB on each side of one connection are all that a stream may need."""
LOOKS: Final = 32
"""How often memory is looked at during a stream."""
KNATIVE: Final = (
    "sidecar: Knative's queue-proxy (Go, v1.23) took 160 to 179 us a request, 104 with GOMAXPROCS=1, and 31 MB; "
    "measured apart, on a machine of two processors with 32 connections"
)
MEGABYTE: Final = 1e6


def run(plan: Plan) -> Result:
    """Rows for CPU, memory and streaming."""
    generator = load.find_generator()
    if generator is None:
        return Result(skipped=[Skipped("sidecar", load.REMEDY)])
    servers, generators = shares()
    rounds = plan.choose(quick=2, default=5, everything=11)
    requests = plan.choose(quick=10_000, default=20_000)
    size = plan.choose(quick=200, default=1000) * 1_000_000
    with contextlib.ExitStack() as stack:
        with pinned(servers):
            _, port = stack.enter_context(passing.running(plan.directory / "backend.log", "backend"))
            relay_pid, relay_port = stack.enter_context(
                passing.running(plan.directory / "relay.log", "relay", str(port))
            )
            sidecar_pid, sidecar_port = stack.enter_context(sidecar(plan.directory / "sidecar.log", port))
        relay = Subject("a bare relay", relay_pid, Target("127.0.0.1", relay_port), requests)
        ours = Subject("sidecar", sidecar_pid, Target("127.0.0.1", sidecar_port), requests)
        with pinned(generators):
            for subject in (ours, relay):
                generator.run(subject.target, WARM_UP_REQUESTS, CONNECTIONS)
            for number in range(rounds):
                plan.progress(f"round {number + 1} of {rounds}")
                for subject in (ours, relay):
                    subject.samples.append(measure(subject, generator))
            rows = _request_rows(ours, relay)
            plan.progress(f"streaming {size // 1_000_000} MB")
            rows += _stream_rows(ours, relay, size, rounds)
    notes = [f"sidecar: medians of {rounds} rounds of {requests} requests, {CONNECTIONS} connections", KNATIVE]
    return Result(rows=rows, notes=notes)


@contextlib.contextmanager
def sidecar(log: Path, user_port: int) -> Iterator[tuple[int, int]]:
    """`upwell queue-proxy` before `user_port`: its pid and its port."""
    ports = ["--queue-serving-port", "--admin-port", "--autoscaling-metrics-port", "--user-metrics-port"]
    free = [argument for name in ports for argument in (name, "0")]
    command = [sys.executable, "-m", "upwell", "queue-proxy", "--host", "127.0.0.1", "--user-port", str(user_port)]
    with processes.server([*command, "--drain-quiet-seconds", "0", *free], log) as process:
        yield process.pid, int(processes.wait_for_line(process, log, r'"port": (\d+)')[1])


def _request_rows(ours: Subject, relay: Subject) -> list[Row]:
    cpu, bare = (subject.middle(lambda sample: sample.total) for subject in (ours, relay))
    rate, bare_rate = (subject.middle(lambda sample: sample.rate) for subject in (ours, relay))
    memory, bare_memory = (processes.resident_bytes(subject.pid) / MEGABYTE for subject in (ours, relay))
    return [
        Row("sidecar: CPU", cpu, "us/request", relay.name, bare, CPU_GOAL),
        Row("sidecar: requests a second", rate, "1/s", relay.name, bare_rate),
        Row("sidecar: resident memory", memory, "MB", relay.name, bare_memory, MEMORY_GOAL),
    ]


def _stream_rows(ours: Subject, relay: Subject, size: int, rounds: int) -> list[Row]:
    speeds: dict[str, list[float]] = {ours.name: [], relay.name: []}
    growth = 0
    for _ in range(rounds):
        for subject in (ours, relay):
            before = processes.resident_bytes(subject.pid)
            seconds, highest = stream(subject, size)
            speeds[subject.name].append(size / seconds / MEGABYTE)
            if subject is ours:
                growth = max(growth, highest - before)
    speed, bare = (median(speeds[subject.name]) for subject in (ours, relay))
    return [
        Row("sidecar: a stream", speed, "MB/s", relay.name, bare),
        Row("sidecar: a stream, in that relay's", speed / bare, "x", goal=STREAM_GOAL),
        Row("sidecar: memory that a stream adds", growth / MEGABYTE, "MB", goal=GROWTH_GOAL),
    ]


def stream(subject: Subject, size: int) -> tuple[float, int]:
    """Seconds that `size` bytes take, and the most memory that the subject had meanwhile."""
    highest = 0
    buffer = memoryview(bytearray(1 << 18))
    with socket.create_connection(("127.0.0.1", subject.target.port)) as connection:
        connection.sendall(b"GET /stream/%d HTTP/1.1\r\nHost: h\r\n\r\n" % size)
        began = time.monotonic()
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        left = size - len(head.partition(b"\r\n\r\n")[2])
        look = left
        while left:
            count = connection.recv_into(buffer)
            if not count:
                raise ConnectionError("the stream broke off")
            left -= count
            if left <= look:
                highest = max(highest, processes.resident_bytes(subject.pid))
                look = left - size // LOOKS
        return time.monotonic() - began, highest

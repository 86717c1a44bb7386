"""What a further replica costs in memory: pages that it shares with no other process, after it has served."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import uvloop

from upwell.runtime import procfs
from upwell.runtime.cluster.interface import Replica

from . import client, processes
from .command import upwell_run
from .figures import median
from .hosted import Hosted, hosted
from .plan import FUNCTIONS, ROOT, Plan
from .table import Result, Row

REQUESTS_EACH: Final = 50
MEGABYTE: Final = 1_000_000
GOAL: Final = "<= 10"
BARE: Final = "a bare uvicorn process"


def run(plan: Plan) -> Result:
    """Rows for replicas, the template, the zygote and the platform."""
    bare = _bare(plan)
    platform = _platform(plan)
    result = uvloop.run(_replicas(plan, *bare))
    result.rows += [
        _row("private, the platform's process", platform[0], bare[0]),
        _row("resident, the platform's process", platform[1], bare[1]),
    ]
    return result


async def _replicas(plan: Plan, bare_private: float, bare_resident: float) -> Result:
    count = plan.choose(quick=4, default=10, everything=50)
    plan.progress(f"{count} replicas of examples/hello")
    async with hosted(plan.directory) as platform:
        hello = await platform.deploy(
            ROOT / "examples" / "hello", annotations={"autoscaling.knative.dev/min-scale": str(count)}
        )
        replicas = await platform.wait_for_ready(hello, count)
        for replica in replicas:
            await _serve_some(replica)
        pids = [replica.pid for replica in replicas if replica.pid is not None]
        return Result(
            [
                _row("private, a further replica", median([_private(pid) for pid in pids]), bare_private, GOAL),
                _row("resident, a further replica", median([_resident(pid) for pid in pids]), bare_resident),
                *_platform_rows(platform, set(pids)),
            ],
            notes=[
                f"memory: medians of {len(pids)} replicas after {REQUESTS_EACH} requests each; the platform's "
                "process is that of `upwell run`, without the zygote"
            ],
        )


def _platform_rows(platform: Hosted, replicas: set[int]) -> list[Row]:
    zygote = platform.platform.launcher.zygote_pid
    assert zygote is not None
    templates = [pid for pid in processes.tree(zygote)[1:] if pid not in replicas]
    return [
        _row("private, a template with its standby", sum(map(_private, templates))),
        _row("private, the base zygote", _private(zygote)),
    ]


async def _serve_some(replica: Replica) -> None:
    reader, writer = await asyncio.open_unix_connection(replica.endpoint.path)
    for _ in range(REQUESTS_EACH):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(f"{replica.name} answered {head!r}")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        await reader.readexactly(int(fields[b"content-length"]))
    writer.close()
    await writer.wait_closed()


def _bare(plan: Plan) -> tuple[float, float]:
    """Private and resident megabytes of an ordinary uvicorn process."""
    port = processes.free_port()
    command = [sys.executable, "-m", "uvicorn", "asgi_hello:app", "--app-dir", str(FUNCTIONS), "--port", str(port)]
    log = plan.directory / "uvicorn.log"
    with processes.server(command, log) as process:
        processes.wait_for_listener(process, log, ("127.0.0.1", port))
        return _private(process.pid), _resident(process.pid)


def _platform(plan: Plan) -> tuple[float, float]:
    """Private and resident megabytes of the process of `upwell run`, after a request."""
    with upwell_run(ROOT / "examples" / "hello", plan.directory / "upwell.log") as running:
        client.ask(running.target.port, running.target.host)
        return _private(running.pid), _resident(running.pid)


def _private(pid: int) -> float:
    return procfs.private_bytes(pid) / MEGABYTE


def _resident(pid: int) -> float:
    return processes.resident_bytes(pid) / MEGABYTE


def _row(name: str, value: float, bare: float | None = None, goal: str | None = None) -> Row:
    return Row(f"memory: {name}", value, "MB", BARE if bare is not None else None, bare, goal)

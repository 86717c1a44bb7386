"""What functions cost that are deployed and not called: memory in the platform, the time to apply and to start.

The platform is `upwell up` as a person starts it, its memory that of its process alone; templates and replicas are
other processes and have figures of their own.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from upwell.runtime import procfs
from upwell.runtime.api.client import Client
from upwell.runtime.cluster.kinds import DEPLOYMENT, SERVICE

from . import client, processes
from .plan import ROOT, Plan
from .table import Result, Row

IMAGE: Final = "bench/hello"
READY_SECONDS: Final = 300.0
KILOBYTE: Final = 1000


@dataclass(frozen=True, slots=True)
class Up:
    """A running platform: the seconds from its start until it answered, and how to talk to it."""

    seconds: float
    pid: int
    client: Client

    def private(self) -> int:
        """Bytes of memory that no other process shares."""
        return procfs.private_bytes(self.pid)


def run(plan: Plan) -> Result:
    """Rows for functions at zero: memory of each, time to apply and become ready, time to start on them."""
    count = plan.choose(quick=50, default=1000)
    data = plan.directory / "data"
    with upwell_up(data, plan.directory / "empty.log") as platform:
        ready_in(platform, _services(0, 1))
        before = platform.private()
        plan.progress(f"apply {count} services")
        applied, ready = ready_in(platform, _services(1, count + 1))
        after = platform.private()
        replicas = sum(each["status"]["replicas"] for each in platform.client.list(DEPLOYMENT))
    plan.progress(f"start on {count} services")
    with upwell_up(data, plan.directory / "full.log") as again:
        started = again.seconds
        info = again.client.platform()
        client.ask(info.port, f"function-{count:04}.default.localhost")
        restarted = again.private()
    with upwell_up(plan.directory / "none", plan.directory / "none.log") as none:
        empty = none.seconds
        least = none.private()
    of = f"of {count} deployed functions"
    return Result(
        [
            Row(f"deployed: memory {of}, each", (after - before) / count / KILOBYTE, "KB", goal="<= 40"),
            Row(f"deployed: memory after a restart {of}, each", (restarted - least) / count / KILOBYTE, "KB"),
            Row(f"deployed: replicas {of}", replicas, "processes", goal="== 0"),
            Row(f"deployed: apply {count} services", applied, "s", goal="<= 20"),
            Row(f"deployed: until all {count} are ready", ready, "s"),
            Row(f"deployed: start on {count} services", started, "s", "on none", empty, goal="<= 2"),
        ],
        notes=["deployed: one bundle for all; private memory of the platform's process, before and after"],
    )


@contextlib.contextmanager
def upwell_up(data: Path, log: Path) -> Iterator[Up]:
    """A platform whose state is in `data`; what it prints goes to `log`."""
    command = [sys.executable, "-m", "upwell", "up", "--data", str(data), "--port", "0", "--admin-port", "0"]
    began = time.monotonic()
    with processes.server(command, log) as process:
        processes.wait_for_line(process, log, "gateway on")
        yield Up(time.monotonic() - began, process.pid, Client(data, timeout=READY_SECONDS))


def ready_in(platform: Up, services: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds until services have been applied and until all are ready. Raises TimeoutError."""
    began = time.monotonic()
    images = {IMAGE: json.dumps({"path": str(ROOT / "examples" / "hello")})}
    platform.client.apply(services, images=images)
    applied = time.monotonic() - began
    waiting = {service["metadata"]["name"] for service in services}
    for line in platform.client.watch(SERVICE, remaining=lambda: READY_SECONDS):
        if "object" in line and _is_ready(line["object"]):
            waiting.discard(line["object"]["metadata"]["name"])
        if not waiting:
            break
    return applied, time.monotonic() - began


def _services(first: int, end: int) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": f"function-{number:04}", "namespace": "default"},
            "spec": {"template": {"spec": {"containers": [{"image": IMAGE}]}}},
        }
        for number in range(first, end)
    ]


def _is_ready(service: dict[str, Any]) -> bool:
    conditions = service.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

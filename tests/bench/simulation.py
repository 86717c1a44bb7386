"""How long a day of many functions takes to simulate: the command itself, on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Final

from .plan import ROOT, Plan
from .table import Result, Row

DAY: Final = "heavy-tail:functions=1000,requests=2000000,hours=24"
HOUR: Final = "heavy-tail:functions=100,requests=20000,hours=1"
LIMIT_SECONDS: Final = 900.0


def run(plan: Plan) -> Result:
    """Rows with the time taken, and for information what was simulated in it."""
    trace = plan.choose(quick=HOUR, default=DAY)
    plan.progress(f"upwell simulate --trace {trace}")
    began, before = time.perf_counter(), os.times()
    report = _simulate(trace)
    after = os.times()
    wall = time.perf_counter() - began
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    name = "simulate: a day of 1,000 functions, 2 million requests"
    return Result(
        [
            Row(f"{name}, CPU", cpu, "s", goal="<= 60"),
            Row(f"{name}, wall", wall, "s"),
        ],
        notes=[f"simulate: {trace}: {report['requests']:,} requests, {report['cold_starts']:,} cold starts"],
    )


def _simulate(trace: str) -> dict[str, Any]:
    """The report of the command, which may use one core."""
    affinity = {min(os.sched_getaffinity(0))}
    done = subprocess.run(
        [sys.executable, "-m", "upwell", "simulate", "--trace", trace, "-o", "json"],
        cwd=ROOT,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, affinity),
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report

"""`python -m tests.bench`: run benchmarks, print their table, and fail when a goal is missed."""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from . import (
    autoscaler,
    burst,
    cold_start,
    deployed,
    handlers,
    memory,
    policies,
    priority,
    reaction,
    reload,
    request_cpu,
    routes,
    sidecar,
    simulation,
    soak,
    streaming,
)
from .machine import describe
from .plan import Effort, Plan
from .table import Result, render, to_json

BENCHMARKS: Final[dict[str, Callable[[Plan], Result]]] = {
    "cold_start": cold_start.run,
    "request_cpu": request_cpu.run,
    "policies": policies.run,
    "routes": routes.run,
    "priority": priority.run,
    "memory": memory.run,
    "burst": burst.run,
    "autoscaler": autoscaler.run,
    "reaction": reaction.run,
    "simulation": simulation.run,
    "deployed": deployed.run,
    "handlers": handlers.run,
    "sidecar": sidecar.run,
    "streaming": streaming.run,
    "reload": reload.run,
}
APART: Final[dict[str, Callable[[Plan], Result]]] = {"soak": soak.run}
"""Run only when they are named."""
EXIT_GOAL_MISSED: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when every goal is met, 1 when one is missed or a benchmark broke."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in BENCHMARKS | APART:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS | APART)}")
    effort = Effort.QUICK if options.quick else Effort.ALL if options.all else Effort.DEFAULT
    machine = describe()
    results, broken = _run_all(options.names or list(BENCHMARKS), effort, options.minutes)
    rows = [row for result in results for row in result.rows]
    print(render(rows))
    for result in results:
        for skipped in result.skipped:
            print(f"skipped  {skipped.name}: {skipped.remedy}")
        for note in result.notes:
            print(f"note     {note}")
    print(f"machine  {json.dumps(machine)}")
    missed = [row.name for row in rows if not row.holds]
    for name in missed:
        print(f"missed   {name}")
    for name in broken:
        print(f"broken   {name}: its traceback is above")
    if options.json is not None:
        options.json.write_text(json.dumps(to_json(machine, results), indent=1) + "\n")
    return EXIT_GOAL_MISSED if missed or broken else 0


def _run_all(names: Sequence[str], effort: Effort, minutes: float) -> tuple[list[Result], list[str]]:
    results, broken = [], []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="upwell-bench-") as directory:
            plan = Plan(effort, Path(directory), functools.partial(_progress, name), minutes)
            try:
                results.append((BENCHMARKS | APART)[name](plan))
            except Exception:
                traceback.print_exc()
                broken.append(name)
    return results, broken


def _progress(name: str, text: str) -> None:
    print(f"{name}: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS | APART))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE as JSON")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="of a soak")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--quick", action="store_true", help="few rounds, to see that everything works")
    amount.add_argument("--all", action="store_true", help="with what takes long")
    return parser


if __name__ == "__main__":
    sys.exit(main())

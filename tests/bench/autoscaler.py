"""What the autoscaler costs: many revisions with full windows, told of and ticked as in production.

Every revision gets a report a second, in batches as a gateway sends them, decoded before the clock runs. Loads
differ by revision and second, so that some decisions change at every tick; decisions are obeyed.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from typing import Final

import numpy as np

from upwell.autoscaler.engine import Engine
from upwell.autoscaler.history import HISTORY
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report, ReportBatch
from upwell.runtime import procfs

from .figures import median
from .plan import Plan
from .table import Result, Row

REVISIONS: Final = 10_000
FEW: Final = 1000
WINDOW_SECONDS: Final = 60
TICK_SECONDS: Final = 2
BEGIN: Final = 1_700_000_000
SETTINGS: Final = RevisionSettings()
KNATIVE_MICROSECONDS: Final = 1.4
"""One decision of Knative's autoscaler (Go, v1.23) with its windows, measured on a machine with two cores."""
KNATIVE: Final = "Knative's in Go, as published"


@dataclasses.dataclass(slots=True)
class Costs:
    """Seconds that ticks and the batches between them took, once windows were full."""

    ticks: list[float] = dataclasses.field(default_factory=list)
    batches: list[float] = dataclasses.field(default_factory=list)
    changed: list[int] = dataclasses.field(default_factory=list)


def run(plan: Plan) -> Result:
    """Rows for ticks, decisions, reports and memory."""
    count = plan.choose(quick=FEW, default=REVISIONS)
    plan.progress(f"{count:,} revisions with full windows")
    before = _resident()
    engine = _engine(count)
    costs = _run(engine, count, ticks=plan.choose(quick=10, default=100))
    plan.progress(f"{count:,} revisions with full histories")
    _fill_histories(engine, count)
    gc.collect()
    memory = (_resident() - before) / count
    shortest = min(len(engine.history(_key(number))) for number in range(0, count, max(1, count // 100)))
    tick, batch = median(costs.ticks), median(costs.batches)
    share = 100 * (tick / TICK_SECONDS + batch)
    return Result(
        [
            Row(f"autoscaler: a tick of {count:,} revisions", tick * 1000, "ms", goal="<= 20"),
            Row("autoscaler: recording and ticking, of a core", share, "%", goal="<= 10"),
            Row("autoscaler: memory a revision, full history", memory / 1000, "KB", goal="<= 20"),
            Row(
                "autoscaler: one decision with its windows, of a tick",
                tick / count * 1e6,
                "us",
                KNATIVE,
                KNATIVE_MICROSECONDS,
            ),
            Row("autoscaler: one decision by itself, as for a poke", _poke(engine, count), "us"),
            Row("autoscaler: taking a report, in a batch", batch / count * 1e6, "us"),
            Row("autoscaler: taking a report by itself", _report(engine, count), "us"),
        ],
        notes=[
            f"autoscaler: medians of {len(costs.ticks)} ticks, slowest {max(costs.ticks) * 1000:.1f} ms; "
            f"{median(list(map(float, costs.changed))) / count:.0%} of the decisions differ from the one before; "
            f"histories hold {shortest} of {HISTORY}; Knative's figure was not measured in this run"
        ],
    )


def _engine(count: int) -> Engine:
    engine = Engine()
    for number in range(count):
        engine.set_revision(_key(number), SETTINGS, float(BEGIN), ready=2, initialized=True)
    return engine


def _run(engine: Engine, count: int, ticks: int) -> Costs:
    """Let time pass until windows are full, and measure from then on."""
    costs = Costs()
    names = [_key(number) for number in range(count)]
    random = np.random.default_rng(1)
    for second in range(1, WINDOW_SECONDS + TICK_SECONDS * ticks + 1):
        batch = _batch(names, second, random.exponential(60.0, count))
        began = time.perf_counter()
        engine.report_batch(batch, batch.ended)
        told = time.perf_counter() - began
        if second > WINDOW_SECONDS:
            costs.batches.append(told)
        if second % TICK_SECONDS == 0:
            _tick(engine, second, costs)
    return costs


def _tick(engine: Engine, second: int, costs: Costs) -> None:
    """One tick, whose decisions are obeyed afterwards; measured is what the loop does of it."""
    began = time.perf_counter()
    tick = engine.tick(BEGIN + second + 0.2)
    acting = list(tick.to_scale())
    taken = time.perf_counter() - began
    if second > WINDOW_SECONDS:
        costs.ticks.append(taken)
        costs.changed.append(sum(1 for _ in tick.news()))
    for decision in acting:
        assert decision.scale is not None, "to be acted on"
        engine.observe(decision.revision, ready=decision.scale)


def _batch(names: list[str], second: int, loads: np.ndarray[tuple[int], np.dtype[np.float64]]) -> ReportBatch:
    nothing = [0.0] * len(names)
    return ReportBatch(
        reporter="gateway",
        sequence=second,
        ended=float(BEGIN + second),
        revisions=names,
        spans=[1.0] * len(names),
        average_concurrency=loads.tolist(),
        average_proxied_concurrency=nothing,
        request_count=[100] * len(names),
        proxied_request_count=[0] * len(names),
    )


def _fill_histories(engine: Engine, count: int) -> None:
    """Change every revision's bounds before each tick, so that every decision differs from the one before."""
    bounds = [dataclasses.replace(SETTINGS, max_scale=most) for most in (1, 2)]
    now = BEGIN + 10_000
    for round_ in range(HISTORY + 2):
        for number in range(count):
            engine.set_revision(_key(number), bounds[round_ % 2], now)
        now += TICK_SECONDS
        names = [_key(number) for number in range(count)]
        engine.report_batch(_batch(names, now - BEGIN, np.full(count, 300.0)), now)
        engine.tick(now + 0.2)


def _poke(engine: Engine, count: int) -> float:
    now = BEGIN + 20_000.0
    began = time.perf_counter()
    for number in range(min(count, FEW)):
        engine.poke(_key(number), 50, now)
    return (time.perf_counter() - began) / min(count, FEW) * 1e6


def _report(engine: Engine, count: int) -> float:
    now = BEGIN + 20_001.0
    made = [
        Report(_key(number), "replica", 1, now - 1, now, 40.0, 0.0, 100, 0) for number in range(min(count, FEW))
    ]
    began = time.perf_counter()
    for report in made:
        engine.report(report, now)
    return (time.perf_counter() - began) / len(made) * 1e6


def _resident() -> float:
    return float(procfs.private_bytes(os.getpid()))


def _key(number: int) -> str:
    return f"default/function-{number:05}"

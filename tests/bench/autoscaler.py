"""What the autoscaler's decisions cost: many revisions with full windows, ticked as in production."""

from __future__ import annotations

import time
from typing import Final

from upwell.autoscaler.engine import Engine
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report

from .figures import median
from .plan import Plan
from .table import Result, Row

REVISIONS: Final = 1000
REPORTERS: Final = ("gateway", "replica")
WINDOW_SECONDS: Final = 60
TICK_SECONDS: Final = 2
BEGIN: Final = 1_700_000_000
KNATIVE_MICROSECONDS: Final = 1.4
"""One decision of Knative's autoscaler (Go, v1.23) with its windows, measured on a machine with two cores."""


def run(plan: Plan) -> Result:
    """Rows for a decision and for taking a report."""
    plan.progress(f"{REVISIONS} revisions with full windows")
    engine = Engine()
    for number in range(REVISIONS):
        engine.set_revision(_key(number), RevisionSettings(), float(BEGIN), ready=2, initialized=True)
    ticks: list[float] = []
    reports: list[float] = []
    for second in range(1, WINDOW_SECONDS + TICK_SECONDS * plan.choose(quick=10, default=50) + 1):
        reports.append(_report_all(engine, second))
        if second % TICK_SECONDS == 0:
            ticks.append(_tick(engine, second))
    measured = ticks[WINDOW_SECONDS // TICK_SECONDS :]
    decision = median(measured) / REVISIONS * 1e6
    report = median(reports[WINDOW_SECONDS:]) / (REVISIONS * len(REPORTERS)) * 1e6
    return Result(
        [
            Row(
                "autoscaler: one decision with its windows",
                decision,
                "us",
                "Knative's in Go, as published",
                KNATIVE_MICROSECONDS,
            ),
            Row(f"autoscaler: a tick of {REVISIONS} revisions", median(measured) * 1000, "ms"),
            Row("autoscaler: taking a report", report, "us"),
        ],
        notes=[f"autoscaler: median of {len(measured)} ticks; Knative's figure was not measured in this run"],
    )


def _key(number: int) -> str:
    return f"default/function-{number:05}"


def _report_all(engine: Engine, second: int) -> float:
    """Seconds that the engine took for a report of each reporter of each revision."""
    ended = float(BEGIN + second)
    made = [
        Report(
            revision=_key(number),
            reporter=reporter,
            sequence=second,
            started=ended - 1,
            ended=ended,
            average_concurrency=40.0 + (number + second) % 50,
            average_proxied_concurrency=0.0,
            request_count=100,
            proxied_request_count=0,
        )
        for number in range(REVISIONS)
        for reporter in REPORTERS
    ]
    began = time.perf_counter()
    for report in made:
        engine.report(report, ended)
    return time.perf_counter() - began


def _tick(engine: Engine, second: int) -> float:
    """Seconds of one tick, whose decisions are obeyed afterwards."""
    began = time.perf_counter()
    decisions = engine.tick(BEGIN + second + 0.2)
    taken = time.perf_counter() - began
    for decision in decisions:
        if decision.scale is not None:
            engine.observe(decision.revision, ready=decision.scale)
    return taken

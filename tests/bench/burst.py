"""What is lost when load comes all at once, and when replicas go while it lasts: nothing should be.

A crowd of 1,000 connections meets a function at zero, without a limit on concurrency and with containerConcurrency
10. Then replicas are started and ended through the cluster's interface under steady traffic, down to none now and
then, until 1,000 have ended.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
from typing import Final

import uvloop

from .figures import median
from .hosted import Deployed, Hosted, hosted
from .plan import FUNCTIONS, ROOT, Plan
from .table import Result, Row
from .traffic import Seen, Traffic

CROWD: Final = 1000
WORKERS: Final = 16
COUNTS: Final = (4, 1, 3, 2, 4, 2, 3, 1, 4, 0)
"""Replicas, in turn."""
SERVE_SECONDS: Final = 0.02
"""For new replicas to take requests before some are ended."""
SETTLE_SECONDS: Final = 1.0
"""For a count to be reached; the autoscaler's tick may set another meanwhile."""
MAX_SCALE: Final = "50"
"""Replicas with containerConcurrency 10: the autoscaler would start 143, 1 GB, for each crowd."""
SHELL_DESCRIPTORS: Final = 1024
"""The limit that most shells give, too low for a crowd; the platform has to raise it for itself."""
NONE_LOST: Final = "== 0"


def run(plan: Plan) -> Result:
    """Rows with the requests that failed and, for information, the time that crowds took."""
    return uvloop.run(_run(plan))


async def _run(plan: Plan) -> Result:
    result = Result()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(SHELL_DESCRIPTORS, most), most))
    async with hosted(plan.directory / "free") as platform:
        hello = await platform.deploy(ROOT / "examples" / "hello")
        await _crowds(plan, platform, hello, "no limit", result)
    async with hosted(plan.directory / "limited") as platform:
        limit = {"autoscaling.knative.dev/max-scale": MAX_SCALE}
        hello = await platform.deploy(ROOT / "examples" / "hello", concurrency=10, annotations=limit)
        await _crowds(plan, platform, hello, "containerConcurrency 10", result)
    async with hosted(plan.directory / "churn") as platform:
        echo = await platform.deploy(FUNCTIONS / "echo.py")
        await _churn(plan, platform, echo, result)
    return result


async def _crowds(plan: Plan, platform: Hosted, function: Deployed, limit: str, result: Result) -> None:
    rounds = plan.choose(quick=2, default=5, everything=20)
    plan.progress(f"{rounds} times from zero to {CROWD} requests at once, {limit}")
    seen: list[Seen] = []
    for _ in range(rounds):
        async with Traffic("crowd", CROWD, platform.port, function.host) as crowd:
            await platform.to_zero(function)
            crowd.begin()
            seen.append(await crowd.end())
    name = f"burst: 0 to {CROWD} requests, {limit}"
    result.rows.append(Row(f"{name}, failed", sum(each.failed for each in seen), "requests", goal=NONE_LOST))
    result.rows.append(Row(f"{name}, to the last answer", median([each.seconds for each in seen]) * 1000, "ms"))
    result.notes += [f"{name}: {_told(each)}" for each in seen if each.failed]


async def _churn(plan: Plan, platform: Hosted, function: Deployed, result: Result) -> None:
    ends = plan.choose(quick=60, default=1000, everything=10_000)
    plan.progress(f"{ends} replicas ended under load")
    watcher = platform.watcher
    async with Traffic("steady", WORKERS, platform.port, function.host) as traffic:
        traffic.begin()
        before = watcher.ended
        for count in itertools.cycle(COUNTS):
            if watcher.ended - before >= ends:
                break
            await _scale(platform, function, count)
        ended = watcher.ended - before
        seen = await traffic.end()
    name = f"burst: {ends:,} scale-downs under load"
    result.rows += [
        Row(f"{name}, requests lost", seen.failed, "requests", goal=NONE_LOST),
        Row(f"{name}, replicas that ended by themselves", len(watcher.unexpected), "replicas", goal=NONE_LOST),
        Row(f"{name}, requests sent", seen.sent, "requests"),
    ]
    result.notes.append(f"{name}: {ended} replicas in {seen.seconds:.0f} s, {WORKERS} connections; {_told(seen)}")
    result.notes += [f"{name}: {exit.replica} {exit.reason}" for exit in watcher.unexpected[:5]]


async def _scale(platform: Hosted, function: Deployed, count: int) -> None:
    """Have `count` replicas, and give new ones time to take requests; at none the gateway asks for one at once."""
    platform.platform.cluster.scale(function.revision, count, reason="the benchmark's turn")
    if count:
        await platform.watcher.until(lambda: len(platform.ready(function)) == count, SETTLE_SECONDS)
    await asyncio.sleep(SERVE_SECONDS)


def _told(seen: Seen) -> str:
    wrong = ", ".join(f"{count} x {what}" for what, count in seen.wrong.items())
    return f"{seen.sent} requests, {wrong or 'all answered'}"

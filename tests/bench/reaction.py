"""How soon a burst has an effect: from the first request beyond what is ready to the call that scales.

A function with one replica and room for one request is held busy; a second request is more than it can take. The
gateway tells the autoscaler at once, which decides and calls the cluster. Each round has a Service of its own, so
that no panic of an earlier one holds replicas.
"""

from __future__ import annotations

import asyncio
from typing import Final

import uvloop

from upwell.autoscaler.decision import Decision
from upwell.runtime.clock import SystemClock

from .figures import percentile
from .hosted import Deployed, Hosted, hosted
from .plan import FUNCTIONS, Plan
from .table import Result, Row

SETTLED_SECONDS: Final = 0.05
"""Of the pause in which the function answers: the first request is at the replica by then."""
FULL: Final = {"autoscaling.knative.dev/target-utilization-percentage": "100"}
"""One replica is enough for one request, so the second is the first too many."""
GOAL: Final = "<= 20"


class Decided:
    """Notes when a revision was told to scale: the call of the cluster follows at once."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[float, int]]] = {}
        self._clock = SystemClock()

    def __call__(self, decision: Decision) -> None:
        """Note the decision's time."""
        if decision.scale is not None:
            self.told.setdefault(decision.revision, []).append((self._clock.now(), decision.scale))


def run(plan: Plan) -> Result:
    """Rows with the median and the 99th percentile."""
    return uvloop.run(_run(plan))


async def _run(plan: Plan) -> Result:
    rounds = plan.choose(quick=10, default=200)
    plan.progress(f"{rounds} bursts of one request too many")
    decided = Decided()
    async with hosted(plan.directory, decided=decided) as platform:
        taken = [await _round(platform, decided, number) for number in range(rounds)]
    milliseconds = sorted(each * 1000 for each in taken)
    return Result(
        [
            Row("reaction: from excess to the scale call, median", percentile(milliseconds, 50), "ms"),
            Row("reaction: from excess to the scale call, p99", percentile(milliseconds, 99), "ms", goal=GOAL),
        ],
        notes=[f"reaction: {rounds} rounds, from the client's sending of the request to the call of the cluster"],
    )


async def _round(platform: Hosted, decided: Decided, number: int) -> float:
    """Seconds from the second request's sending to the call that asks for more than one replica."""
    function = await platform.deploy(
        FUNCTIONS / "pausing.py", concurrency=1, annotations=FULL, name=f"burst-{number}"
    )
    held = asyncio.create_task(_request(platform, function))
    await platform.wait_for_ready(function, 1)
    await asyncio.sleep(SETTLED_SECONDS)
    sent = platform.now()
    excess = asyncio.create_task(_request(platform, function))
    await asyncio.gather(held, excess)
    raised = next(at for at, replicas in decided.told[function.revision] if at >= sent and replicas > 1)
    await platform.to_zero(function)
    return raised - sent


async def _request(platform: Hosted, function: Deployed) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
    head = f"GET / HTTP/1.1\r\nHost: {function.host}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise OSError(f"{function.revision} answered {answer[:200]!r}")

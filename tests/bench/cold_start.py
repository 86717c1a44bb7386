"""The first response of a function that is scaled to zero, through the gateway.

Each round ends all replicas, asks once on a new connection from another process, and then asks a bare fork with
uvicorn the same; every tenth round a fresh interpreter with uvicorn too. A round counts when its replica was
started after the question: the autoscaler's own tick may raise one just then, since it knows nothing of rounds.

Before each question all rests for a moment, as before the first request to a function long unasked.
For the base zygote alone the platform keeps one template and has many functions, each of which is asked once.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import uvloop

from .bare import BareServer
from .client import Answer, Client
from .figures import median, percentile
from .hosted import Deployed, Hosted, hosted
from .plan import FUNCTIONS, ROOT, Plan
from .table import Result, Row

WARM_UP_ROUNDS: Final = 3
SPAWN_EVERY: Final = 10
REST_SECONDS: Final = 0.1
"""What the round before left behind has ended by then, and whatever is kept ready is ready again."""
P50_GOAL: Final = "<= 10"
P99_GOAL: Final = "<= 30"
RATIO_GOAL: Final = "<= 1.7"


@dataclass(slots=True)
class Rounds:
    """Milliseconds to the end of the first response, by round; and what became of rounds that do not count."""

    warm: list[Answer] = field(default_factory=list)
    forked: list[float] = field(default_factory=list)
    spawned: list[float] = field(default_factory=list)
    discarded: int = 0


def run(plan: Plan) -> Result:
    """Rows for a warm template and its phases, and for the base zygote alone."""
    return uvloop.run(_run(plan))


async def _run(plan: Plan) -> Result:
    plan.progress("from zero, with a warm template, beside a bare fork and a fresh interpreter")
    rounds = await _warm_rounds(plan)
    plan.progress("from zero, with the base zygote alone")
    without_template = await _base_rounds(plan)
    began = time.perf_counter()
    importlib.import_module(".functions.slow_import", __package__)
    own_import = (time.perf_counter() - began) * 1000
    complete = [answer.complete for answer in rounds.warm]
    fork, spawn, base = median(rounds.forked), median(rounds.spawned), median(without_template)
    rows = [
        _row("first response from zero, p50", median(complete), "bare fork + uvicorn, p50", fork, P50_GOAL),
        _row(
            "first response from zero, p99",
            percentile(complete, 99),
            "bare fork + uvicorn, p99",
            percentile(rounds.forked, 99),
            P99_GOAL,
        ),
        Row(
            "cold_start: p50 as a multiple of a bare fork + uvicorn",
            median(complete) / fork,
            "x",
            "bare fork + uvicorn",
            1.0,
            RATIO_GOAL,
        ),
        _row(
            "first response from zero, p50, beside a new interpreter",
            median(complete),
            "fresh uvicorn, p50",
            spawn,
        ),
        *_phase_rows([answer.phases for answer in rounds.warm]),
        _row("base zygote only, p50", base, "warm template, p50", median(complete)),
        _row("base zygote only, p50, without the function's import", base - own_import, "that import", own_import),
    ]
    notes = [
        f"cold_start: {len(complete)} rounds, {rounds.discarded} discarded (raised by the autoscaler's tick); "
        f"{len(rounds.spawned)} fresh interpreters, {len(without_template)} rounds with the base zygote only; "
        f"time to the first byte p50 {median([answer.first_byte for answer in rounds.warm]):.2f} ms"
    ]
    return Result(rows, notes=notes)


async def _warm_rounds(plan: Plan) -> Rounds:
    count = plan.choose(quick=40, default=200, everything=1000)
    rounds = Rounds()
    async with (
        hosted(plan.directory / "warm") as platform,
        Client() as client,
        BareServer("fork") as fork,
        BareServer("spawn") as spawn,
    ):
        hello = await platform.deploy(ROOT / "examples" / "hello")
        for number in range(-WARM_UP_ROUNDS, count):
            answer = await _ask_from_zero(platform, hello, client, rounds)
            bare = await _ask_bare(fork, client)
            if number < 0:
                continue
            rounds.warm.append(answer)
            rounds.forked.append(bare)
            if number % SPAWN_EVERY == 0:
                rounds.spawned.append(await _ask_bare(spawn, client))
    return rounds


async def _base_rounds(plan: Plan) -> list[float]:
    """Milliseconds of the first request that each of many functions gets, none of which has its template left."""
    source = (FUNCTIONS / "slow_import.py").read_text()
    async with hosted(plan.directory / "base", templates=1) as platform, Client() as client:
        functions = []
        for number in range(plan.choose(quick=8, default=30, everything=60) + 1):
            path = plan.directory / f"slow_{number}.py"
            path.write_text(source)
            functions.append(await platform.deploy(path))
        # The last one's template is still there.
        asked = functions[:-1]
        return [(await _ask_from_zero(platform, function, client, Rounds())).complete for function in asked]


async def _ask_from_zero(platform: Hosted, function: Deployed, client: Client, rounds: Rounds) -> Answer:
    """The answer of a round that counts."""
    while True:
        await platform.to_zero(function)
        await asyncio.sleep(REST_SECONDS)
        asked_at = platform.now()
        answer = await client.ask(platform.port, function.host)
        if answer.status != 200:
            raise OSError(f"{function.revision} answered {answer.status}")
        replicas = platform.ready(function)
        if answer.phases and replicas and replicas[0].started_at >= asked_at:
            return answer
        rounds.discarded += 1


async def _ask_bare(server: BareServer, client: Client) -> float:
    await asyncio.sleep(REST_SECONDS)
    answer = await client.ask(server.port, "localhost")
    await server.to_zero()
    return answer.complete


def _phase_rows(phases: Sequence[Mapping[str, float]]) -> list[Row]:
    return [_row(f"phase {name}, p50", median([each[name] for each in phases])) for name in phases[0]]


def _row(
    name: str,
    value: float,
    baseline: str | None = None,
    baseline_value: float | None = None,
    goal: str | None = None,
) -> Row:
    return Row(f"cold_start: {name}", value, "ms", baseline, baseline_value, goal)

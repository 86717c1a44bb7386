"""The article's quota under three times what it lets pass: subscribers (priority 200) beside guests (50).

`upwell up`, a function, the policy with its 10 tokens a second, and `upwell load` in an open loop with both
classes at once, half of the load each: everything as a person would do it, over sockets. Both classes ask for more
than their share, so both always wait. What succeeded is counted without the first few seconds, in which the full
bucket of the beginning passes and queues form.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from .deployed import READY_SECONDS, Up, upwell_up
from .manifests import IMAGE, quota, replicas, service
from .plan import FUNCTIONS, ROOT, Plan
from .table import Result, Row
from .waiting import until_current, until_in_force, until_replicas

NAME: Final = "httpbin"
TOKENS: Final = 10
OVERLOAD: Final = 3
CLASSES: Final = ("subscriber", "guest")
SETTLING_SECONDS: Final = 4.0
LEAST_GOAL: Final = ">= 3.6"
MOST_GOAL: Final = "<= 4.4"
CONSERVING_GOAL: Final = ">= 0.98"


def run(plan: Plan) -> Result:
    """Rows for the ratio of what succeeded, its bounds, and the share of the tokens that were used."""
    seconds = plan.choose(quick=14, default=44, everything=124)
    with upwell_up(plan.directory / "data", plan.directory / "upwell.log") as platform:
        _deploy(platform)
        plan.progress(f"{OVERLOAD} times {TOKENS} requests a second for {seconds} s")
        told = _load(platform, seconds)
    counted, width = _counted(told, seconds)
    subscribers, guests = (sum(counted[name]) for name in CLASSES)
    ratio = subscribers / guests if guests else float("inf")
    tokens = TOKENS * width
    waits = {each["name"]: each["durations"].get("succeeded", {}).get("p50", 0.0) for each in told["classes"]}
    return Result(
        [
            Row("priority: subscriber's goodput over guest's", ratio, "x", "4 : 1", 4.0, LEAST_GOAL),
            Row("priority: the same, from above", ratio, "x", "4 : 1", 4.0, MOST_GOAL),
            Row(
                "priority: tokens that were used",
                (subscribers + guests) / tokens,
                "of all",
                "filled meanwhile",
                tokens,
                CONSERVING_GOAL,
            ),
            Row("priority: p50 of subscribers", waits["subscriber"], "ms", "guests", waits["guest"]),
        ],
        notes=[
            f"priority: upwell load, {OVERLOAD * TOKENS}/s for {seconds} s, counted over {width:g} s: "
            f"{subscribers:.0f} of subscribers, {guests:.0f} of guests; in all "
            f"{json.dumps(told['total']['statuses'])}, {told['total']['unsent']} never sent"
        ],
    )


def _deploy(platform: Up) -> None:
    images = {IMAGE: json.dumps({"path": str(FUNCTIONS / "asgi_hello.py")})}
    applied = platform.client.apply([service(NAME, annotations=replicas(1))], images=images)
    until_current(platform.client, applied, READY_SECONDS)
    until_replicas(platform.client, f"{NAME}-00001", 1, READY_SECONDS)
    policy = quota("quotascheduling", f"{NAME}-00001", TOKENS)
    platform.client.apply([policy])
    until_in_force(platform.client, [policy], READY_SECONDS)


def _load(platform: Up, seconds: int) -> dict[str, Any]:
    """The report of `upwell load`."""
    command = [sys.executable, "-m", "upwell", "load", NAME, "--data-dir", str(platform.client.directory)]
    command += ["--rate", str(OVERLOAD * TOKENS), "--time", f"{seconds}s", "-c", "5000", "--timeout", "300s"]
    for name in CLASSES:
        command += ["--class", f"{name}:user_type:{name}"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _counted(report: dict[str, Any], seconds: int) -> tuple[dict[str, list[float]], float]:
    """Requests that succeeded in each bucket of time that counts, by class; and the seconds of these buckets."""
    counted = {}
    width = 0.0
    for each in report["classes"]:
        series = each["series"]
        bucket = series["bucket_seconds"]
        inside = [
            rate * bucket
            for begins, rate in zip(series["times"], series["rates"]["succeeded"], strict=True)
            if begins >= SETTLING_SECONDS and begins + bucket <= seconds
        ]
        counted[each["name"]] = inside
        width = max(width, len(inside) * bucket)
    return counted, width

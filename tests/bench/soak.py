"""A soak: mixed load while replicas are killed, policies change and revisions are rolled, every few seconds.

Fails when a request fails that no killed replica was answering, or when something is left once all is deleted
and quiet again: tasks, connections, timers, entries of the gateway, processes, descriptors. A failed request is
laid to a kill only if the gateway's access log names the killed replica for it and it had begun before the kill.

The seed of what happens when is printed; `python -m tests.bench soak --minutes N` says how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from upwell.runtime import procfs
from upwell.runtime.cluster.interface import ObjectKey, Replica, ReplicaState
from upwell.runtime.cluster.kinds import CONFIGURATION, DEPLOYMENT, INGRESS, REVISION, ROUTE, SERVICE

from .hosted import Hosted, hosted
from .manifests import (
    IMAGE,
    NEVER,
    Manifest,
    breaker,
    limiter,
    outlier_detection,
    quota,
    replicas,
    service,
    virtual_service,
)
from .plan import FUNCTIONS, Plan
from .processes import resident_bytes, tree
from .soak_traffic import Crowd, Wrong
from .table import Result, Row

KILLED: Final = ("steady", "limited", "queued")
"""Functions that have several replicas, of which one is killed now and then."""
FUNCTION_NAMES: Final = (*KILLED, "rolled", "rare")
REPLICAS: Final = 3
EVERY_SECONDS: Final = {"kill": 3.0, "policy": 2.0, "roll": 7.0, "split": 4.0}
"""Of each kind of event, on average."""
READY_SECONDS: Final = 60.0
RACE_SECONDS: Final = 0.05
"""After a kill, in which the gateway cannot know of it yet and may still send to the replica."""
QUIET_SECONDS: Final = 90.0
"""For what is over to be let go: idle connections, pauses, the autoscaler's windows."""
LOOK_SECONDS: Final = 0.5
RETAIN: Final = {
    "min-non-active-revisions": "0",
    "max-non-active-revisions": "1",
    "retain-since-create-time": "disabled",
    "retain-since-last-active-time": "disabled",
}
OBJECTS: Final = (SERVICE, CONFIGURATION, ROUTE, REVISION, DEPLOYMENT, INGRESS)
GARBAGE: Final[Manifest] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "config-gc", "namespace": "knative-serving"},
    "data": RETAIN,
}


@dataclass(slots=True)
class Events:
    """What was done, and to which replicas it was the end."""

    count: Counter[str] = field(default_factory=Counter)
    killed: dict[str, float] = field(default_factory=dict)
    """Replicas by name: monotonic seconds of the kill."""


def run(plan: Plan) -> Result:
    """Rows for failed requests and for what is left."""
    return uvloop.run(_run(plan))


async def _run(plan: Plan) -> Result:
    seed = random.SystemRandom().randrange(1 << 32)
    plan.progress(f"{plan.minutes:g} minutes, seed {seed}")
    events = Events()
    state = plan.directory / "soak"
    async with hosted(state) as platform:
        disturber = Disturber(platform, random.Random(seed), events)
        empty = await _entries(platform)
        await disturber.deploy()  # once before, so that what is made once is there when it is counted
        await _brief(platform)
        await disturber.delete()
        before = {**await _counted_when_quiet(platform, None), **empty}
        memory = resident_bytes(os.getpid())
        await disturber.deploy()
        async with Crowd(platform.port) as crowd:
            await disturber.disturb(plan.minutes * 60, plan.progress)
        await disturber.delete()
        plan.progress("waiting until all is quiet")
        after = await _counted_when_quiet(platform, before)
        growth = resident_bytes(os.getpid()) - memory
    explained, unexplained = _explained(crowd.wrong, events, state / "access.log")
    return Result(
        _rows(crowd, events, len(explained), len(unexplained), before, after, growth),
        notes=[f"soak: seed {seed}; events {dict(events.count)}; {json.dumps(crowd.totals)}", *_reasons(explained)]
        + [f"soak: FAILED {reason}" for reason in unexplained],
    )


async def _brief(platform: Hosted) -> None:
    async with Crowd(platform.port):
        await asyncio.sleep(1)


class Disturber:
    """Deploys, disturbs and deletes what the soak is about."""

    def __init__(self, platform: Hosted, chance: random.Random, events: Events) -> None:
        self._hosted = platform
        self._platform = platform.platform
        self._chance = chance
        self._events = events
        self._revision = 0
        self._policies: dict[ObjectKey, Manifest] = {}

    async def deploy(self) -> None:
        """The functions with their replicas, and every policy in its first form."""
        images = {IMAGE: str(FUNCTIONS / "soak.py")}
        window = {"autoscaling.knative.dev/window": "6s"}
        services = [service(name, annotations=replicas(REPLICAS)) for name in KILLED]
        services += [service("rolled", annotations=replicas(1)), service("rare", annotations=window)]
        applied = await self._platform.apply([GARBAGE, *services], images=images)
        for each in applied[1:]:
            await self._platform.wait_ready(each.key, READY_SECONDS)
        self._revision = 1
        for name in KILLED:
            await self._until(partial(self._has_all, name), f"the replicas of {name}")
        for make in self._variants():
            await self._put(make())

    async def delete(self) -> None:
        """Everything, policies first."""
        for key in [*self._policies]:
            await self._platform.delete(key)
        self._policies.clear()
        for name in FUNCTION_NAMES:
            await self._platform.delete(ObjectKey(SERVICE, "default", name))

    async def disturb(self, seconds: float, progress: Callable[[str], None]) -> None:
        """Let events happen, each kind at its own times."""
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "policy": self._change_policy,
            "roll": self._roll,
            "split": self._split,
        }
        end = time.monotonic() + seconds
        due = {kind: time.monotonic() + self._pause(kind) for kind in kinds}
        told = 0
        while (kind := min(due, key=due.__getitem__)) and due[kind] < end:
            await asyncio.sleep(max(0.0, due[kind] - time.monotonic()))
            await kinds[kind]()
            self._events.count[kind] += 1
            due[kind] = time.monotonic() + self._pause(kind)
            minutes = int((seconds - (end - time.monotonic())) // 60)
            if minutes > told:
                told = minutes
                progress(f"{minutes} minutes, {dict(self._events.count)}, {self._platform.gateway!r}")
        await asyncio.sleep(max(0.0, end - time.monotonic()))

    def _pause(self, kind: str) -> float:
        return self._chance.uniform(0.5, 1.5) * EVERY_SECONDS[kind]

    # Events

    async def _kill(self) -> None:
        ready = self._ready(self._chance.choice(KILLED))
        if len(ready) < 2:
            self._events.count["kill put off: one replica"] += 1
            return
        victim = self._chance.choice(ready)
        assert victim.pid is not None
        self._events.killed[victim.name] = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)

    async def _change_policy(self) -> None:
        """Another form of a policy; now and then it goes, and comes again when its turn is next."""
        manifest = self._chance.choice(self._variants())()
        key = _key(manifest)
        if key in self._policies and self._chance.random() < 0.2:
            await self._platform.delete(self._policies_key(key))
        else:
            await self._put(manifest)

    def _policies_key(self, key: ObjectKey) -> ObjectKey:
        del self._policies[key]
        return key

    async def _put(self, manifest: Manifest) -> None:
        (applied,) = await self._platform.apply([manifest])
        self._policies[applied.key] = manifest

    def _variants(self) -> tuple[Callable[[], Manifest], ...]:
        chance = self._chance

        def breaks() -> Manifest:
            return breaker(
                "limited",
                _first("limited"),
                window_size="5s",
                break_duration=f"{chance.randint(1, 3)}s",
                max_slow_requests=chance.choice((5, 20, NEVER)),
                slow_request_rt="0.25s",
                custom_response={"status_code": 498, "body": "broken"},
            )

        def rules() -> Manifest:
            retries = {"attempts": chance.randint(1, 3), "retryOn": "connect-failure,refused-stream"}
            route = {"timeout": f"{chance.randint(10, 20)}s", "retries": retries}
            put = {"request": {"set": {"x-soak": str(chance.randrange(100))}}}
            return virtual_service("steady", "steady.default.localhost", {**route, "headers": put})

        return (
            lambda: limiter("limited", "limited", chance.choice((20, 100, NEVER))),
            breaks,
            lambda: outlier_detection("steady", _first("steady"), consecutiveErrors=chance.randint(2, 6)),
            lambda: quota("queued", _first("queued"), chance.choice((100, 1000, NEVER))),
            rules,
        )

    async def _roll(self) -> None:
        """A new revision takes over as soon as it is ready."""
        self._revision += 1
        await self._apply_rolled(())
        key = ObjectKey(SERVICE, "default", "rolled")
        await self._platform.wait_ready(key, READY_SECONDS)

    async def _split(self) -> None:
        """The last two revisions share the traffic."""
        if self._revision < 2:
            return
        percent = self._chance.randint(0, 100)
        entries = ((self._revision - 1, percent), (self._revision, 100 - percent))
        await self._apply_rolled(
            [{"revisionName": f"rolled-{number:05}", "percent": share} for number, share in entries]
        )

    async def _apply_rolled(self, traffic: Any) -> None:
        variables = {"NUMBER": str(self._revision)}
        manifest = service("rolled", annotations=replicas(1), environment=variables, traffic=traffic)
        await self._platform.apply([manifest], images={IMAGE: str(FUNCTIONS / "soak.py")})

    # What there is

    def _ready(self, name: str) -> list[Replica]:
        every = self._platform.cluster.replicas(f"default/{_first(name)}")
        return [replica for replica in every if replica.state is ReplicaState.READY]

    def _has_all(self, name: str) -> bool:
        return len(self._ready(name)) >= REPLICAS

    async def _until(self, reached: Callable[[], bool], what: str) -> None:
        if not await self._hosted.watcher.until(reached, READY_SECONDS):
            raise TimeoutError(f"{what}: not within {READY_SECONDS:g} s")


def _first(name: str) -> str:
    return f"{name}-00001"


def _key(manifest: Manifest) -> ObjectKey:
    return ObjectKey.of(manifest)


# What is left


async def _counts(platform: Hosted) -> dict[str, int]:
    """How many there are of what may leak, by what it is."""
    on = platform.platform
    wheels = (on.server.wheel, on.gateway.timers, on.gateway.prompt_timers)
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "connections": on.server.statistics().connections,
        "timers": sum(wheel.statistics().pending for wheel in wheels),
        "descriptors": len(procfs.descriptors()),
        "processes": len(tree(os.getpid())),
        **await _entries(platform),
    }


async def _entries(platform: Hosted) -> dict[str, int]:
    """Those of tables, which are empty before anything is deployed. Numbers in a repr are sizes of tables."""
    on = platform.platform
    found = {
        "stored objects": sum([len(await on.objects.list(kind)) for kind in OBJECTS]),
        "routed hosts": len(on.gateway.routes.vhosts),
        "autoscaled revisions": on.autoscaler.engine.statistics().revisions,
    }
    for of in (on.gateway, on.gateway.policing):
        found |= {name: int(number) for number, name in re.findall(r"(\d+) ((?!at\b)[a-z ]*[a-z])", repr(of))}
    return found


async def _counted_when_quiet(platform: Hosted, wanted: dict[str, int] | None) -> dict[str, int]:
    """The counts once they are no more than `wanted`, or without it once they have not moved for a while; those of
    the last look when it takes too long."""
    deadline = time.monotonic() + QUIET_SECONDS
    found, since = await _counts(platform), time.monotonic()
    while time.monotonic() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        seen = await _counts(platform)
        if seen != found:
            found, since = seen, time.monotonic()
        if wanted is not None and all(found[name] <= count for name, count in wanted.items()):
            return found
        if wanted is None and time.monotonic() - since > QUIET_SECONDS / 5:
            return found
    return found


# What is reported


def _explained(wrong: list[Wrong], events: Events, log: Path) -> tuple[list[str], list[str]]:
    """Reasons of the requests that a killed replica was answering, and of all others that failed."""
    asked = {each.id: each for each in wrong}
    replica_of: dict[str, tuple[str, str]] = {}
    if asked:
        with log.open() as lines:
            for line in lines:
                found = re.search(r'\?id=(\d{8})"', line)
                if found is not None and found[1] in asked:
                    told = json.loads(line)
                    replica_of[found[1]] = (told.get("replica", ""), told["reason"])
    explained, unexplained = [], []
    for name, each in asked.items():
        replica, logged = replica_of.get(name, ("", "not in the access log"))
        killed_at = events.killed.get(replica)
        if killed_at is not None and each.began <= killed_at + RACE_SECONDS and each.ended >= killed_at:
            explained.append(f"{each.reason} ({logged})")
        else:
            after = "" if killed_at is None else f", began {each.began - killed_at:+.3f} s after its kill"
            told = f"{each.asked} of {each.function} after {each.ended - each.began:.2f} s at {replica or 'none'}"
            unexplained.append(f"{each.reason} ({logged}): {told}{after}")
    return explained, unexplained


def _reasons(explained: list[str]) -> list[str]:
    return [f"soak: {count} x {reason} at killed replicas" for reason, count in Counter(explained).most_common()]


def _rows(
    crowd: Crowd,
    events: Events,
    explained: int,
    unexplained: int,
    before: dict[str, int],
    after: dict[str, int],
    growth: int,
) -> list[Row]:
    sent = crowd.totals.get("sent", 0)
    assert isinstance(sent, int)
    rows = [
        Row("soak: requests", sent, "", goal=">= 1"),
        Row("soak: replicas killed", len(events.killed), ""),
        Row("soak: requests that a killed replica was answering", explained, "failed"),
        Row("soak: requests that failed besides", unexplained, "failed", goal="== 0"),
    ]
    for name in sorted(before.keys() | after.keys()):
        now, then = after.get(name, 0), before.get(name, 0)
        rows.append(Row(f"soak: {name} more than before", max(0, now - then), "", "before", then, "== 0"))
    rows.append(Row("soak: resident memory more than before", growth / 1e6, "MB"))
    return rows

"""What policies cost the gateway: CPU a request with a rate limit, a breaker and outlier detection, and with one
policy more of each kind; beside the gateway without any, and beside nginx and Envoy with the same limit.

All functions are deployed on one platform and have a replica each; only the gateway's own process is accounted,
and of nginx and Envoy their one worker before the replica of the function without policies. What one further limit
or breaker costs is told from four that act together, so that a clock tick is not taken for a policy.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from upwell.runtime.api.client import Client

from . import load, processes, proxies
from .deployed import READY_SECONDS, Up, upwell_up
from .framework import ENVOY, NotInstalled
from .load import Generator, Target
from .machine import pinned, shares
from .manifests import (
    IMAGE,
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
from .request_cpu import CONNECTIONS, WARM_UP_REQUESTS, Sample, Subject, measure
from .table import Result, Row, Skipped
from .waiting import until_current, until_in_force, until_replicas

GOAL: Final = "<= 80"
FURTHER_GOAL: Final = "<= 5"
FURTHER: Final = 4
PLAIN: Final = "plain"
LIMITED: Final = "limited"
POLICED: Final = "policed"


@dataclass(frozen=True, slots=True)
class Further:
    """A kind of policy that stands besides those of POLICED: how many, for a name and a service."""

    service: str
    count: int
    make: Callable[[str, str], Manifest]


def _route(name: str, service: str) -> Manifest:
    rules = {"timeout": "10s", "headers": {"request": {"set": {"x-bench": "1"}}}}
    return virtual_service(name, f"{service}.default.localhost", rules)


FURTHER_KINDS: Final = (
    Further("limits", FURTHER, limiter),
    Further("breakers", FURTHER, lambda name, service: breaker(name, f"{service}-00001")),
    Further("quota", 1, lambda name, service: quota(name, f"{service}-00001")),
    Further("route-rules", 1, _route),
)


def run(plan: Plan) -> Result:
    """Rows for the gateway under policies, for each further one, and beside what others spend."""
    generator = load.find_generator()
    if generator is None:
        return Result(skipped=[Skipped("policies", load.REMEDY)])
    result = Result()
    servers, generators = shares()
    rounds = plan.choose(quick=2, default=5, everything=15)
    with contextlib.ExitStack() as stack:
        with pinned(servers):
            plan.progress("starting servers")
            platform = stack.enter_context(upwell_up(plan.directory / "data", plan.directory / "upwell.log"))
            _deploy(platform)
            subjects = _subjects(platform, plan.choose(quick=5_000, default=20_000))
            subjects |= _beside(plan, stack, platform, subjects[PLAIN].requests, result)
        with pinned(generators):
            for subject in subjects.values():
                generator.run(subject.target, WARM_UP_REQUESTS, CONNECTIONS)
            for number in range(rounds):
                plan.progress(f"round {number + 1} of {rounds}, {len(subjects)} functions and servers")
                everyone = list(subjects.values())
                start = number % len(everyone)
                for subject in (*everyone[start:], *everyone[:start]):  # nobody is always after the same one
                    subject.samples.append(measure(subject, generator))
    result.rows += _rows(subjects)
    result.notes += _notes(subjects, generator)
    return result


def _deploy(platform: Up) -> None:
    names = (PLAIN, LIMITED, POLICED, *(each.service for each in FURTHER_KINDS))
    images = {IMAGE: json.dumps({"path": str(FUNCTIONS / "asgi_hello.py")})}
    services = platform.client.apply([service(name, annotations=replicas(1)) for name in names], images=images)
    until_current(platform.client, services, READY_SECONDS)
    policies = list(_policies())
    platform.client.apply(policies)
    until_in_force(platform.client, policies, READY_SECONDS)


def _policies() -> Iterator[Manifest]:
    yield limiter("one-limit", LIMITED)
    for name in (POLICED, *(each.service for each in FURTHER_KINDS)):
        yield limiter(f"{name}-limit", name)
        yield breaker(f"{name}-breaker", f"{name}-00001")
        yield outlier_detection(f"{name}-outliers", f"{name}-00001")
    for kind in FURTHER_KINDS:
        for number in range(kind.count):
            yield kind.make(f"{kind.service}-{number}", kind.service)


def _subjects(platform: Up, requests: int) -> dict[str, Subject]:
    port = platform.client.platform().port
    names = (PLAIN, LIMITED, POLICED, *(each.service for each in FURTHER_KINDS))
    return {
        name: Subject(name, platform.pid, Target(f"{name}.default.localhost", port), requests) for name in names
    }


def _beside(
    plan: Plan, stack: contextlib.ExitStack, platform: Up, requests: int, result: Result
) -> dict[str, Subject]:
    """nginx and Envoy, those of them that are there."""
    replica = replica_socket(platform.client, PLAIN)
    found: dict[str, Subject] = {}
    binary = proxies.nginx_binary()
    if binary is None:
        result.skipped.append(Skipped("policies: beside nginx", proxies.NGINX_REMEDY))
    else:
        pid, port = stack.enter_context(proxies.nginx(binary, plan.directory, replica))
        found["nginx"] = _proxy("nginx, limit_req", pid, port, requests)
    try:
        pid, port = stack.enter_context(proxies.envoy(plan.directory, replica))
        found["envoy"] = _proxy("Envoy, local_ratelimit", pid, port, requests)
    except NotInstalled as error:
        result.skipped.append(Skipped("policies: beside Envoy", f"{ENVOY.remedy} ({error})"))
    except processes.DidNotStart as error:
        result.skipped.append(Skipped("policies: beside Envoy", f"it does not run on this machine: {error}"))
    return found


def _proxy(name: str, pid: int, port: int, requests: int) -> Subject:
    return Subject(name, pid, Target(f"{PLAIN}.default.localhost", port), requests)


def replica_socket(client: Client, name: str) -> str:
    """The Unix socket of the one replica of a service's first revision."""
    (replica,) = until_replicas(client, f"{name}-00001", 1, READY_SECONDS)
    path = processes.unix_listener(replica["pid"])
    assert path is not None, f"the replica of {name} listens on no Unix socket"
    return path


def _root(sample: Sample) -> float:
    return sample.root


def _rows(subjects: dict[str, Subject]) -> list[Row]:
    spent = {name: subject.middle(_root) for name, subject in subjects.items()}
    others = [subject for name, subject in subjects.items() if name in ("nginx", "envoy")]
    policed, limited, without = spent[POLICED], spent[LIMITED], "gateway without policies"
    whole = "gateway, a rate limit, a breaker and outlier detection"
    rows = [_row(whole, policed, without, spent[PLAIN], GOAL)]
    rows += [_row(whole, policed, other.name, other.middle(_root)) for other in others]
    rows.append(_row("gateway, that rate limit alone", limited, without, spent[PLAIN]))
    rows += [_row("gateway, that rate limit alone", limited, other.name, other.middle(_root)) for other in others]
    for kind in FURTHER_KINDS:
        more = (spent[kind.service] - policed) / kind.count
        rows.append(_row(f"each further policy: {kind.service}", more, "those three", policed, FURTHER_GOAL))
    return rows


def _row(name: str, value: float, baseline: str, baseline_value: float, goal: str | None = None) -> Row:
    return Row(f"policies: {name}", value, "us/request", baseline, baseline_value, goal)


def _notes(subjects: dict[str, Subject], generator: Generator) -> list[str]:
    plain = subjects[PLAIN]
    least = ", ".join(f"{subject.name} {subject.least(_root):.1f}" for subject in subjects.values())
    return [
        f"policies: {generator.name}; medians of {len(plain.samples)} rounds of {plain.requests} requests, "
        f"{CONNECTIONS} keep-alive connections; all write an access log to a file; replicas are not counted",
        f"policies: quietest rounds, us/request: {least}",
    ]

"""Replicas as balancing sees them, without a platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from upwell.functions.api.traffic_policy import TrafficPolicy
from upwell.runtime.http.messages import RequestHead
from upwell.runtime.mesh.load_balancing import Balancing
from upwell.runtime.mesh.outlier_detection import Ejection
from upwell.runtime.mesh.request import PolicyRequest

RULE = "DestinationRule default/httpbin"
ARTICLE = {"baseEjectionTime": "20s", "consecutiveErrors": 3, "interval": "5s", "maxEjectionPercent": 100}


@dataclass(eq=False)
class StandIn:
    """A replica."""

    name: str
    locality: str = ""
    in_flight: int = 0
    ready_at: float = 0.0
    suspensions: int = 0


def replicas(*localities: str) -> list[StandIn]:
    """One for each locality, named a, b, c ..."""
    return [StandIn(chr(ord("a") + index), locality) for index, locality in enumerate(localities)]


@dataclass
class Draws:
    """Numbers in turn, where a random one is asked for."""

    numbers: Sequence[float] = (0.0,)
    drawn: int = 0

    def __call__(self) -> float:
        self.drawn += 1
        return self.numbers[(self.drawn - 1) % len(self.numbers)]


def spaced(count: int) -> Draws:
    """`count` numbers from 0 to below 1 at equal distances."""
    return Draws([(index + 0.5) / count for index in range(count)])


def balancing(policy: Mapping[str, Any], *, random: Draws | None = None, **options: Any) -> Balancing:
    return Balancing(RULE, TrafficPolicy.model_validate(dict(policy)), random=random or spaced(7), **options)


@dataclass
class Revision:
    """A revision under a rule: its replicas, and time that passes with sweeps in it."""

    balancing: Balancing
    hosts: list[StandIn]
    now: float = 0.0
    swept: float = 0.0
    returned: list[tuple[float, str]] = field(default_factory=list)
    """When each replica came back."""

    def pick(self, request: PolicyRequest | None = None, *, concurrency: int = 0, rotation: int = 0) -> str | None:
        found = self.balancing.pick(self.hosts, concurrency, rotation, request, self.now)
        return None if found is None else found.name

    def picks(self, count: int, *, concurrency: int = 0) -> list[str | None]:
        return [self.pick(concurrency=concurrency, rotation=rotation) for rotation in range(count)]

    def answer(self, name: str, *statuses: int) -> Ejection | None:
        """The replica answers; what the last of them led to."""
        found = None
        for status in statuses:
            self.pick()
            found = self.balancing.answered(name, status, False, self.now)
        return found

    def fail(self, name: str, times: int = 1) -> Ejection | None:
        """The replica cannot be reached."""
        found = None
        for _ in range(times):
            self.pick()
            found = self.balancing.answered(name, None, True, self.now)
        return found

    def wait(self, seconds: float) -> None:
        """Time passes, with a sweep whenever one is due."""
        interval = self.balancing.sweep_interval
        assert interval is not None
        end = self.now + seconds
        while self.swept + interval <= end + 1e-9:
            self.swept += interval
            self.returned += [(self.swept, name) for name in self.balancing.sweep(self.swept)]
        self.now = end

    @property
    def out(self) -> set[str]:
        return set(self.balancing.ejected())

    @property
    def is_unhealthy(self) -> bool:
        return self.balancing.unhealthy(self.hosts)


def under(outlier: Mapping[str, Any], *localities: str, **options: Any) -> Revision:
    """A revision with a replica in each locality, under a rule that has outlier detection."""
    return Revision(balancing({"outlierDetection": dict(outlier)}, **options), replicas(*localities))


def request(
    headers: Mapping[str, str] | None = None, *, target: str = "/", client: str = "10.0.0.1"
) -> PolicyRequest:
    fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    head = RequestHead(b"GET", target.encode(), b"1.1", fields, dict(fields))
    return PolicyRequest(head, client=client, connection=client)

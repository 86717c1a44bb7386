"""What a policy is to the gateway: one object with one call, in a chain of its kind.

A filter is asked once for each request and answers at once: nothing (the request goes on), a `Refusal` (an answer
in the replica's place) or a `Hold` (it waits for the policy). Times are the clock's monotonic seconds. Filters
belong to the gateway's loop, keep bounded state and do no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.request import PolicyRequest


class Cause(enum.Enum):
    """Why a policy answered, as counters, logs, `upwell load` and `upwell topology` tell it."""

    ANSWERED = "answered"
    """The rule is to answer: a redirect, a preflight, a direct response."""
    LIMITED = "limited"
    """There was no token, or no turn in time."""
    BROKEN = "broken"
    """A circuit is open, or every replica is ejected."""
    FAILED = "failed"
    """A fault that was asked for, or a deadline that cannot be met."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in the place of the replica's."""

    policy: str
    """`KIND NAMESPACE/NAME` of the object that did it."""
    cause: Cause
    flag: str
    """Envoy's response flag: RL (rate limited), UO (circuit open), UH (no healthy replica), FI, DI, ..."""
    reason: str
    """What was exceeded, for logs: in words, without anything that the client sent."""
    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class Hold(Protocol):
    """A request that waits for a policy."""

    def wait(self, released: Callable[[Refusal | None], None]) -> None:
        """Call `released` once, later and never from within this call: with None when the request goes on."""
        ...

    def cancel(self) -> None:
        """The request is over meanwhile: its client or its deadline could not wait. `released` is not called."""
        ...


class Filter(Protocol):
    """A policy where it stands in a chain."""

    @property
    def policy(self) -> str:
        """`KIND NAMESPACE/NAME` of the object behind it."""
        ...

    def admit(self, request: PolicyRequest, now: float) -> Refusal | Hold | None:
        """What becomes of a request that has come this far."""
        ...


class Observer(Protocol):
    """A filter that learns from answers."""

    def answered(self, request: PolicyRequest, status: int, seconds: float, now: float) -> None:
        """The head of a replica's answer has come, or its failure: then `status` is what the client is told.

        `seconds` run from the moment the request was sent to a replica: the wait for one is left out. Called at
        most once for a request that was admitted, never for one that a policy refused.
        """
        ...

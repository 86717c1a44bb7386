"""One circuit of an ASMCircuitBreaker: closed, or open for a while when too many answers are slow or fail.

A sliding window counts the answers. The circuit opens when more than `max_slow_requests` of them took longer than
`slow_request_rt`, or when more than `error_percent` of them are 5xx (`gateway_error_percent`: 502, 503 or 504).
The percentages wait for `min_request_amount` answers; slow requests do not. After `break_duration` it is closed
again, at once and for all, and counts from nothing; there is no half-open state. Answers that come while it is
open count nowhere. `average_request_rt` is what the service usually takes: no documented condition reads it, nor
does this.

The window moves in WINDOW_STEPS steps, so an answer counts for the whole window to within a thousandth of it, and
no more than that many numbers are kept however many answers come.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from upwell.functions.api.asm import BreakerConfig, CircuitBreakerConfig
from upwell.runtime.mesh.matchers import HeaderMatch
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest

WINDOW_STEPS: Final = 1000
DEFAULT_STATUS: Final = 503
DEFAULT_BODY: Final = "circuit breaker open"
FLAG: Final = "UO"
MOST_TRANSITIONS: Final = 64
"""That a breaker remembers."""
GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
# Of a step: what floats may fall short of the instant that is meant.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Transition:
    """A circuit that changed its state, and why."""

    is_open: bool
    at: float
    """Monotonic seconds."""
    until: float | None
    """When an open circuit closes."""
    reason: str


@dataclass(slots=True)
class Counts:
    """Answers, and how many of them were what."""

    requests: int = 0
    slow: int = 0
    errors: int = 0
    gateway_errors: int = 0

    def add(self, slow: bool, failed: bool, gateway_error: bool) -> None:
        """Count an answer."""
        self.requests += 1
        if slow:
            self.slow += 1
        if failed:
            self.errors += 1
            self.gateway_errors += gateway_error

    def take_away(self, other: Counts) -> None:
        """Count what the other has counted no longer."""
        self.requests -= other.requests
        self.slow -= other.slow
        self.errors -= other.errors
        self.gateway_errors -= other.gateway_errors


class SlidingCounts:
    """The answers of the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._steps_per_second = WINDOW_STEPS / seconds
        self._steps: deque[tuple[int, Counts]] = deque()
        self.total = Counts()
        self._leaves_at = math.inf
        """Before which nothing becomes too old."""

    def advance(self, now: float) -> bool:
        """Leave out what is too old at `now`; whether that was anything."""
        if now < self._leaves_at:
            return False
        steps = self._steps
        oldest = self._step(now) - WINDOW_STEPS
        moved = False
        while steps and steps[0][0] <= oldest:
            self.total.take_away(steps.popleft()[1])
            moved = True
        self._leaves_at = self._end_of(steps[0][0]) if steps else math.inf
        return moved

    def add(self, slow: bool, failed: bool, gateway_error: bool, now: float) -> None:
        """Count an answer that came at `now`, which `advance` was told."""
        step = self._step(now)
        steps = self._steps
        if not steps:
            self._leaves_at = self._end_of(step)
        if not steps or steps[-1][0] < step:
            steps.append((step, Counts()))
        steps[-1][1].add(slow, failed, gateway_error)
        self.total.add(slow, failed, gateway_error)

    def clear(self) -> None:
        """Forget all."""
        self._steps.clear()
        self._leaves_at = math.inf
        self.total = Counts()

    def __len__(self) -> int:
        """Numbers that are kept: WINDOW_STEPS at most."""
        return len(self._steps)

    def _end_of(self, step: int) -> float:
        """A little before the instant from which a step is too old."""
        return (step + WINDOW_STEPS - 2 * _ROUNDING) / self._steps_per_second

    def _step(self, now: float) -> int:
        return int(now * self._steps_per_second + _ROUNDING)


class Circuit:
    """The decision, without requests: told of answers, it says when it opens and closes."""

    def __init__(self, settings: BreakerConfig) -> None:
        self._settings = settings
        self._window_text = f"{settings.window_seconds:g} s"
        self._break_seconds = settings.break_seconds
        self._slow_seconds = settings.slow_seconds
        self._counts = SlidingCounts(settings.window_seconds)
        self.is_open = False
        self.until = 0.0
        self.reason = ""
        """Why it is open, or was the last time."""

    @property
    def counts(self) -> Counts:
        """The answers in the window when it was last looked at."""
        return self._counts.total

    def advance(self, now: float) -> Sequence[Transition]:
        """Let time pass. It may open a circuit: when successes leave the window, the share of errors rises."""
        if not self.is_open:
            return self._opening(now) if self._counts.advance(now) else ()
        if now < self.until:
            return ()
        self.is_open = False
        return (Transition(False, self.until, None, f"{self._break_seconds:g} s are over"),)

    def answered(self, status: int, seconds: float, now: float) -> Sequence[Transition]:
        """Count an answer: its status, and how long it took."""
        before = self.advance(now)
        if self.is_open:
            return before
        slow = self._slow_seconds is not None and seconds > self._slow_seconds
        failed = 500 <= status <= 599
        self._counts.add(slow, failed, status in GATEWAY_ERRORS, now)
        if slow or failed or before:
            return (*before, *self._opening(now))
        # A success only lowers every share; but it may be the one that makes them count.
        least = self._settings.min_request_amount or 0
        return self._opening(now) if self._counts.total.requests == least else ()

    def _opening(self, now: float) -> Sequence[Transition]:
        reason = self._exceeded()
        if reason is None:
            return ()
        self.is_open = True
        self.until = now + self._break_seconds
        self.reason = reason
        self._counts.clear()
        return (Transition(True, now, self.until, reason),)

    def _exceeded(self) -> str | None:
        """Which condition is met, with its values."""
        settings, counts = self._settings, self._counts.total
        most_slow = settings.max_slow_requests
        if most_slow is not None and counts.slow > most_slow:
            slow = f"{counts.slow} requests over {settings.slow_seconds:g} s in {self._window_text}"
            return f"{slow}, {most_slow} are allowed"
        if counts.requests < (settings.min_request_amount or 0):
            return None
        percents = (
            (settings.error_percent, counts.errors, "5xx"),
            (settings.gateway_error_percent, counts.gateway_errors, "502, 503 or 504"),
        )
        for percent, failed, what in percents:
            if percent is not None and failed * 100 > percent.value * counts.requests:
                share = f"{failed} of {counts.requests} requests in {self._window_text} were answered {what}"
                return f"{share}, {percent.value} % are allowed"
        return None


def _remember_only(transition: Transition) -> None:
    """For a breaker whose transitions nobody waits for."""


class CircuitBreaker:
    """A filter that refuses while its circuit is open, and an observer of the answers that open it."""

    def __init__(
        self,
        policy: str,
        config: CircuitBreakerConfig,
        changed: Callable[[Transition], None] = _remember_only,
    ) -> None:
        custom = config.breaker_config.custom_response
        added = (custom.header_to_add if custom else None) or {}
        fields = {"content-type": "text/plain"} | {name.lower(): value for name, value in added.items()}
        self._headers = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        self._status = (custom.status_code if custom else None) or DEFAULT_STATUS
        self._body = ((custom.body if custom else None) or DEFAULT_BODY).encode()
        self._policy = policy
        self._concerns = tuple(HeaderMatch(each) for each in config.route_headers)
        self._changed = changed
        self._circuit = Circuit(config.breaker_config)
        self._transitions: deque[Transition] = deque(maxlen=MOST_TRANSITIONS)

    @property
    def policy(self) -> str:
        """`KIND NAMESPACE/NAME` of the object behind it."""
        return self._policy

    @property
    def transitions(self) -> Sequence[Transition]:
        """The last ones, oldest first."""
        return tuple(self._transitions)

    def is_open(self, now: float) -> bool:
        """Whether a request at `now` would be refused."""
        return self._circuit.is_open and now < self._circuit.until

    def admit(self, request: PolicyRequest, now: float) -> Refusal | None:
        """Refuse while the circuit is open."""
        if not self._is_concerned(request):
            return None
        circuit = self._circuit
        for transition in circuit.advance(now):
            self._note(transition)
        if not circuit.is_open:
            return None
        reason = f"circuit open: {circuit.reason}"
        return Refusal(self._policy, Cause.BROKEN, FLAG, reason, self._status, list(self._headers), self._body)

    def answered(self, request: PolicyRequest, status: int, seconds: float, now: float) -> None:
        """Count the answer to a request that was admitted."""
        if self._is_concerned(request):
            for transition in self._circuit.answered(status, seconds, now):
                self._note(transition)

    def _is_concerned(self, request: PolicyRequest) -> bool:
        return not self._concerns or all(concern.matches(request) for concern in self._concerns)

    def _note(self, transition: Transition) -> None:
        self._transitions.append(transition)
        self._changed(transition)

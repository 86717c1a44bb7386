"""Whether a request is tried again, and after which pause: Envoy's conditions, back-off and budget.

A pause is random, from nothing up to the base interval (25 ms unless set), which doubles with each retry up to ten
times the base: retries of many requests that failed together come apart. A budget bounds the retries in flight to
one destination by a share of the requests in flight there, so that retries cannot multiply a service's trouble.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from upwell.functions.api.durations import seconds
from upwell.functions.api.http_routes import HTTPRetry
from upwell.functions.api.http_values import conditions_of
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.percentage import Random

BASE_INTERVAL: Final = 0.025
"""Seconds: Envoy's own."""
DEFAULT_ATTEMPTS: Final = 2
DEFAULT_CONDITIONS: Final = frozenset({"connect-failure", "refused-stream", "unavailable", "cancelled"})
"""Istio's, where a route says nothing; 503 was among them up to 1.23."""
_MOST_INTERVALS: Final = 10
_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_GRPC_CONDITIONS: Final = {
    b"1": "cancelled",
    b"4": "deadline-exceeded",
    b"8": "resource-exhausted",
    b"13": "internal",
    b"14": "unavailable",
}


class Failure(enum.Enum):
    """Why an attempt ended without the head of an answer."""

    CONNECT = "no connection could be made"
    REFUSED = "the replica refused the request before it read it"
    RESET = "the connection ended without an answer"
    TIMEOUT = "the attempt's time was over"
    OVERFLOW = "too many requests were under way or waiting"


class RetryDecision(NamedTuple):
    """What becomes of a failed attempt, and why."""

    delay: float | None
    """Seconds until the next attempt; None when this was the last."""
    reason: str


class RetryBudget:
    """How many retries may be in flight to one destination (a DestinationRule's `retryBudget`).

    The gateway counts: `requests` are those in flight there, first attempts and retries; `retries` those of them,
    pauses included, that are no first attempts.
    """

    __slots__ = ("min_concurrency", "percent", "requests", "retries")

    def __init__(self, percent: float = 20.0, min_concurrency: int = 3) -> None:
        self.percent = percent
        self.min_concurrency = min_concurrency
        self.requests = 0
        self.retries = 0

    @property
    def limit(self) -> int:
        """Retries that may be in flight now."""
        return max(self.min_concurrency, int(self.percent * self.requests / 100))

    @property
    def is_spent(self) -> bool:
        """Whether no further retry may begin."""
        return self.retries >= self.limit


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The `retries` of a route."""

    attempts: int = DEFAULT_ATTEMPTS
    """Retries, beyond the first attempt."""
    conditions: frozenset[str] = DEFAULT_CONDITIONS
    statuses: frozenset[int] = frozenset()
    per_try_timeout: float | None = None
    """Seconds for one attempt, from its sending to the head of its answer; None: the route's timeout alone."""
    base_interval: float = BASE_INTERVAL
    avoids_previous: bool = True
    """Choose a replica that has not been tried for this request, while there is one."""
    prefers_other_zones: bool = False
    """Leave the zones that have been tried (`retryRemoteLocalities`)."""

    @classmethod
    def of(cls, rule: HTTPRetry | None) -> RetryPolicy | None:
        """What a route says: None when it turns retries off; Istio's default where it says nothing."""
        if rule is None:
            return cls()
        if not rule.attempts:
            return None
        named = DEFAULT_CONDITIONS if not rule.retry_on else frozenset(conditions_of(rule.retry_on))
        numbers = frozenset(each for each in named if each.isdigit() and len(each) == 3)
        return cls(
            rule.attempts,
            named - numbers,
            frozenset(int(each) for each in numbers),
            None if rule.per_try_timeout is None else seconds(rule.per_try_timeout),
            BASE_INTERVAL if rule.backoff is None else seconds(rule.backoff),
            rule.retry_ignore_previous_hosts is not False,
            bool(rule.retry_remote_localities),
        )

    def decide(
        self,
        made: int,
        condition: str | None,
        random: Random,
        *,
        replayable: bool = True,
        budget: RetryBudget | None = None,
    ) -> RetryDecision:
        """Whether to try again after `made` retries, when the last attempt met `condition`.

        `condition` is what `condition_of` or `condition_of_failure` found, None when none of them holds.
        `replayable` says whether the whole body is still held; without that nothing is tried again.
        """
        if condition is None:
            return RetryDecision(None, "no condition for a retry holds")
        if made >= self.attempts:
            return RetryDecision(None, f"{condition}, and all {self.attempts} retries were made")
        if not replayable:
            return RetryDecision(None, f"{condition}, but the body is no longer held")
        if budget is not None and budget.is_spent:
            spent = f"{budget.retries} retries are in flight, and the budget allows {budget.limit}"
            return RetryDecision(None, f"{condition}, but {spent}")
        return RetryDecision(self.pause(made, random), condition)

    def pause(self, made: int, random: Random) -> float:
        """Seconds before the next attempt, after `made` retries."""
        intervals = min(1 << min(made, 16), _MOST_INTERVALS)
        return random() * intervals * self.base_interval

    def condition_of(self, status: int, headers: Headers) -> str | None:
        """The condition that an answer meets, None when it stands."""
        conditions = self.conditions
        grpc_status = b""
        for name, value in headers:
            if name == b"grpc-status":
                grpc_status = value
            elif name == b"x-envoy-ratelimited":
                # An answer of a limiter is not to be tried again unless that is what is asked for.
                return "envoy-ratelimited" if "envoy-ratelimited" in conditions else None
        if status >= 500:
            if "5xx" in conditions:
                return f"5xx: status {status}"
            if status in _GATEWAY_ERRORS and "gateway-error" in conditions:
                return f"gateway-error: status {status}"
        if status == 409 and "retriable-4xx" in conditions:
            return "retriable-4xx: status 409"
        if status in self.statuses:
            return f"status {status}"
        if grpc_status and _GRPC_CONDITIONS.get(grpc_status) in conditions:
            return f"{_GRPC_CONDITIONS[grpc_status]}: gRPC status {grpc_status.decode()}"
        return None

    def condition_of_failure(self, failure: Failure, *, sent: bool = True) -> str | None:
        """The condition that an attempt without an answer meets; `sent` says whether any of it was sent."""
        if failure is Failure.OVERFLOW:
            return None
        conditions = self.conditions
        if failure is Failure.CONNECT and "connect-failure" in conditions:
            return f"connect-failure: {failure.value}"
        if not sent and "reset-before-request" in conditions:
            return f"reset-before-request: {failure.value}"
        for name in ("reset", "5xx", "gateway-error"):
            if name in conditions:
                return f"{name}: {failure.value}"
        if failure is Failure.REFUSED and "refused-stream" in conditions:
            return f"refused-stream: {failure.value}"
        return None

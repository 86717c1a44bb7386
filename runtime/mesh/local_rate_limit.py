"""One limit of an ASMLocalRateLimiter: Envoy's local rate limit, as its descriptors and default bucket work.

Overrides that match a request are asked in the order of their rates, the slowest first, and each gives a token;
the first that is empty refuses, and what the others gave stays taken. Then the base's bucket is asked too, so
that an override can tighten a limit but not loosen it (Envoy's default, `always_consume_default_token_bucket`).

Buckets are made full at the first request. Those that count each connection by itself live as long as that
connection does.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final
from weakref import WeakKeyDictionary

from upwell.functions.api.asm import LimitConfig, LocalRateLimiterConfig
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.matchers import HeaderMatch, Matcher, request_match
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.mesh.token_bucket import ContinuousBucket, SteppedBucket, TokenBucket

DEFAULT_STATUS: Final = 429
DEFAULT_BODY: Final = "local_rate_limited"
LEAST_STATUS: Final = 400
"""Envoy answers with the default status where a lower one is configured."""
FLAG: Final = "RL"
_HEADERS: Final = {"x-local-rate-limit": "true", "x-envoy-ratelimited": "true", "content-type": "text/plain"}
"""ASM's mark and stock Envoy's: clients look for either."""


class _Rule:
    """One limit: whom it counts and what it answers without a token."""

    def __init__(self, limit: LimitConfig, base: LimitConfig, match: Matcher | None, place: str) -> None:
        self.match = match
        self.quota = limit.quota
        self.interval = limit.fill_interval.nanoseconds
        self.is_own = bool(limit.per_downstream_connection or base.per_downstream_connection)
        whose = " from one connection" if self.is_own else ""
        self.reason = f"more than {limit.quota} requests{whose} in {self.interval / 1e9:g} s ({place})"
        status = limit.status or base.status or DEFAULT_STATUS
        self.status = status if status >= LEAST_STATUS else DEFAULT_STATUS
        self.body = (limit.custom_response_body or base.custom_response_body or DEFAULT_BODY).encode()
        self.headers = _headers(base, limit)

    @property
    def rate(self) -> Fraction:
        """Tokens in a nanosecond."""
        return Fraction(self.quota, self.interval)


def _headers(*limits: LimitConfig) -> Headers:
    """The default fields and those that are added, the later limit's in the place of the earlier's."""
    fields = dict(_HEADERS)
    for limit in limits:
        fields |= {name.lower(): value for name, value in limit.added_headers.items()}
    return [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]


class LocalRateLimit:
    """A filter that takes a token for each request, or refuses it."""

    def __init__(self, policy: str, config: LocalRateLimiterConfig, *, stepped: bool) -> None:
        base = _Rule(config.limit, config.limit, None, "limit")
        overrides = [
            _Rule(each.limit, config.limit, request_match(each.request_match), f"limit_overrides[{index}].limit")
            for index, each in enumerate(config.limit_overrides or ())
        ]
        self._policy = policy
        self._concerns = tuple(HeaderMatch(each) for each in config.route_headers)
        self._rules = (*sorted(overrides, key=lambda rule: rule.rate), base)
        self._any_own = any(rule.is_own for rule in self._rules)
        self._kind = SteppedBucket if stepped else ContinuousBucket
        self._shared: tuple[tuple[_Rule, TokenBucket], ...] = ()
        self._own: WeakKeyDictionary[object, Sequence[tuple[_Rule, TokenBucket]]] = WeakKeyDictionary()

    @property
    def policy(self) -> str:
        """`KIND NAMESPACE/NAME` of the object behind it."""
        return self._policy

    @property
    def connections(self) -> int:
        """How many connections have buckets of their own."""
        return len(self._own)

    def admit(self, request: PolicyRequest, now: float) -> Refusal | None:
        """Take the tokens that a request needs at `now`; the refusal of the first bucket without one."""
        for concern in self._concerns:
            if not concern.matches(request):
                return None
        shared = self._shared
        if not shared:
            shared = self._shared = tuple((rule, self._bucket(rule, now)) for rule in self._rules)
        buckets = self._buckets_of(request.connection, now) if self._any_own else shared
        for rule, bucket in buckets:
            if (rule.match is None or rule.match.matches(request)) and not bucket.take(now):
                return self._refusal(rule)
        return None

    def _buckets_of(self, connection: object, now: float) -> Sequence[tuple[_Rule, TokenBucket]]:
        """A connection's buckets: of rules that count all together, the shared ones."""
        if connection is None:
            return self._shared
        buckets = self._own.get(connection)
        if buckets is None:
            buckets = tuple(
                (rule, self._bucket(rule, now) if rule.is_own else bucket) for rule, bucket in self._shared
            )
            self._own[connection] = buckets
        return buckets

    def _bucket(self, rule: _Rule, now: float) -> TokenBucket:
        return self._kind(rule.quota, rule.interval, now)

    def _refusal(self, rule: _Rule) -> Refusal:
        headers = list(rule.headers)
        return Refusal(self._policy, Cause.LIMITED, FLAG, rule.reason, rule.status, headers, rule.body)

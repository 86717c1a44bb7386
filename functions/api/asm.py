"""`istio.alibabacloud.com`: ASMLocalRateLimiter and ASMCircuitBreaker, policies of Alibaba Cloud Service Mesh.

Times come as seconds from properties; what was written stays as it was.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from upwell.functions.api.asm_scope import AsmPolicy, PolicyConfig, PolicySpec, warnings_of
from upwell.functions.api.durations import Duration, PositiveDuration, seconds
from upwell.functions.api.http_values import FIELD_NAME, FIELD_VALUE, FRAMING
from upwell.functions.api.meta import invalid
from upwell.functions.api.policies import SnakeModel
from upwell.functions.api.request_match import RequestMatcher

SHORTEST_FILL: Final = 50_000_000
"""Nanoseconds: Envoy takes no shorter `fill_interval`."""
LONGEST_WINDOW: Final = 12.0
"""Seconds of a breaker's `window_size`."""
_SECOND: Final = 1_000_000_000


def _check_fields(fields: dict[str, str]) -> dict[str, str]:
    for name, value in fields.items():
        if not FIELD_NAME.fullmatch(name):
            raise invalid(f"{name!r} cannot be the name of a header field", name)
        if name.lower() in FRAMING:
            raise invalid("may not be set: it frames the message", name)
        if not FIELD_VALUE.fullmatch(value):
            raise invalid("the value holds what no header field may hold", name)
    return fields


HeaderFields = Annotated[dict[str, str], Field(min_length=1), AfterValidator(_check_fields)]
StatusCode = Annotated[int, Field(ge=200, le=599)]
Count = Annotated[int, Field(ge=0, le=2**32 - 1)]


class FillInterval(SnakeModel):
    """A time as seconds and nanoseconds."""

    seconds: Annotated[int, Field(ge=0, le=315_576_000_000)] | None = None
    nanos: Annotated[int, Field(ge=0, lt=_SECOND)] | None = None

    @property
    def nanoseconds(self) -> int:
        """The whole of it."""
        return (self.seconds or 0) * _SECOND + (self.nanos or 0)

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.nanoseconds < SHORTEST_FILL:
            raise invalid("must be 50 ms or more: Envoy fills no bucket more often")
        return self


class LimitConfig(SnakeModel):
    """A bucket of `quota` tokens, filled with as many in each `fill_interval`; and the answer without one."""

    fill_interval: FillInterval
    quota: Annotated[int, Field(ge=1, le=2**31 - 1)]
    per_downstream_connection: bool | None = None
    custom_response_body: Annotated[str, Field(min_length=1)] | None = None
    response_header_to_add: HeaderFields | None = None
    """Deprecated spelling of `response_headers_to_add`."""
    response_headers_to_add: HeaderFields | None = None
    status: StatusCode | None = None

    @property
    def added_headers(self) -> dict[str, str]:
        """The fields of both spellings; of one that both have, the current spelling's."""
        return {**(self.response_header_to_add or {}), **(self.response_headers_to_add or {})}


class LimitOverride(SnakeModel):
    """A bucket of their own for requests that match: they need a token from it and one from the base's too."""

    request_match: RequestMatcher
    limit: LimitConfig


class LocalRateLimiterConfig(PolicyConfig):
    """One limit."""

    limit: LimitConfig
    limit_overrides: list[LimitOverride] | None = None

    @field_validator("limit_overrides")
    @classmethod
    def _check_duplicates(cls, overrides: list[LimitOverride] | None) -> list[LimitOverride] | None:
        seen: dict[str, int] = {}
        for index, override in enumerate(overrides or ()):
            key = override.request_match.model_dump_json()
            if key in seen:
                raise invalid(f"matches the same as limit_overrides[{seen[key]}]", index, "request_match")
            seen[key] = index
        return overrides

    @model_validator(mode="after")
    def _check_multiples(self) -> Self:
        base = self.limit.fill_interval.nanoseconds
        for index, override in enumerate(self.limit_overrides or ()):
            if override.limit.fill_interval.nanoseconds % base:
                path = ("limit_overrides", index, "limit", "fill_interval")
                raise invalid("must be a whole multiple of limit.fill_interval", *path)
        return self

    @property
    def header_names(self) -> frozenset[str]:
        """The header fields that are read to decide, in lower case."""
        matches = (each.request_match.header_match or () for each in self.limit_overrides or ())
        return super().header_names | {header.name.lower() for headers in matches for header in headers}

    def warnings_at(self, place: str) -> list[str]:
        """What to warn of; `place` is the config's own path."""
        overrides = enumerate(self.limit_overrides or ())
        limits = [(f"{place}.limit", self.limit)]
        limits += [(f"{place}.limit_overrides[{index}].limit", each.limit) for index, each in overrides]
        found = super().warnings_at(place)
        for path, limit in limits:
            if limit.response_header_to_add:
                found.append(f"{path}.response_header_to_add is deprecated: use response_headers_to_add")
            if limit.status is not None and limit.status < 400:
                found.append(f"{path}.status: the answer gets 429, as Envoy does where it is less than 400")
        return found


class ASMLocalRateLimiterSpec(PolicySpec):
    """Limits, and where they act."""

    configs: Annotated[list[LocalRateLimiterConfig], Field(min_length=1)]


class ASMLocalRateLimiter(AsmPolicy):
    """Limits that a gateway keeps by itself."""

    KIND: ClassVar[str] = "ASMLocalRateLimiter"

    spec: ASMLocalRateLimiterSpec

    def warnings(self) -> list[str]:
        return warnings_of(self.spec.configs)


class Percent(SnakeModel):
    """A share of the requests in a window."""

    value: Annotated[int, Field(ge=0, le=100)]


class CustomResponse(SnakeModel):
    """The answer while a circuit is open; what is not given is that of the default answer."""

    status_code: StatusCode | None = None
    header_to_add: HeaderFields | None = None
    body: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        _check_some(self, "status_code, header_to_add, body")
        return self


class BreakerConfig(SnakeModel):
    """When a circuit opens, for how long, and what is answered meanwhile."""

    window_size: PositiveDuration | None = None
    break_duration: PositiveDuration | None = None
    slow_request_rt: Duration | None = None
    average_request_rt: Duration | None = None
    """What the service usually takes: a description of it, which no documented condition reads."""
    max_slow_requests: Count | None = None
    error_percent: Percent | None = None
    gateway_error_percent: Percent | None = None
    min_request_amount: Count | None = None
    custom_response: CustomResponse | None = None

    @field_validator("window_size")
    @classmethod
    def _check_window(cls, text: str | None) -> str | None:
        if text is not None and seconds(text) > LONGEST_WINDOW:
            raise invalid(f"{text!r} is too long: a window has 12s at most")
        return text

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        _check_some(self, "slow_request_rt, error_percent, ...")
        return self

    @property
    def window_seconds(self) -> float:
        """The span over which requests are counted."""
        return seconds(self.window_size or "10s")

    @property
    def break_seconds(self) -> float:
        """How long the circuit stays open."""
        return seconds(self.break_duration or "30s")

    @property
    def slow_seconds(self) -> float | None:
        """A request that takes longer is slow."""
        return None if self.slow_request_rt is None else seconds(self.slow_request_rt)

    def warnings_at(self, place: str) -> list[str]:
        """What has no effect; `place` is its own path."""
        found = []
        if self.average_request_rt is not None:
            found.append(f"{place}.average_request_rt has no effect: no condition is documented that reads it")
        if (self.slow_request_rt is None) != (self.max_slow_requests is None):
            missing = "slow_request_rt" if self.slow_request_rt is None else "max_slow_requests"
            found.append(f"{place}: slow requests have no effect without {missing}")
        percents = [each for each in (self.error_percent, self.gateway_error_percent) if each is not None]
        if self.min_request_amount and not percents:
            found.append(f"{place}.min_request_amount has no effect: it concerns error_percent, which is not set")
        if any(each.value == 100 for each in percents):
            found.append(f"{place}: a percentage of 100 has no effect, since no share is above it")
        return found


def _check_some(model: SnakeModel, names: str) -> None:
    if all(getattr(model, name) is None for name in type(model).model_fields):
        raise invalid(f"at least one field must be set: {names}")


class CircuitBreakerConfig(PolicyConfig):
    """One circuit."""

    breaker_config: BreakerConfig

    def warnings_at(self, place: str) -> list[str]:
        """What to warn of; `place` is the config's own path."""
        return super().warnings_at(place) + self.breaker_config.warnings_at(f"{place}.breaker_config")


class ASMCircuitBreakerSpec(PolicySpec):
    """Circuits, and where they act."""

    configs: Annotated[list[CircuitBreakerConfig], Field(min_length=1)]


class ASMCircuitBreaker(AsmPolicy):
    """Circuits that a gateway keeps by itself."""

    KIND: ClassVar[str] = "ASMCircuitBreaker"

    spec: ASMCircuitBreakerSpec

    def warnings(self) -> list[str]:
        return warnings_of(self.spec.configs)

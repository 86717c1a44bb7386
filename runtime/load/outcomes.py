"""What became of a request, and why, as far as an answer shows it.

Our gateway says it in a header. Other proxies leave signs: the status 429, and the headers by which Envoy and
policies written for it mark an answer of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Final

Fields = Sequence[tuple[bytes, bytes]]


class Outcome(StrEnum):
    """Why a request ended as it did."""

    SUCCEEDED = "succeeded"
    """Answered with 2xx or 3xx."""
    LIMITED = "limited"
    """A rate or a quota was used up."""
    BROKEN = "broken"
    """A circuit was open, or too much was under way."""
    FAILED = "failed"
    """No answer, or one that tells of an error: 5xx, and 4xx that no policy gave."""


CAUSE: Final = b"x-upwell-policy-cause"
REJECTED_BY: Final = b"x-upwell-rejected-by"
_SIGNS: Final[Mapping[bytes, Outcome]] = {
    b"x-envoy-ratelimited": Outcome.LIMITED,
    b"x-local-rate-limit": Outcome.LIMITED,
    b"x-envoy-overloaded": Outcome.BROKEN,
    b"x-envoy-overload": Outcome.BROKEN,
    b"x-envoy-circuitbreak": Outcome.BROKEN,
}
TELLING: Final = frozenset({CAUSE, REJECTED_BY, *_SIGNS})
"""Header fields, in lower case, that `outcome_of` reads."""
_BY_CAUSE: Final = {outcome.value.encode(): outcome for outcome in Outcome}
_BY_POLICY: Final[Mapping[bytes, Outcome]] = {
    b"ASMLocalRateLimiter": Outcome.LIMITED,
    b"QuotaSchedulingPolicy": Outcome.LIMITED,
    b"ASMCircuitBreaker": Outcome.BROKEN,
    b"DestinationRule": Outcome.BROKEN,
}
_TOO_MANY: Final = HTTPStatus.TOO_MANY_REQUESTS.value
_KNOWN: Final = frozenset(status.value for status in HTTPStatus)


def outcome_of(status: int, telling: Fields = ()) -> Outcome:
    """Of an answer with this status and these of its TELLING fields, names in lower case."""
    if telling:
        fields = dict(telling)
        said = _said(fields)
        if said is not None:
            return said
    if status < 400:
        return Outcome.SUCCEEDED
    if status == _TOO_MANY:
        return Outcome.LIMITED
    # Nobody but a policy answers with a status below 500 that stands in no register, such as 498.
    return Outcome.BROKEN if status < 500 and status not in _KNOWN else Outcome.FAILED


def _said(fields: Mapping[bytes, bytes]) -> Outcome | None:
    cause = _BY_CAUSE.get(fields.get(CAUSE, b""))
    if cause is not None:
        return cause
    if REJECTED_BY in fields:
        policy, _, _ = fields[REJECTED_BY].partition(b" ")
        return _BY_POLICY.get(policy)
    return next((outcome for sign, outcome in _SIGNS.items() if sign in fields), None)

"""Why an answer is what it is."""

from __future__ import annotations

import pytest

from upwell.runtime.load.outcomes import Outcome, outcome_of


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SUCCEEDED),
        (204, Outcome.SUCCEEDED),
        (302, Outcome.SUCCEEDED),
        (404, Outcome.FAILED),
        (429, Outcome.LIMITED),
        (498, Outcome.BROKEN),
        (499, Outcome.BROKEN),
        (500, Outcome.FAILED),
        (503, Outcome.FAILED),
        (598, Outcome.FAILED),
    ],
)
def test_a_status_alone_tells_what_it_can(status: int, outcome: Outcome) -> None:
    assert outcome_of(status) is outcome


@pytest.mark.parametrize(
    ("status", "field", "outcome"),
    [
        (503, (b"x-upwell-policy-cause", b"limited"), Outcome.LIMITED),
        (503, (b"x-upwell-policy-cause", b"broken"), Outcome.BROKEN),
        (429, (b"x-upwell-policy-cause", b"failed"), Outcome.FAILED),
        (301, (b"x-upwell-policy-cause", b"answered"), Outcome.SUCCEEDED),
        (429, (b"x-upwell-rejected-by", b"ASMCircuitBreaker default/httpbin"), Outcome.BROKEN),
        (503, (b"x-upwell-rejected-by", b"QuotaSchedulingPolicy default/httpbin"), Outcome.LIMITED),
        (503, (b"x-upwell-rejected-by", b"queue_full"), Outcome.FAILED),
        (503, (b"x-envoy-ratelimited", b"true"), Outcome.LIMITED),
        (403, (b"x-local-rate-limit", b"true"), Outcome.LIMITED),
        (503, (b"x-envoy-overloaded", b"true"), Outcome.BROKEN),
        (503, (b"x-envoy-overload", b"true"), Outcome.BROKEN),
        (499, (b"x-envoy-circuitbreak", b"true"), Outcome.BROKEN),
    ],
)
def test_a_header_tells_more_than_the_status(status: int, field: tuple[bytes, bytes], outcome: Outcome) -> None:
    assert outcome_of(status, [field]) is outcome


def test_our_gateways_word_counts_before_the_signs_of_others() -> None:
    fields = [(b"x-envoy-ratelimited", b"true"), (b"x-upwell-policy-cause", b"broken")]
    assert outcome_of(429, fields) is Outcome.BROKEN

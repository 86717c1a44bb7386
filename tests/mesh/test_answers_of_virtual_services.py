"""Answers that a VirtualService gives in a function's place: redirects, direct responses, preflights, faults."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.virtual_service import POLICY, Numbers, found, plan, request, routes, to_httpbin
from upwell.functions.api.http_values import Percent
from upwell.runtime.mesh.percentage import happens, share_of
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest


def answer(rule: dict[str, Any], asked: PolicyRequest) -> Refusal:
    given = plan(rule, asked).answer
    assert given is not None
    assert (given.policy, given.cause) == (POLICY, Cause.ANSWERED)
    return given


def location(
    redirect: dict[str, Any], target: bytes = b"/a?q=1", host: bytes = b"h.com:8080", **asked: Any
) -> str:
    given = answer({"redirect": redirect}, request(target, host=host, **asked))
    return dict(given.headers)[b"location"].decode()


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        ({"uri": "/new"}, "http://h.com:8080/new?q=1"),
        ({"uri": "/new?p=2"}, "http://h.com:8080/new?p=2"),
        ({"authority": "other.com"}, "http://other.com/a?q=1"),
        ({"scheme": "https"}, "https://h.com:8080/a?q=1"),
        ({"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT"}, "https://h.com/a?q=1"),
        ({"authority": "other.com", "derivePort": "FROM_REQUEST_PORT"}, "http://other.com:8080/a?q=1"),
        ({"scheme": "https", "port": 443}, "https://h.com/a?q=1"),
        ({"port": 80}, "http://h.com/a?q=1"),
        ({"scheme": "https", "port": 8443}, "https://h.com:8443/a?q=1"),
    ],
)
def test_a_redirect_changes_what_it_names_and_keeps_the_rest(redirect: dict[str, Any], expected: str) -> None:
    assert location(redirect) == expected


def test_the_first_schemes_own_port_means_nothing_to_the_second() -> None:
    assert location({"scheme": "https"}, host=b"h.com:80") == "https://h.com/a?q=1"
    assert location({"uri": "/n"}, host=b"h.com:443", scheme="https") == "https://h.com/n?q=1"


def test_an_absolute_target_names_the_host() -> None:
    asked = request(b"http://h.com:81/a", host=b"h.com:81")
    asked.head.origin_target = b"/a"
    assert dict(answer({"redirect": {"scheme": "https"}}, asked).headers)[b"location"] == b"https://h.com:81/a"


@pytest.mark.parametrize(("code", "status"), [(None, 301), (302, 302), (303, 303), (307, 307), (308, 308)])
def test_a_redirect_is_permanent_unless_it_says_otherwise(code: int | None, status: int) -> None:
    rule = {"redirect": {"uri": "/", **({} if code is None else {"redirectCode": code})}}
    assert answer(rule, request()).status == status


def test_a_direct_response_has_its_status_its_body_and_the_routes_fields() -> None:
    rule = {
        "directResponse": {"status": 503, "body": {"string": "later"}},
        "headers": {"response": {"set": {"retry-after": "5"}}},
    }
    given = answer(rule, request())
    assert (given.status, given.body) == (503, b"later")
    assert given.headers == [(b"content-type", b"text/plain"), (b"retry-after", b"5")]


def test_a_body_may_be_bytes_in_base64_or_none() -> None:
    assert answer({"directResponse": {"status": 200, "body": {"bytes": "AAE="}}}, request()).body == b"\x00\x01"
    assert answer({"directResponse": {"status": 204}}, request()).headers == []


CORS = {
    "allowOrigins": [{"exact": "https://a.com"}, {"prefix": "https://b."}, {"regex": "https://[a-z]+[.]c[.]com"}],
    "allowMethods": ["GET", "PUT"],
    "allowHeaders": ["x-token", "x-id"],
    "exposeHeaders": ["x-trace"],
    "maxAge": "10m",
    "allowCredentials": True,
}


def preflight(origin: bytes, *fields: tuple[bytes, bytes]) -> PolicyRequest:
    asked = (b"access-control-request-method", b"PUT")
    return request(b"/x", (b"origin", origin), asked, *fields, method=b"OPTIONS")


@pytest.mark.parametrize("origin", [b"https://a.com", b"https://b.org", b"https://www.c.com"])
def test_a_preflight_from_an_allowed_origin_is_answered(origin: bytes) -> None:
    given = answer(to_httpbin(corsPolicy=CORS), preflight(origin))
    assert (given.status, given.body) == (200, b"")
    assert given.headers == [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-allow-methods", b"GET,PUT"),
        (b"access-control-allow-headers", b"x-token,x-id"),
        (b"access-control-max-age", b"600"),
    ]


def test_a_star_allows_what_was_asked_for() -> None:
    policy = {"allowOrigins": [{"exact": "*"}], "allowMethods": ["*"], "allowHeaders": ["*"]}
    given = answer(
        to_httpbin(corsPolicy=policy), preflight(b"x", (b"access-control-request-headers", b"x-a, x-b"))
    )
    assert given.headers == [
        (b"access-control-allow-origin", b"x"),
        (b"access-control-allow-methods", b"PUT"),
        (b"access-control-allow-headers", b"x-a, x-b"),
    ]


def test_a_preflight_from_another_origin_goes_on_unless_it_is_to_be_ignored() -> None:
    asked = preflight(b"https://evil.com")
    assert plan(to_httpbin(corsPolicy=CORS), asked).answer is None
    given = answer(to_httpbin(corsPolicy={**CORS, "unmatchedPreflights": "IGNORE"}), asked)
    assert given.status == 200
    assert b"access-control-allow-origin" not in dict(given.headers)


@pytest.mark.parametrize(
    "asked",
    [
        request(b"/x", (b"origin", b"https://a.com"), method=b"OPTIONS"),
        request(b"/x", (b"access-control-request-method", b"PUT"), method=b"OPTIONS"),
        request(b"/x", (b"origin", b"https://a.com"), (b"access-control-request-method", b"PUT")),
    ],
)
def test_what_is_no_preflight_goes_on(asked: PolicyRequest) -> None:
    assert plan(to_httpbin(corsPolicy=CORS), asked).answer is None


def test_the_answer_to_an_allowed_origin_names_it_in_the_functions_place() -> None:
    asked = plan(to_httpbin(corsPolicy=CORS), request(b"/x", (b"origin", b"https://a.com")))
    assert asked.response_headers([(b"access-control-allow-origin", b"*"), (b"x", b"1")]) == [
        (b"x", b"1"),
        (b"access-control-allow-origin", b"https://a.com"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-trace"),
    ]
    for other in ((b"origin", b"https://evil.com"), (b"origin", b""), (b"x", b"1")):
        assert plan(to_httpbin(corsPolicy=CORS), request(b"/x", other)).response_headers([]) == []


def test_what_no_function_answers_knows_no_origins() -> None:
    given = answer({"redirect": {"uri": "/new"}, "corsPolicy": CORS}, preflight(b"https://a.com"))
    assert given.status == 301


def fault(rule: dict[str, Any], *numbers: float, asked: PolicyRequest | None = None) -> tuple[float, int | None]:
    decided = plan(to_httpbin(fault=rule), asked, *numbers).fault
    return decided.delay, None if decided.refusal is None else decided.refusal.status


DELAY = {"fixedDelay": "1.5s", "percentage": {"value": 10}}
ABORT = {"httpStatus": 418, "percentage": {"value": 20}}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0.05, 0.15, (1.5, 418)), (0.05, 0.25, (1.5, None)), (0.15, 0.15, (0.0, 418)), (0.15, 0.25, (0.0, None))],
)
def test_delay_and_abort_are_drawn_independently(
    first: float, second: float, expected: tuple[float, int | None]
) -> None:
    assert fault({"delay": DELAY, "abort": ABORT}, first, second) == expected


def test_without_a_percentage_there_is_no_fault_and_with_all_of_them_no_draw() -> None:
    assert fault({"delay": {"fixedDelay": "1s"}, "abort": {"httpStatus": 500}}) == (0.0, None)
    assert fault({"delay": {"fixedDelay": "1s", "percent": 100}}) == (1.0, None)
    assert fault({"abort": {"httpStatus": 500, "percentage": {"value": 100}}}) == (0.0, 500)


def test_an_abort_is_told_as_envoy_tells_it() -> None:
    given = plan(to_httpbin(fault={"abort": {"httpStatus": 500, "percentage": {"value": 100}}})).fault.refusal
    assert given is not None
    assert (given.policy, given.cause, given.flag, given.body) == (
        POLICY,
        Cause.FAILED,
        "FI",
        b"fault filter abort",
    )


def test_a_grpc_call_gets_its_status_in_a_field() -> None:
    rule = {"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 100}}}
    called = request(b"/pkg.Service/Call", (b"content-type", b"application/grpc+proto"), method=b"POST")
    given = plan(to_httpbin(fault=rule), called).fault.refusal
    assert given is not None
    assert given.status == 200
    assert dict(given.headers)[b"grpc-status"] == b"14"
    assert fault(rule) == (0.0, 200)


def test_an_aborted_request_of_another_origin_may_be_read_there() -> None:
    asked = plan(to_httpbin(corsPolicy=CORS), request(b"/x", (b"origin", b"https://a.com")))
    assert dict(asked.refusal_headers([]))[b"access-control-allow-origin"] == b"https://a.com"


TENTH = {"value": 10}


@given(st.integers(0, 10_000), st.integers(0, 999_999))
def test_percentages_are_exact_to_hundredths(hundredths: int, drawn: int) -> None:
    share = share_of(Percent(value=hundredths / 100), 0.0)
    assert share == hundredths * 100
    assert happens(share, lambda: (drawn + 0.5) / 1_000_000) == (drawn < share)


@pytest.mark.parametrize(
    ("rule", "numbers", "expected"),
    [
        ({"mirror": {"host": "a"}}, (), ["a.default"]),
        ({"mirror": {"host": "a"}, "mirrorPercentage": {"value": 25}}, (0.2,), ["a.default"]),
        ({"mirror": {"host": "a"}, "mirrorPercentage": {"value": 25}}, (0.25,), []),
        ({"mirror": {"host": "a"}, "mirrorPercentage": {"value": 0}}, (), []),
        ({"mirror": {"host": "a"}, "mirrorPercent": 50}, (0.4,), ["a.default"]),
        (
            {
                "mirrors": [
                    {"destination": {"host": "a"}, "percentage": {"value": 10}},
                    {"destination": {"host": "b"}},
                ]
            },
            (0.5,),
            ["b.default"],
        ),
    ],
)
def test_copies_are_made_of_a_share_of_the_requests(
    rule: dict[str, Any], numbers: tuple[float, ...], expected: list[str]
) -> None:
    assert [each.host for each in plan(to_httpbin(**rule), None, *numbers).mirrors] == expected


def test_a_plan_says_timeout_and_retries_of_its_route() -> None:
    asked = plan(to_httpbin(timeout="250ms", retries={"attempts": 0}))
    assert (asked.timeout, asked.retries) == (0.25, None)
    default = found(routes(to_httpbin()), request()).plan(request(), Numbers())
    assert default.timeout is None
    assert default.retries is not None
    assert default.retries.attempts == 2

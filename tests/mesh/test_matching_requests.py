"""Alibaba's matchers: header fields, pseudo headers, the query, the caller's address."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.asm import request
from upwell.functions.api.request_match import RequestMatcher
from upwell.runtime.mesh.matchers import request_match
from upwell.runtime.mesh.request import PolicyRequest


def matches(asked: PolicyRequest, **matcher: Any) -> bool:
    return request_match(RequestMatcher.model_validate(matcher)).matches(asked)


def header(asked: PolicyRequest, **matcher: Any) -> bool:
    return matches(asked, header_match=[{"name": "X-User-Type", **matcher}])


VIP = request(headers={"x-user-type": "vip-gold"})
PLAIN = request(headers={"x-user-type": ""})
NOBODY = request()


@pytest.mark.parametrize(
    ("condition", "vip", "plain", "nobody"),
    [
        ({}, True, True, False),
        ({"present_match": True}, True, True, False),
        ({"present_match": False}, False, False, True),
        ({"present_match": True, "invert_match": True}, False, False, True),
        ({"present_match": False, "invert_match": True}, True, True, False),
        ({"exact_match": "vip-gold"}, True, False, False),
        ({"exact_match": "vip"}, False, False, False),
        ({"exact_match": "vip-gold", "present_match": False}, True, False, False),
        ({"exact_match": "vip-gold", "invert_match": True}, False, True, False),
        ({"exact_match": ""}, True, True, False),
        ({"is_exact_match_empty": True}, False, True, False),
        ({"is_exact_match_empty": True, "invert_match": True}, True, False, False),
        ({"prefix_match": "vip"}, True, False, False),
        ({"suffix_match": "gold"}, True, False, False),
        ({"suffix_match": "vip"}, False, False, False),
        ({"regex_match": "vip-.*"}, True, False, False),
        ({"regex_match": "vip"}, False, False, False),
        ({"regex_match": "vip", "invert_match": True}, True, True, False),
    ],
)
def test_a_header_matches_as_envoy_says(condition: dict[str, Any], vip: bool, plain: bool, nobody: bool) -> None:
    assert [header(asked, **condition) for asked in (VIP, PLAIN, NOBODY)] == [vip, plain, nobody]


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        (":path", {"prefix_match": "/headers"}),
        (":path", {"exact_match": "/headers?a=1"}),
        (":method", {"exact_match": "POST"}),
        (":authority", {"suffix_match": ".example.com"}),
        (":scheme", {"exact_match": "http"}),
    ],
)
def test_parts_of_the_request_line_are_matched_as_headers(name: str, condition: dict[str, Any]) -> None:
    posted = request("/headers?a=1", method="POST")
    assert matches(posted, header_match=[{"name": name, **condition}])
    assert not matches(posted, header_match=[{"name": name, **condition, "invert_match": True}])


def test_text_beyond_ascii_is_matched_as_it_was_written() -> None:
    asked = request(headers={"x-user-type": "Zürich"})
    assert header(asked, exact_match="Zürich")
    assert header(asked, regex_match="Z.rich")


def test_one_event_of_a_batch_is_enough() -> None:
    batch = request(events=({"type": "order"}, {"type": "refund"}))
    assert matches(batch, header_match=[{"name": "ce-type", "exact_match": "refund"}])
    assert not matches(batch, header_match=[{"name": "ce-type", "exact_match": "other"}])


QUERY = request("/find?name=Anna%20Lee&empty=&name=Bob")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"name": "name", "exact_match": "Anna Lee"}, True),
        ({"name": "name", "exact_match": "Bob"}, False),
        ({"name": "name", "exact_match": "anna lee"}, False),
        ({"name": "name", "exact_match": "anna LEE", "ignore_case": True}, True),
        ({"name": "name", "prefix_match": "anna", "ignore_case": True}, True),
        ({"name": "name", "suffix_match": "LEE", "ignore_case": True}, True),
        ({"name": "name", "contains_match": "A L", "ignore_case": True}, True),
        ({"name": "name", "contains_match": "a L"}, True),
        ({"name": "name", "regex_match": "Anna .+"}, True),
        ({"name": "name", "regex_match": "Anna"}, False),
        ({"name": "empty", "present_match": True}, True),
        ({"name": "none", "present_match": True}, False),
        ({"name": "none", "present_match": False}, True),
        ({"name": "empty", "present_match": False}, False),
        ({"name": "none", "prefix_match": "a"}, False),
        ({"name": "Name", "present_match": True}, False),
    ],
)
def test_a_parameter_of_the_query_matches_by_its_first_value(condition: dict[str, Any], expected: bool) -> None:
    assert matches(QUERY, query_match=[condition]) is expected


@pytest.mark.parametrize(
    ("matcher", "client", "expected"),
    [
        ({"address": "10.1.2.3"}, "10.1.2.3", True),
        ({"address": "10.1.2.3"}, "10.1.2.4", False),
        ({"address": "10.1.2.3", "v4_prefix_mask_len": 24}, "10.1.2.200", True),
        ({"address": "10.1.2.3", "v4_prefix_mask_len": 24}, "10.1.3.3", False),
        ({"address": "10.1.2.3", "v4_prefix_mask_len": 0}, "203.0.113.9", True),
        ({"address": "10.1.2.3", "v4_prefix_mask_len": 0}, "::1", False),
        ({"address": "10.1.2.3", "v6_prefix_mask_len": 8}, "10.1.2.4", False),
        ({"address": "10.1.2.3", "v4_prefix_mask_len": 24}, "::ffff:10.1.2.9", True),
        ({"address": "2001:db8::1", "v6_prefix_mask_len": 32}, "2001:db8:ffff::9", True),
        ({"address": "2001:db8::1", "v6_prefix_mask_len": 32}, "2001:db9::9", False),
        ({"address": "fe80::1"}, "fe80::1%eth0", True),
        ({"address": "2001:db8::1"}, "10.1.2.3", False),
        ({"address": "10.1.2.3"}, "", False),
        ({"address": "10.1.2.3"}, "unix", False),
    ],
)
def test_an_address_matches_all_that_begin_with_its_bits(
    matcher: dict[str, Any], client: str, expected: bool
) -> None:
    assert matches(request(client=client), remote_address=matcher) is expected


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32), st.integers(0, 128))
def test_masks_agree_with_the_networks_of_the_standard_library(own: Any, client: Any, v4: int, v6: int) -> None:
    matcher = {"address": str(own), "v4_prefix_mask_len": v4, "v6_prefix_mask_len": v6}
    model = RequestMatcher.model_validate({"remote_address": matcher})
    assert model.remote_address is not None
    expected = client in model.remote_address.network
    if "." not in str(client) or client.version == 4:
        assert request_match(model).matches(request(client=str(client))) is expected


def test_all_conditions_must_be_met_together() -> None:
    matcher: dict[str, Any] = {
        "header_match": [
            {"name": "x-user-type", "prefix_match": "vip"},
            {"name": ":method", "exact_match": "GET"},
        ],
        "query_match": [{"name": "page", "exact_match": "1"}],
        "remote_address": {"address": "192.0.2.0", "v4_prefix_mask_len": 24},
    }
    vip = {"x-user-type": "vip"}
    assert matches(request("/?page=1", vip), **matcher)
    assert not matches(request("/?page=2", vip), **matcher)
    assert not matches(request("/?page=1", vip, method="PUT"), **matcher)
    assert not matches(request("/?page=1", vip, client="198.51.100.1"), **matcher)
    assert not matches(request("/?page=1"), **matcher)

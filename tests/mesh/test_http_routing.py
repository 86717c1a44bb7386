"""Which route of a VirtualService a request takes, and where that sends it."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.virtual_service import TO_HTTPBIN, Numbers, found, plan, request, routes, to_httpbin
from upwell.runtime.mesh.http_match import Sender

GET = request()


def matches(match: dict[str, Any], **asked: Any) -> bool:
    fields = asked.pop("fields", ())
    target = asked.pop("target", b"/get")
    return routes(to_httpbin(match=[match])).find(request(target, *fields, **asked)) is not None


@pytest.mark.parametrize(
    ("uri", "target", "expected"),
    [
        ({"exact": "/get"}, b"/get?a=1", True),
        ({"exact": "/get"}, b"/get/", False),
        ({"exact": "/get"}, b"/GET", False),
        ({"prefix": "/g"}, b"/get", True),
        ({"prefix": "/get?a"}, b"/get?a=1", False),
        ({"regex": "/[a-z]+"}, b"/get?a=1", True),
        ({"regex": "/g"}, b"/get", False),
        ({}, b"/", True),
    ],
)
def test_a_uri_is_the_path_without_its_query(uri: dict[str, str], target: bytes, expected: bool) -> None:
    assert matches({"uri": uri}, target=target) == expected


def test_case_is_ignored_in_exact_and_prefix_matches_of_the_uri_alone() -> None:
    assert matches({"uri": {"exact": "/GET"}, "ignoreUriCase": True})
    assert matches({"uri": {"prefix": "/GE"}, "ignoreUriCase": True})
    assert not matches({"uri": {"regex": "/GET"}, "ignoreUriCase": True})
    assert not matches({"method": {"exact": "get"}, "ignoreUriCase": True})


@pytest.mark.parametrize(
    ("authority", "host", "expected"),
    [
        ({"exact": "Example.com"}, b"example.COM", True),
        ({"exact": "example.com"}, b"example.com:8080", True),
        ({"exact": "example.com:8080"}, b"example.com:8080", True),
        ({"prefix": "exam"}, b"example.com:8080", True),
        ({"exact": "example.com"}, b"www.example.com", False),
    ],
)
def test_a_host_is_matched_with_its_port_or_without(
    authority: dict[str, str], host: bytes, expected: bool
) -> None:
    assert matches({"authority": authority}, host=host) == expected


def test_headers_are_found_by_their_names_in_any_case() -> None:
    fields = ((b"x-user", b"guest"), (b"x-empty", b""))
    assert matches({"headers": {"X-User": {"exact": "guest"}}}, fields=fields)
    assert matches({"headers": {"x-user": {}}}, fields=fields)
    assert matches({"headers": {"x-user": {"regex": "*"}}}, fields=fields)
    assert matches({"headers": {"x-empty": {}}}, fields=fields)
    assert not matches({"headers": {"x-other": {}}}, fields=fields)
    assert not matches({"headers": {"x-other": {"exact": ""}}}, fields=fields)


def test_headers_that_a_request_must_be_without() -> None:
    fields = ((b"x-user", b"guest"),)
    assert matches({"withoutHeaders": {"x-user": {"exact": "admin"}}}, fields=fields)
    assert not matches({"withoutHeaders": {"x-user": {"prefix": "gu"}}}, fields=fields)
    assert not matches({"withoutHeaders": {"x-user": {}}}, fields=fields)
    assert matches({"withoutHeaders": {"x-other": {}}}, fields=fields)
    # A field that is not there counts as an empty one.
    assert not matches({"withoutHeaders": {"x-other": {"exact": ""}}}, fields=fields)


def test_query_parameters_are_matched_decoded() -> None:
    assert matches({"queryParams": {"q": {"exact": "a b"}}}, target=b"/?q=a%20b&q=2")
    assert matches({"queryParams": {"q": {}}}, target=b"/?q=")
    assert not matches({"queryParams": {"q": {}}}, target=b"/?p=q")


def test_of_a_batch_of_events_one_that_matches_is_enough() -> None:
    events = ({"type": "a"}, {"type": "b"})
    assert matches({"headers": {"ce-type": {"exact": "b"}}}, events=events)
    assert not matches({"withoutHeaders": {"ce-type": {"exact": "b"}}}, events=events)
    assert routes(to_httpbin(match=[{"headers": {"ce-type": {}}}])).header_names == {"ce-type"}


def test_all_of_an_entry_and_any_of_the_entries() -> None:
    both = {"method": {"exact": "GET"}, "scheme": {"exact": "https"}}
    assert not matches(both)
    assert matches(both, scheme="https")
    assert routes(to_httpbin(match=[both, {"uri": {"exact": "/get"}}])).find(GET) is not None


def test_the_first_route_that_matches_is_taken_and_none_is_none() -> None:
    rules = routes(
        to_httpbin(name="first", match=[{"uri": {"prefix": "/get"}, "name": "by-path"}]),
        to_httpbin(name="second", match=[{"method": {"exact": "GET"}}]),
    )
    assert found(rules, GET).name == "first.by-path"
    assert found(rules, request(b"/other")).name == "second"
    assert rules.find(request(b"/other", method=b"POST")) is None


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"port": 80}, True),
        ({"port": 8012}, True),
        ({"port": 9999}, False),
        ({"sourceLabels": {"istio": "ingressgateway"}}, True),
        ({"sourceLabels": {"istio": "ingressgateway"}, "sourceNamespace": "knative-serving"}, False),
        ({"sourceLabels": {"app": "productpage"}}, False),
        ({"sourceNamespace": "istio-system"}, True),
        ({"sourceNamespace": "default"}, False),
        ({"gateways": ["any/other"], "sourceLabels": {"app": "productpage"}}, True),
    ],
)
def test_what_is_asked_of_the_gateway_is_known_beforehand(match: dict[str, Any], expected: bool) -> None:
    assert matches(match) == expected


def test_a_gateway_with_names_of_its_own_takes_the_rules_for_those() -> None:
    sender = Sender(gateways=frozenset({"default/public"}))
    assert routes(to_httpbin(), gateways=["public"], sender=sender).find(GET) is not None
    assert routes(to_httpbin(), gateways=["other/public"], sender=sender).find(GET) is None
    assert routes(to_httpbin(), sender=sender).find(GET) is None  # for the mesh alone
    inner = routes(to_httpbin(match=[{"gateways": ["mesh"]}]), gateways=["mesh", "public"], sender=sender)
    assert inner.find(GET) is None


def test_a_route_that_another_object_should_hold_takes_no_request() -> None:
    rules = routes({"delegate": {"name": "other"}}, to_httpbin(name="own"))
    assert found(rules, GET).name == "own"


def test_hosts_of_destinations_are_told_as_seen_from_the_rule() -> None:
    rule = {"route": [{"destination": {"host": "shadow", "subset": "v1", "port": {"number": 8080}}}]}
    destination = plan(rule).destination
    assert destination is not None
    assert (destination.host, destination.subset, destination.port) == ("shadow.default", "v1", 8080)
    full = plan({"route": [{"destination": {"host": "a.other.svc.cluster.local"}}]}).destination
    assert full is not None
    assert full.host == "a.other"


def test_an_only_destination_needs_no_weight_and_draws_no_number() -> None:
    assert plan({"route": [{**TO_HTTPBIN, "weight": 0}]}).destination is not None


def test_a_destination_without_a_weight_gets_nothing_beside_others() -> None:
    rule = {"route": [TO_HTTPBIN, {"destination": {"host": "b"}, "weight": 1}]}
    destination = plan(rule, GET, 0.0).destination
    assert destination is not None
    assert destination.host == "b.default"


@given(st.lists(st.integers(0, 20), min_size=2, max_size=5).filter(any), st.integers(0, 999))
def test_shares_follow_the_weights_exactly(weights: list[int], seed: int) -> None:
    rule = {
        "route": [{"destination": {"host": f"h{index}"}, "weight": each} for index, each in enumerate(weights)]
    }
    route = found(routes(rule), GET)
    total = sum(weights)
    drawn = Random(seed).sample(range(total), total)
    counted = Counter(route.pick(Numbers((number + 0.5) / total)).host for number in drawn)
    assert counted == Counter({f"h{index}.default": each for index, each in enumerate(weights) if each})

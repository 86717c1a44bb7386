"""Heads as a VirtualService changes them: the path, the Host, fields of requests and of answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.virtual_service import TO_HTTPBIN, plan, request, to_httpbin
from upwell.functions.api.http_routes import HeaderOperations
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.header_operations import apply_all, header_change
from upwell.runtime.mesh.mirror import shadow_authority


def rewritten(rewrite: dict[str, Any], target: bytes, match: dict[str, Any] | None = None) -> bytes | None:
    rule = to_httpbin(rewrite=rewrite, **({} if match is None else {"match": [match]}))
    return plan(rule, request(target)).changes.target


@pytest.mark.parametrize(
    ("uri", "match", "target", "expected"),
    [
        ("/v2", {"uri": {"prefix": "/api"}}, b"/api/x?q=/api", b"/v2/x?q=/api"),
        ("/", {"uri": {"prefix": "/api/"}}, b"/api/x", b"/x"),
        ("/", {"uri": {"prefix": "/api"}}, b"/api/x", b"//x"),
        ("/", {"uri": {"prefix": "/api"}}, b"/api", b"/"),
        ("/v2", {"uri": {"prefix": "/API"}, "ignoreUriCase": True}, b"/api/x", b"/v2/x"),
        ("/new", {"uri": {"exact": "/old"}}, b"/old?q=1", b"/new?q=1"),
        ("/new", {"uri": {"regex": "/o.*"}}, b"/old/x?q=1", b"/new?q=1"),
        ("/v2", None, b"/x", b"/v2x"),
        ("/v2/", {"method": {"exact": "GET"}}, b"/x", b"/v2/x"),
        ("v2", {"uri": {"prefix": "/api"}}, b"/api/x", b"/v2/x"),
    ],
)
def test_a_uri_takes_the_place_of_what_matched(
    uri: str, match: dict[str, Any] | None, target: bytes, expected: bytes
) -> None:
    assert rewritten({"uri": uri}, target, match) == expected


@pytest.mark.parametrize(
    ("match", "rewrite", "target", "expected"),
    [
        ("^/service/([^/]+)(/.*)$", r"\2/instance/\1", b"/service/foo/v1/api", b"/v1/api/instance/foo"),
        ("one", "two", b"/xxx/one/yyy/one/zzz?one", b"/xxx/two/yyy/two/zzz?one"),
        ("^(.*?)one(.*)$", r"\1two\2", b"/xxx/one/yyy/one/zzz", b"/xxx/two/yyy/one/zzz"),
        ("(?i)/xxx/", "/yyy/", b"/aaa/XxX/bbb", b"/aaa/yyy/bbb"),
        ("/a(b)?", r"/c\1\\", b"/a", b"/c\\"),
        ("/no", "/yes", b"/other", b"/other"),
    ],
)
def test_a_regular_expression_replaces_each_part_that_it_matches(
    match: str, rewrite: str, target: bytes, expected: bytes
) -> None:
    assert rewritten({"uriRegexRewrite": {"match": match, "rewrite": rewrite}}, target) == expected


def test_a_function_can_learn_the_path_that_was_asked_for() -> None:
    changes = plan(to_httpbin(rewrite={"uri": "/v2"}), request(b"/x?q=1")).changes
    assert changes.headers([(b"x-envoy-original-path", b"/forged")]) == [(b"x-envoy-original-path", b"/x?q=1")]


def test_a_request_to_the_server_as_a_whole_has_no_path_to_rewrite() -> None:
    assert rewritten({"uri": "/v2"}, b"*") == b"*"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (to_httpbin(rewrite={"authority": "inner"}), b"inner"),
        (to_httpbin(headers={"request": {"set": {"Host": "inner:81"}}}), b"inner:81"),
        (to_httpbin(headers={"request": {"add": {":authority": "inner"}}}), b"inner"),
        ({"route": [{**TO_HTTPBIN, "headers": {"request": {"set": {"host": "inner"}}}}]}, b"inner"),
        (
            {
                "route": [{**TO_HTTPBIN, "headers": {"request": {"set": {"host": "a"}}}}],
                "rewrite": {"authority": "b"},
            },
            b"b",
        ),
        (to_httpbin(), None),
    ],
)
def test_the_host_is_rewritten_the_routes_own_word_counting_most(
    rule: dict[str, Any], expected: bytes | None
) -> None:
    changes = plan(rule).changes
    assert changes.authority == expected
    assert changes.headers([]) == []


def test_fields_are_removed_then_set_then_added_to() -> None:
    operations = {"remove": ["X-A", "x-b"], "set": {"x-a": "1", "X-C": "2"}, "add": {"x-c": "3", "x-d": "4"}}
    came = [(b"x-a", b"old"), (b"x-b", b"old"), (b"x-c", b"old"), (b"x-d", b"old")]
    expected = [(b"x-d", b"old"), (b"x-a", b"1"), (b"x-c", b"2"), (b"x-c", b"3"), (b"x-d", b"4")]
    asked = plan(to_httpbin(headers={"request": operations, "response": operations}))
    assert asked.changes.headers(came) == expected
    assert asked.response_headers(came) == expected


def test_an_only_destination_has_the_last_word_and_a_weighted_one_the_first() -> None:
    own = {**TO_HTTPBIN, "weight": 1, "headers": {"request": {"set": {"x": "destination"}}}}
    headers = {"request": {"set": {"x": "route"}}}
    only = plan({"route": [own], "headers": headers})
    weighted = plan({"route": [own, {**TO_HTTPBIN, "weight": 1}], "headers": headers}, None, 0.0)
    assert only.changes.headers([]) == [(b"x", b"destination")]
    assert weighted.changes.headers([]) == [(b"x", b"route")]


def test_a_route_that_changes_nothing_says_so() -> None:
    asked = plan(to_httpbin())
    came = [(b"x", b"1")]
    assert (asked.changes.target, asked.changes.authority, asked.changes.headers(came)) == (None, None, came)
    assert asked.response_headers(came) == came


NAMES = st.sampled_from(["x-a", "x-b", "x-c", "X-A"])
VALUES = st.text(alphabet="abc", max_size=3)
OPERATIONS = st.fixed_dictionaries(
    {},
    optional={
        "set": st.dictionaries(NAMES, VALUES),
        "add": st.dictionaries(NAMES, VALUES),
        "remove": st.lists(NAMES),
    },
)


@given(OPERATIONS, st.lists(st.tuples(NAMES, VALUES)))
def test_what_is_set_stands_once_unless_added_to(
    operations: dict[str, Any], fields: list[tuple[str, str]]
) -> None:
    came: Headers = [(name.lower().encode(), value.encode()) for name, value in fields]
    left = apply_all(header_change(HeaderOperations.model_validate(operations)), came)
    set_names = {name.lower() for name in operations.get("set", {})}
    added = [name.lower() for name in operations.get("add", {})]
    removed = {name.lower() for name in operations.get("remove", [])}
    for name in {"x-a", "x-b", "x-c"}:
        count = sum(field == name.encode() for field, _ in left)
        spelled = sum(each.lower() == name for each in operations.get("set", {}))
        before = 0 if name in removed | set_names else sum(field == name.encode() for field, _ in came)
        assert count == before + spelled + added.count(name)


@pytest.mark.parametrize(
    ("host", "expected"),
    [(b"a.b", b"a.b-shadow"), (b"a.b:8080", b"a.b-shadow:8080"), (b"[::1]:80", b"[::1]-shadow:80")],
)
def test_a_copy_says_in_its_host_that_it_is_one(host: bytes, expected: bytes) -> None:
    assert shadow_authority(host) == expected

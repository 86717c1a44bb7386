"""Headers, pseudo headers, query, flow labels, and the attributes of the events that a body holds."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.http.messages import Headers, RequestHead
from upwell.runtime.mesh.attributes import carries_events, read_attributes
from upwell.runtime.mesh.request import PolicyRequest


def head(target: bytes = b"/get?a=1&b=x%20y&a=2", headers: Headers | None = None) -> RequestHead:
    fields = headers or []
    index: dict[bytes, bytes] = {}
    for name, value in fields:
        index.setdefault(name, value)
    made = RequestHead(b"GET", target, b"1.1", fields, index)
    made.host = b"httpbin.default"
    made.path = target.partition(b"?")[0]
    return made


def test_pseudo_headers_are_parts_of_the_request() -> None:
    request = PolicyRequest(head(), scheme="https")
    found = [request.values(name) for name in (":method", ":path", ":authority", ":scheme", ":other")]
    assert found == [("GET",), ("/get?a=1&b=x%20y&a=2",), ("httpbin.default",), ("https",), ()]


def test_fields_of_one_name_are_joined_and_underscores_are_letters() -> None:
    fields = [(b"user_type", b"guest"), (b"x-a", b"1"), (b"x-a", b"2")]
    request = PolicyRequest(head(headers=fields))
    assert request.values("user_type") == ("guest",)
    assert request.values("x-a") == ("1,2",)
    assert request.values("user-type") == ()


def test_of_a_parameter_that_stands_twice_the_first_counts() -> None:
    assert PolicyRequest(head()).query == {"a": "1", "b": "x y"}


@pytest.mark.parametrize("name", [b"user-type", b"user_type"])
def test_both_spellings_of_a_header_are_one_label(name: bytes) -> None:
    labels = PolicyRequest(head(headers=[(name, b"guest")])).labels
    assert labels["http.request.header.user_type"] == "guest"
    assert labels["http.method"] == "GET"
    assert labels["http.host"] == "httpbin.default"


def test_members_of_baggage_are_labels() -> None:
    fields = [(b"baggage", b"userId=alice;p=1, tier = gold%20one ,,=x,noequals")]
    labels = PolicyRequest(head(headers=fields)).labels
    assert (labels["userId"], labels["tier"]) == ("alice", "gold one")
    assert "noequals" not in labels


def event(**attributes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **attributes}


def test_attributes_of_a_structured_event_read_like_its_headers_would() -> None:
    events = read_attributes(json.dumps(event(priority=3, urgent=True, data={"type": "no"})).encode())
    request = PolicyRequest(head(), events=events)
    assert request.values("ce-type") == ["t"]
    assert request.values("ce-priority") == ["3"]
    assert request.values("ce-urgent") == ["true"]
    assert request.values("ce-data") == []


def test_a_batch_has_a_value_for_each_of_its_events() -> None:
    events = read_attributes(json.dumps([event(type="a"), event(type="b"), "no event"]).encode())
    assert PolicyRequest(head(), events=events).values("ce-type") == ["a", "b"]


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_what_is_no_event_has_no_attributes_and_does_no_harm(body: bytes) -> None:
    assert isinstance(read_attributes(body), list)


def test_a_body_nested_without_end_has_no_attributes() -> None:
    assert read_attributes(b"[" * 100_000) == []


def test_events_are_known_by_their_content_type() -> None:
    assert carries_events(b"application/cloudevents+json; charset=utf-8")
    assert carries_events(b"Application/CloudEvents-Batch+JSON")
    assert not any(carries_events(kind) for kind in (None, b"", b"application/json"))

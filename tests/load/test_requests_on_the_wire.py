"""What is sent: one clear request, and events whose ids count up."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.errors import InvalidSettings
from upwell.runtime.load.parts import read_field
from upwell.runtime.load.plan import read_class
from upwell.runtime.load.requests import Event, EventMode, Outline, Requests

ORDER = Event("com.example.order", "/shop", "run-", {"subject": "größe 42"})


def parts(request: bytes) -> tuple[str, dict[str, str], bytes]:
    """The first line, the fields by lower-case name, the body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines), "no field stands twice"
    return first, {name.lower(): value for name, value in fields.items()}, body


def test_a_request_says_no_more_than_it_must() -> None:
    first, fields, body = parts(Requests(Outline("GET", "/a b?c=d", "example.com")).encode(1))
    assert (first, body) == ("GET /a%20b?c=d HTTP/1.1", b"")
    assert fields == {"host": "example.com", "user-agent": "upwell-load"}


def test_fields_that_are_given_take_the_place_of_ours() -> None:
    given_fields = (("host", "other"), ("User-Agent", "me"), ("content-type", "text/csv"))
    _, fields, _ = parts(Requests(Outline("POST", "/", "example.com", given_fields, b"1,2")).encode(1))
    assert fields == {"host": "other", "user-agent": "me", "content-type": "text/csv", "content-length": "3"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"a": 1}', "application/json"),
        (b"hello", "text/plain; charset=utf-8"),
        (b"\xff\x00", "application/octet-stream"),
    ],
)
def test_a_bodys_type_is_told_from_it(body: bytes, kind: str) -> None:
    _, fields, sent = parts(Requests(Outline("POST", "/", "test", body=body)).encode(1))
    assert (fields["content-type"], fields["content-length"], sent) == (kind, str(len(body)), body)


def test_binary_events_have_ids_that_count_up() -> None:
    requests = Requests(Outline("POST", "/", "test", body=b'{"a": 1}', event=ORDER))
    for number in (1, 2, 1000):
        _, fields, body = parts(requests.encode(number))
        assert fields["ce-id"] == f"run-{number}"
        assert (fields["ce-type"], fields["ce-source"], fields["ce-specversion"]) == (
            "com.example.order",
            "/shop",
            "1.0",
        )
        assert fields["ce-subject"] == "gr%C3%B6%C3%9Fe%2042"
        assert (fields["content-type"], body) == ("application/json", b'{"a": 1}')


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{"a": 1}', {"data": {"a": 1}, "datacontenttype": "application/json"}),
        (b"hello", {"data": "hello", "datacontenttype": "text/plain; charset=utf-8"}),
        (
            b"\xff\x00",
            {"data_base64": base64.b64encode(b"\xff\x00").decode(), "datacontenttype": "application/octet-stream"},
        ),
        (None, {}),
    ],
)
def test_structured_events_are_json_of_the_length_that_is_said(
    body: bytes | None, data: dict[str, object]
) -> None:
    event = Event("t", "/s", 'odd"\\ prefix', {"subject": "größe"}, EventMode.STRUCTURED)
    requests = Requests(Outline("POST", "/", "test", body=body, event=event))
    for number in (1, 99_999):
        _, fields, sent = parts(requests.encode(number))
        assert fields["content-type"] == "application/cloudevents+json"
        assert int(fields["content-length"]) == len(sent)
        common = {"specversion": "1.0", "type": "t", "source": "/s", "subject": "größe"}
        assert json.loads(sent) == {**common, "id": f'odd"\\ prefix{number}', **data}


@pytest.mark.parametrize(
    "event",
    [Event("", "/s", "x"), Event("t", "", "x"), Event("t", "/s", "x", {"Upper": "1"}), Event("t", "/s", "\r\nx")],
)
@pytest.mark.parametrize("mode", EventMode)
def test_what_is_no_event_is_refused(event: Event, mode: EventMode) -> None:
    given_event = Event(event.type, event.source, event.id_prefix, event.attributes, mode)
    with pytest.raises(InvalidSettings):
        Requests(Outline("POST", "/", "test", event=given_event))


@given(st.text())
def test_no_header_smuggles_another_line(text: str) -> None:
    try:
        field = read_field(f"x: {text}", "--header")
    except InvalidSettings:
        return
    request = Requests(Outline("GET", "/", "test", (field,))).encode(1)
    assert request.count(b"\r\n") == 5
    assert b"\n" not in request.replace(b"\r\n", b"")


@given(st.text(st.characters(codec="utf-8")))
def test_a_path_of_any_text_is_one_target(path: str) -> None:
    first, _, _ = Requests(Outline("GET", "/" + path, "test")).encode(1).partition(b"\r\n")[0].split(b" ")
    assert first == b"GET"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("guest:user_type: guest", ("guest", ("user_type", "guest"), 1.0)),
        ("guest:user_type:guest", ("guest", ("user_type", "guest"), 1.0)),
        ("guest:user_type: guest:50", ("guest", ("user_type", "guest"), 50.0)),
        ("a:level: 1", ("a", ("level", "1"), 1.0)),
        ("a:level:1", ("a", ("level", "1"), 1.0)),
        ("a:level: 1:2.5", ("a", ("level", "1"), 2.5)),
        ("a:host: example.com:80:3", ("a", ("host", "example.com:80"), 3.0)),
    ],
)
def test_classes_are_read(text: str, read: tuple[str, tuple[str, str], float]) -> None:
    assert read_class(text) == read


@pytest.mark.parametrize("text", ["", "guest", "guest:", "guest:user type: x", ":a: b", "all:a: b", "a:b: c:0"])
def test_what_is_no_class_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings, match="--class"):
        read_class(text)

"""A function gets the event class that its annotation names, of whichever major version of the library."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support.functions import answer, handler, request, run, unannotated
from upwell.functions import subjects
from upwell.functions.asgi import Message
from upwell.functions.cloudevent import event_class, event_reply
from upwell.functions.errors import InvalidResult
from upwell.functions.events import read_event

HAS_CORE = importlib.util.find_spec("cloudevents.core") is not None
CLASSIC_NAME = "cloudevents.v1.http" if HAS_CORE else "cloudevents.http"
CLASSIC_MODULE = importlib.import_module(CLASSIC_NAME)
Classic: Any = CLASSIC_MODULE.CloudEvent
needs_core = pytest.mark.skipif(not HAS_CORE, reason="cloudevents 1 has one event class only")

HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/s",
    "ce-type": "t",
    "ce-time": "2020-01-02T03:04:05Z",
    "content-type": "application/json",
}


def core_class(version: str) -> Any:
    return importlib.import_module(f"cloudevents.core.{version}.event").CloudEvent


def taking(event_class: object, function: Callable[[Any], object]) -> Callable[[Any], object]:
    """`function` as one whose parameter is annotated."""

    def annotated(event: Any) -> object:
        return function(event)

    annotated.__annotations__["event"] = event_class
    return annotated


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def event_reader(wanted: type | None) -> Callable[[list[tuple[bytes, bytes]], bytes], Any]:
    """What a handler does: read the request, then build the class that is wanted."""
    found = event_class(wanted)
    return lambda headers, body: found.build(read_event(headers, body, versions=found.versions))


def seen(event: Any) -> dict[str, Any]:
    attributes = {name: str(value) for name, value in event.get_attributes().items()}
    return {"class": type(event).__module__, "attributes": attributes, "data": event.get_data()}


def test_classic_class_is_built_with_json_data() -> None:
    response = answer(taking(Classic, seen), "POST", content=b'{"a":1}', headers=HEADERS)
    assert response.json()["class"] == Classic.__module__
    assert response.json()["data"] == {"a": 1}
    assert response.json()["attributes"]["time"] == "2020-01-02T03:04:05Z"


def test_function_without_annotation_gets_the_class_of_both_majors() -> None:
    @unannotated
    def function(event: Any) -> Any:
        return seen(event)

    response = answer(function, "POST", content=b"{}", headers=HEADERS)
    assert response.json()["class"] == Classic.__module__


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"a": [1, 2]}'),
        ("application/json", b'"text"'),
        ("application/json", b"not json"),
        ("text/plain", b"plain"),
        ("text/plain", b"5"),
        ("application/octet-stream", b"\x00\xff"),
        ("application/json", b""),
    ],
)
def test_classic_data_is_what_the_library_itself_would_give(content_type: str, body: bytes) -> None:
    headers = {**HEADERS, "content-type": content_type}
    assert seen(event_reader(Classic)(raw(headers), body)) == seen(CLASSIC_MODULE.from_http(headers, body))


@pytest.mark.parametrize("members", [{"data": {"a": 1}}, {"data": "x"}, {"data_base64": "eyJhIjoxfQ=="}, {}])
def test_classic_structured_data_is_what_the_library_itself_would_give(members: dict[str, Any]) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2020-01-02T03:04:05Z"}
    body = json.dumps({**attributes, **members}).encode()
    assert seen(event_reader(Classic)(raw(headers), body)) == seen(CLASSIC_MODULE.from_http(headers, body))


def test_classic_class_takes_the_older_version() -> None:
    event = event_reader(Classic)(raw({**HEADERS, "ce-specversion": "0.3"}), b"{}")
    assert event["specversion"] == "0.3"


def test_abstract_classic_class_means_the_concrete_one() -> None:
    abstract = importlib.import_module(CLASSIC_NAME.replace("http", "abstract")).CloudEvent
    assert type(event_reader(abstract)(raw(HEADERS), b"{}")) is Classic


@needs_core
def test_core_class_is_built_with_a_time() -> None:
    event = event_reader(core_class("v1"))(raw(HEADERS), b'{"a":1}')
    assert type(event) is core_class("v1")
    assert event.get_time() == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert event.get_data() == {"a": 1}


@needs_core
@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b"not json", "not json"),
        ("text/plain", b"5", "5"),
        ("application/octet-stream", b"\x00\xff", b"\x00\xff"),
        ("application/json", b"", None),
    ],
)
def test_core_data_follows_the_content_type(content_type: str, body: bytes, data: object) -> None:
    read = event_reader(core_class("v1"))
    assert read(raw({**HEADERS, "content-type": content_type}), body).get_data() == data


@needs_core
def test_core_base_class_means_the_current_version() -> None:
    base = importlib.import_module("cloudevents.core.base").BaseCloudEvent
    assert type(event_reader(base)(raw(HEADERS), b"{}")) is core_class("v1")


@needs_core
def test_core_class_of_the_older_version_takes_that_only() -> None:
    older = taking(core_class("v03"), lambda event: event.get_specversion())
    assert answer(older, "POST", headers={**HEADERS, "ce-specversion": "0.3"}).text == "0.3"
    assert answer(older, "POST", headers=HEADERS).status_code == 400


@needs_core
def test_event_that_only_the_library_refuses_is_the_senders_fault_too() -> None:
    headers = {**HEADERS, "ce-subject": ""}
    response = answer(taking(core_class("v1"), seen), "POST", headers=headers)
    assert response.status_code == 400
    assert "subject" in response.text


def test_malformed_event_is_answered_with_the_reason() -> None:
    called: list[object] = []
    response = answer(taking(Classic, called.append), "POST", headers={"ce-specversion": "1.0", "ce-id": "1"})
    assert (response.status_code, response.text) == (400, "the CloudEvent has no source\n")
    assert called == []


def test_request_that_is_no_event_is_answered_with_the_reason() -> None:
    response = answer(taking(Classic, seen), "GET")
    assert response.status_code == 400
    assert "ce-specversion" in response.text


def test_event_too_large_to_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "BODY_BYTES_LIMIT", 10)
    response = answer(taking(Classic, seen), "POST", content=b'"0123456789"', headers=HEADERS)
    assert response.status_code == 413


def test_caller_that_leaves_before_its_event_is_whole_calls_nothing() -> None:
    called: list[object] = []
    sent: list[Message] = []
    inbox: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def scenario() -> None:
        async def receive() -> Message:
            return inbox.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        with handler(taking(Classic, called.append)) as adapted:
            await adapted.app({"type": "http", "headers": raw(HEADERS)}, receive, send)

    run(scenario())
    assert (called, sent) == ([], [])


def test_event_in_pieces_is_put_together() -> None:
    inbox: list[Message] = [
        {"type": "http.request", "body": b'{"a"', "more_body": True},
        {"type": "http.request", "body": b":1}", "more_body": False},
    ]
    sent: list[Message] = []

    async def scenario() -> None:
        async def receive() -> Message:
            return inbox.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        with handler(taking(Classic, lambda event: event.get_data())) as adapted:
            await adapted.app({"type": "http", "headers": raw(HEADERS)}, receive, send)

    run(scenario())
    assert sent[1]["body"] == b'{"a":1}'


def reply_of(data: object, **attributes: str) -> Callable[[Any], object]:
    def function(event: Any) -> object:
        return Classic({"type": "reply", "source": "/f", "id": "2", **attributes}, data)

    return function


@pytest.mark.parametrize(
    ("data", "attributes", "content_type", "body"),
    [
        ({"é": 1}, {}, "application/json", '{"é":1}'.encode()),
        ([1], {"datacontenttype": "application/json"}, "application/json", b"[1]"),
        ("text", {}, "application/json", b'"text"'),
        ("text", {"datacontenttype": "text/plain"}, "text/plain", b"text"),
        (b"\x00", {"datacontenttype": "image/png"}, "image/png", b"\x00"),
        (None, {}, None, b""),
    ],
)
def test_returned_event_is_sent_in_binary_mode(
    data: object, attributes: dict[str, str], content_type: str | None, body: bytes
) -> None:
    response = answer(taking(Classic, reply_of(data, subject="für Ada", **attributes)), "POST", headers=HEADERS)
    assert (response.status_code, response.content) == (200, body)
    assert response.headers.get("content-type") == content_type
    assert response.headers["ce-type"] == "reply"
    assert response.headers["ce-subject"] == "f%C3%BCr%20Ada"


@needs_core
def test_returned_core_event_is_sent_in_binary_mode() -> None:
    attributes = {"type": "reply", "source": "/f", "time": datetime(2020, 1, 2, tzinfo=UTC)}
    headers, body = event_reply(core_class("v1")(attributes, "text"))
    assert dict(headers)[b"ce-time"] == b"2020-01-02T00:00:00Z"
    assert body == b"text"


def test_returned_event_that_cannot_be_sent_is_an_error_and_sends_nothing() -> None:
    with pytest.raises(InvalidResult):
        answer(taking(Classic, reply_of({"a": object()})), "POST", headers=HEADERS)


def test_async_function_takes_an_event_too() -> None:
    async def function(event: Any) -> str:
        await asyncio.sleep(0)
        return str(event["type"])

    function.__annotations__["event"] = Classic
    with handler(function) as adapted:
        assert adapted.is_async
        assert run(request(adapted.app, "POST", headers=HEADERS)).text == "t"

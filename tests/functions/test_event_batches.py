"""A function of `list[CloudEvent]` takes batches, and an event that comes alone as a batch of one."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.functions import answer
from upwell.functions.errors import InvalidEvent, InvalidResult
from upwell.functions.events import Event, read_event, read_events
from upwell.functions.eventwriting import BATCH, write_batch

HAS_CORE = importlib.util.find_spec("cloudevents.core") is not None
CLASSES: list[Any] = [
    importlib.import_module("cloudevents.v1.http" if HAS_CORE else "cloudevents.http").CloudEvent
]
if HAS_CORE:
    CLASSES.append(importlib.import_module("cloudevents.core.v1.event").CloudEvent)

HEADERS = {"content-type": "application/cloudevents-batch+json"}


def member(number: int, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": str(number), "source": "/s", "type": "t", **more}


def taking(event_class: Any, function: Callable[[Any], object], of: Any = list) -> Callable[[Any], object]:
    def annotated(arrived: Any) -> object:
        return function(arrived)

    annotated.__annotations__["arrived"] = of[event_class]
    return annotated


def seen(events: list[Any]) -> Any:
    return [[type(each).__module__, each.get_attributes()["id"], each.get_data()] for each in events]


@pytest.mark.parametrize("event_class", CLASSES)
@pytest.mark.parametrize("of", [list, Sequence])
def test_events_of_a_batch_come_together(event_class: Any, of: Any) -> None:
    body = json.dumps([member(1, data={"a": 1}), member(2, data_base64="eyJhIjoyfQ=="), member(3)]).encode()
    response = answer(taking(event_class, seen, of), "POST", content=body, headers=HEADERS)
    module = event_class.__module__
    assert response.json() == [[module, "1", {"a": 1}], [module, "2", {"a": 2}], [module, "3", None]]


@pytest.mark.parametrize("event_class", CLASSES)
def test_event_that_comes_alone_is_a_batch_of_one(event_class: Any) -> None:
    function = taking(event_class, seen)
    binary = {f"ce-{name}": value for name, value in member(7).items()} | {"content-type": "application/json"}
    assert answer(function, "POST", content=b"[1]", headers=binary).json()[0][1:] == ["7", [1]]
    structured = {"content-type": "application/cloudevents+json"}
    body = json.dumps(member(8, data="x")).encode()
    assert answer(function, "POST", content=body, headers=structured).json()[0][1:] == ["8", "x"]


def test_empty_batch_calls_the_function_with_nothing_in_it() -> None:
    assert answer(taking(CLASSES[0], len_of), "POST", content=b"[]", headers=HEADERS).text == "0"


def len_of(events: list[Any]) -> str:
    return str(len(events))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "array"),
        (b"[1]", "event 0 of the batch: it is not a JSON object"),
        (json.dumps([member(1), {"id": "2"}]).encode(), "event 1 of the batch: the CloudEvent's specversion"),
        (
            b'[{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}]',
            "event 0 of the batch: the event has",
        ),
        (b"[", "not a JSON event"),
    ],
)
def test_batch_with_a_malformed_event_is_refused_whole(body: bytes, reason: str) -> None:
    called: list[object] = []
    response = answer(taking(CLASSES[0], called.append), "POST", content=body, headers=HEADERS)
    assert (response.status_code, called) == (400, [])
    assert reason in response.text


def test_request_without_events_is_refused() -> None:
    assert answer(taking(CLASSES[0], len_of), "GET").status_code == 400


def test_data_may_hold_a_member_twice() -> None:
    body = b'[{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1,"a":2}}]'
    assert answer(taking(CLASSES[0], seen), "POST", content=body, headers=HEADERS).json()[0][2] == {"a": 2}


@pytest.mark.parametrize("event_class", CLASSES)
def test_returned_events_are_sent_as_a_batch(event_class: Any) -> None:
    body = json.dumps([member(1, data={"a": "é"}), member(2, data_base64="/w=="), member(3)]).encode()
    response = answer(taking(event_class, lambda events: events), "POST", content=body, headers=HEADERS)
    assert response.headers["content-type"] == BATCH.decode()
    first, second, third = response.json()
    assert (first["id"], first["data"]) == ("1", {"a": "é"})
    assert (second["id"], second["data_base64"]) == ("2", "/w==")
    assert "data" not in third


attributes = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": st.just("1"), "source": st.just("/s"), "type": st.just("t")},
    optional={"flag": st.booleans(), "number": st.integers(-(2**31), 2**31 - 1), "text": st.just("für")},
)


data = st.binary(max_size=5) | st.sampled_from([b"NaN", b"null", b"1e999", b"[Infinity]", b'"\\ud800"', b"1.50"])


@given(st.lists(st.tuples(attributes, data), max_size=3))
def test_batch_that_is_written_is_read_to_the_same(events: list[tuple[dict[str, Any], bytes]]) -> None:
    headers, body = write_batch(events)
    batch = read_events(headers, body)
    assert isinstance(batch, list)
    assert [dict(event.attributes) for event in batch] == [given for given, _ in events]
    assert all(is_same(event, data) for event, (_, data) in zip(batch, events, strict=True))


def is_same(event: Event, data: bytes) -> bool:
    if not data:
        return event.data is None
    return bool(event.data == data if event.encoded else event.data == json.loads(data))


def test_attribute_that_cannot_be_sent_is_an_error() -> None:
    with pytest.raises(InvalidResult):
        write_batch([({"Upper": "x"}, b"")])


def test_batch_for_a_function_of_one_event_is_refused() -> None:
    with pytest.raises(InvalidEvent):
        read_event([(b"content-type", BATCH)], b"[]")

"""CloudEvents by the HTTP binding and the JSON format: what is read, what is refused, and that both ways agree."""

from __future__ import annotations

import base64
import json
import string
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.asgi import Headers
from upwell.functions.errors import InvalidEvent, InvalidResult
from upwell.functions.events import is_json, parse_time, read_event
from upwell.functions.eventwriting import write_event

REQUIRED: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
STRUCTURED = [(b"content-type", b"application/cloudevents+json; charset=UTF-8")]


def binary(**attributes: str) -> Headers:
    sent = {**REQUIRED, **attributes}
    return [(f"ce-{name}".encode(), value.encode()) for name, value in sent.items()]


def structured(**members: Any) -> bytes:
    return json.dumps({**REQUIRED, **members}).encode()


def test_binary_event_is_read_from_its_headers() -> None:
    headers = [
        *binary(subject="x", myext="7"),
        (b"content-type", b"application/json; charset=utf-8"),
        (b"x", b"y"),
    ]
    event = read_event(headers, b'{"a":1}')
    expected = {**REQUIRED, "subject": "x", "myext": "7", "datacontenttype": "application/json; charset=utf-8"}
    assert (dict(event.attributes), event.data, event.encoded) == (expected, b'{"a":1}', True)


def test_structured_event_is_read_from_its_body_whatever_the_headers_repeat() -> None:
    event = read_event(
        [*STRUCTURED, *binary(id="other")], structured(data={"a": 1}, number=5, flag=True, subject=None)
    )
    assert dict(event.attributes) == {**REQUIRED, "number": 5, "flag": True}
    assert (event.data, event.encoded) == ({"a": 1}, False)


def test_structured_event_may_carry_bytes() -> None:
    event = read_event(STRUCTURED, structured(data_base64=base64.b64encode(b"\x00\xff").decode()))
    assert (event.data, event.encoded) == (b"\x00\xff", True)


def test_event_without_data_has_none() -> None:
    assert read_event(binary(), b"").data is None
    assert read_event(STRUCTURED, structured()).data is None


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        (b"%e2%82%ac", "€"),
        (b"%41BC", "ABC"),
        (b"%2525", "%25"),
        (b'"quoted \\"text\\" %E2%82%AC"', 'quoted "text" €'),
        ("raw €".encode(), "raw €"),
    ],
)
def test_header_value_is_unquoted_and_decoded_once(sent: bytes, read: str) -> None:
    assert read_event([*binary(), (b"ce-subject", sent)], b"").attributes["subject"] == read


@pytest.mark.parametrize(
    "sent", [b"%C0%A0", b"%FF", b"%E2%82", b"\xff", b'"open', b'"', b"%00", b"%0A", b"%EF%BF%BE"]
)
def test_header_value_that_is_no_text_is_refused(sent: bytes) -> None:
    with pytest.raises(InvalidEvent):
        read_event([*binary(), (b"ce-subject", sent)], b"")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no CloudEvent"),
        ([(b"content-type", b"application/json")], "no CloudEvent"),
        ([(b"content-type", b"application/cloudevents-batch+json")], "batch"),
        ([(b"content-type", b"Application/CloudEvents-Batch+json")], "batch"),
        ([(b"content-type", b"application/cloudevents+avro")], "no CloudEvent"),
        (binary(specversion="2.0"), "specversion"),
        (binary(specversion="0.3"), "specversion"),
        (binary(id=""), "no id"),
        (binary()[:2], "no source"),
        (binary()[:3], "no type"),
        (binary(time="yesterday"), "time"),
        (binary(time="2020-13-01T00:00:00Z"), "time"),
        (binary(dataschema="relative/path"), "dataschema"),
        (binary(datacontenttype="text/plain"), "Content-Type"),
        (binary(bad_name="x"), "attribute name"),
        ([*binary(), (b"ce-id", b"2")], "twice"),
        ([*binary(), (b"content-type", b"nonsense")], "media type"),
    ],
)
def test_headers_that_break_the_specification_are_refused(headers: Headers, reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason) as refused:
        read_event(headers, b"")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}',
        structured(id=1),
        structured(subject=True),
        structured(number=2**31),
        structured(number=1.5),
        structured(number=[]),
        structured(Upper="x"),
        structured(data="a", data_base64="YQ=="),
        structured(data_base64="not base64!"),
        structured(data_base64=5),
        structured(subject="\ud800"),
        structured(subject="a\nb"),
        structured(subject="\uffff"),
        structured(data=float("nan")),
        structured(data=0).replace(b"0}", b"9" * 5000 + b"}"),
    ],
)
def test_structured_body_that_breaks_the_specification_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        read_event(STRUCTURED, body)


def test_data_may_hold_a_member_twice_though_an_event_may_not() -> None:
    body = structured(data=None).replace(b"null", b'{"a":1,"a":2}')
    assert read_event(STRUCTURED, body).data == {"a": 2}


def test_older_version_is_read_where_it_is_asked_for() -> None:
    encoded = base64.b64encode(b"data").decode()
    body = structured(specversion="0.3", data=encoded, datacontentencoding="base64")
    event = read_event(STRUCTURED, body, versions=("1.0", "0.3"))
    assert (event.data, event.encoded) == (b"data", True)
    assert "datacontentencoding" not in event.attributes
    headers = binary(specversion="0.3", datacontentencoding="base64")
    assert read_event(headers, encoded.encode(), versions=("0.3",)).data == b"data"
    assert read_event(binary(specversion="0.3"), b"plain", versions=("0.3",)).data == b"plain"
    with pytest.raises(InvalidEvent, match="datacontentencoding"):
        read_event(binary(specversion="0.3", datacontentencoding="rot13"), b"", versions=("0.3",))


# Any text that an attribute may hold: no control characters, no halves of pairs, no code points of nobody's.
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]))
names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20).filter(
    lambda name: name not in (*REQUIRED, "data", "datacontenttype", "dataschema", "time", "datacontentencoding")
)


@given(st.dictionaries(names, texts), st.binary())
def test_what_is_written_is_read_again_unchanged(extensions: dict[str, str], data: bytes) -> None:
    attributes = {**REQUIRED, "datacontenttype": "application/octet-stream", **extensions}
    headers = write_event(attributes, data)
    event = read_event(headers, data)
    assert dict(event.attributes) == attributes
    assert event.data == (data or None)


@given(st.dictionaries(names, texts))
def test_written_headers_are_printable_ascii_without_space_quote_or_stray_percent(
    extensions: dict[str, str],
) -> None:
    for name, value in write_event({**REQUIRED, **extensions}, b""):
        if name.startswith(b"ce-"):
            assert all(0x21 <= byte <= 0x7E and byte != ord('"') for byte in value)


@given(
    st.lists(st.tuples(st.sampled_from([b"ce-id", b"ce-specversion", b"content-type", b"ce-x"]), st.binary())),
    st.binary(),
)
def test_reader_refuses_hostile_input_by_its_own_error_only(headers: Headers, body: bytes) -> None:
    try:
        event = read_event(headers, body)
    except InvalidEvent:
        return
    assert event.attributes["specversion"] == "1.0"


@given(st.binary())
def test_structured_reader_refuses_hostile_bodies_by_its_own_error_only(body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        read_event(STRUCTURED, body)


def test_written_values_have_the_types_of_the_specification() -> None:
    moment = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    headers = dict(
        write_event({"time": moment, "flag": True, "off": False, "n": -3, "raw": b"\x00", "gone": None}, b"12")
    )
    assert headers == {
        b"ce-time": b"2020-01-02T03:04:05Z",
        b"ce-flag": b"true",
        b"ce-off": b"false",
        b"ce-n": b"-3",
        b"ce-raw": b"AA==",
        b"content-length": b"2",
    }


@pytest.mark.parametrize(
    "attributes",
    [
        {"bad-name": "x"},
        {"x\r\nset-cookie": "y"},
        {"subject": "a\r\nb: c"},
        {"datacontenttype": "text/plain\r\nx: y"},
    ],
)
def test_event_that_would_break_the_response_is_not_written(attributes: dict[str, str]) -> None:
    with pytest.raises(InvalidResult):
        write_event(attributes, b"")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-01-02T03:04:05Z", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2020-01-02t03:04:05.5z", datetime(2020, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)),
        ("2020-01-02T03:04:05.123456789+00:00", datetime(2020, 1, 2, 3, 4, 5, 123_456, tzinfo=UTC)),
    ],
)
def test_time_is_read_as_rfc_3339(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text", ["2020-01-02", "2020-01-02T03:04:05", "2020-01-02 03:04:05Z", "20200102T030405Z", ""]
)
def test_other_forms_of_time_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time(text)


def test_json_is_known_by_its_media_type() -> None:
    assert all(map(is_json, [None, "application/json", "text/json; charset=utf-8", "application/problem+json"]))
    assert not any(map(is_json, ["text/plain", "application/jsonx", "application/octet-stream"]))

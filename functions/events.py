"""CloudEvents on HTTP: reading a request, by the HTTP binding and the JSON format of spec 1.0.

Pure and free of any CloudEvents library. Reading is strict where the specification is, because what passes here is
stored and forwarded; version 0.3 is read too, for the functions that still receive it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from upwell.functions.errors import InvalidEvent

Attribute = str | int | bool

NAME = re.compile(r"[a-z0-9]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~\w-]+/[!#$%&'*+.^_`|~\w-]+[ \t]*(;.*)?", re.ASCII)
_JSON_TYPE = re.compile(r"[^/;]+/([^;/]+\+)?json[ \t]*(;.*)?", re.IGNORECASE)
# Control characters, halves of surrogate pairs, and code points that Unicode gives to nobody.
FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
INT32 = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was on the wire.

    `attributes` holds specversion, id, source, type and whatever else was sent. `data` is the raw bytes when
    `encoded`, as in binary mode or `data_base64`; otherwise the JSON value of a structured event, None for none.
    """

    attributes: Mapping[str, Attribute]
    data: Any
    encoded: bool


def is_json(content_type: str | None) -> bool:
    """Whether data of this type is JSON; an event that does not say is taken to be."""
    return content_type is None or _JSON_TYPE.fullmatch(content_type) is not None


def read_event(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, *, versions: Collection[str] = ("1.0",)
) -> Event:
    """The event in an HTTP message, in binary or structured mode; header names in lower case, as ASGI gives them.

    Raises InvalidEvent when there is none, when it breaks the specification, or when its version is not one of
    `versions`.
    """
    event = _read(headers, body, versions, takes_batches=False)
    assert isinstance(event, Event)
    return event


def read_events(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, *, versions: Collection[str] = ("1.0",)
) -> Event | list[Event]:
    """The event or the batch in an HTTP message. Raises InvalidEvent as `read_event` does."""
    return _read(headers, body, versions, takes_batches=True)


def _read(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, versions: Collection[str], *, takes_batches: bool
) -> Event | list[Event]:
    content_type: str | None = None
    encoded: list[tuple[str, bytes]] = []
    for name, value in headers:
        if name.startswith(b"ce-"):
            encoded.append((name[3:].decode("latin-1"), value))
        elif name == b"content-type":
            content_type = value.decode("latin-1")
    mode = (content_type or "").lower()
    if mode.startswith("application/cloudevents-batch"):
        if not takes_batches:
            raise InvalidEvent("this function takes one CloudEvent at a time, not a batch")
        return _read_batch(body, versions)
    if mode.partition(";")[0].strip() in ("application/cloudevents+json", "application/cloudevents"):
        event = _read_members(*_load_object(body))
    elif any(name == "specversion" for name, _ in encoded):
        event = _read_binary(content_type, encoded, body)
    else:
        raise InvalidEvent(
            "the request carries no CloudEvent: neither a ce-specversion header nor the content type "
            "application/cloudevents+json"
        )
    return _checked(event, versions)


def parse_time(text: str) -> datetime:
    """An RFC 3339 timestamp; finer than microseconds is cut. Raises ValueError."""
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    return datetime.fromisoformat(text.upper())


def _read_binary(content_type: str | None, encoded: list[tuple[str, bytes]], body: bytes) -> Event:
    attributes: dict[str, Attribute] = {}
    for name, value in encoded:
        if name in attributes:
            raise InvalidEvent(f"the header ce-{name} is there twice")
        attributes[name] = _decode_header(name, value)
    if "datacontenttype" in attributes:
        raise InvalidEvent("the header ce-datacontenttype must not be there: Content-Type says it")
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    return Event(attributes, body or None, encoded=True)


def _decode_header(name: str, value: bytes) -> str:
    if value.startswith(b'"'):
        if len(value) < 2 or not value.endswith(b'"'):
            raise InvalidEvent(f"the header ce-{name} opens a quote that it does not close")
        value = _QUOTED_PAIR.sub(rb"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"the header ce-{name} is not UTF-8") from error


def _read_members(members: dict[str, Any], doubled: list[dict[str, Any]]) -> Event:
    """An event of the JSON format. Refuses a member that stands twice in it, though not within its data."""
    if any(each is members for each in doubled):
        raise InvalidEvent("the event has a member twice")
    if "data" in members and "data_base64" in members:
        raise InvalidEvent("the event holds both data and data_base64")
    data, encoded = members.pop("data", None), False
    text = members.pop("data_base64", None)
    if text is not None:
        data, encoded = _decode_base64("data_base64", text), True
    attributes = {name: value for name, value in members.items() if value is not None}
    for name, value in attributes.items():
        if not isinstance(value, str | bool | int) or (type(value) is int and value not in INT32):
            raise InvalidEvent(f"the attribute {name} is neither a string, a boolean nor a 32-bit integer")
    return Event(attributes, data, encoded)


def _read_batch(body: bytes, versions: Collection[str]) -> list[Event]:
    loaded, doubled = _load(body)
    if not isinstance(loaded, list):
        raise InvalidEvent("the body is not a JSON array of events")
    events: list[Event] = []
    for index, members in enumerate(loaded):
        try:
            if not isinstance(members, dict):
                raise InvalidEvent("it is not a JSON object")
            events.append(_checked(_read_members(members, doubled), versions))
        except InvalidEvent as error:
            raise InvalidEvent(f"event {index} of the batch: {error.what}") from error
    return events


def _load_object(body: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    loaded, doubled = _load(body)
    if not isinstance(loaded, dict):
        raise InvalidEvent("the body is not a JSON object")
    return loaded, doubled


def _load(body: bytes) -> tuple[Any, list[dict[str, Any]]]:
    """The JSON value in `body`, and those objects in it that have a member twice."""
    doubled: list[dict[str, Any]] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            doubled.append(built)
        return built

    try:
        loaded = json.loads(body.decode("utf-8"), object_pairs_hook=build, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"the body is not a JSON event: {type(error).__name__}") from error
    return loaded, doubled


def refuse_constant(name: str) -> None:
    """For `json.loads`: NaN and the infinities are not JSON. Raises ValueError."""
    raise ValueError(f"{name} is not JSON")


def _decode_base64(name: str, text: object) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError("not a string")
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidEvent(f"{name} is not base64") from error


def _decode_0_3(event: Event) -> Event:
    """Version 0.3 says with an attribute what 1.0 says with the member's name."""
    attributes = dict(event.attributes)
    encoding = attributes.pop("datacontentencoding", None)
    if encoding is None:
        return event
    if encoding != "base64":
        raise InvalidEvent("the attribute datacontentencoding is not base64")
    text = event.data.decode("latin-1") if event.encoded and event.data else event.data
    return Event(attributes, _decode_base64("data", text), encoded=True)


def _checked(event: Event, versions: Collection[str]) -> Event:
    _check(event.attributes, versions)
    return _decode_0_3(event) if event.attributes["specversion"] == "0.3" else event


def _check(attributes: Mapping[str, Attribute], versions: Collection[str]) -> None:
    version = attributes.get("specversion")
    if version not in versions:
        known = " or ".join(versions)
        raise InvalidEvent(f"the CloudEvent's specversion is {_shown(version)}; this function takes {known}")
    for name in ("id", "source", "type"):
        if attributes.get(name, "") == "":
            raise InvalidEvent(f"the CloudEvent has no {name}")
    for name, value in attributes.items():
        if not NAME.fullmatch(name):
            raise InvalidEvent(f"the attribute name {_shown(name)} holds more than a-z and 0-9")
        if isinstance(value, str) and FORBIDDEN.search(value):
            raise InvalidEvent(f"the attribute {name} holds control characters or no valid Unicode")
    for name in ("id", "source", "type", "subject", "time", "dataschema", "datacontenttype"):
        if not isinstance(attributes.get(name, ""), str):
            raise InvalidEvent(f"the attribute {name} is not a string")
    _check_formats(attributes)


def _check_formats(attributes: Mapping[str, Attribute]) -> None:
    time, schema = attributes.get("time"), attributes.get("dataschema")
    content_type = attributes.get("datacontenttype")
    if isinstance(time, str):
        try:
            parse_time(time)
        except ValueError as error:
            raise InvalidEvent(f"the attribute time is {_shown(time)}, not an RFC 3339 time") from error
    if isinstance(schema, str) and not _SCHEME.match(schema):
        raise InvalidEvent("the attribute dataschema is not an absolute URI")
    if isinstance(content_type, str) and not _MEDIA_TYPE.fullmatch(content_type):
        raise InvalidEvent("the attribute datacontenttype is not a media type")


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:80]

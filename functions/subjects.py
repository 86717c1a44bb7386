"""What a function is called with, made from a request: an event, a batch of them, or a body.

A body is read whole, within a limit; what streams belongs into a function that takes its request. The time that
this takes counts towards the request's, so a slow sender is cut off by its timeout.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from upwell.functions.asgi import Receive, Scope
from upwell.functions.caller import Disconnected
from upwell.functions.errors import InvalidInput
from upwell.functions.events import Event, is_json, read_event, read_events
from upwell.functions.typed import InvalidBody, json_reader

BODY_BYTES_LIMIT = 64 * 1024 * 1024
"""A body or event is held whole in memory."""

_CHARSET = re.compile(r";\s*charset=\"?([^\s;\"]+)", re.IGNORECASE)
_ANY_VERSION = ("1.0", "0.3")


class TooLarge(InvalidInput):
    """A body beyond the limit."""

    status = 413


class UnsupportedContent(InvalidInput):
    """A body of a content type that the function does not take."""

    status = 415


class _Missing:
    """Stands for a body that is not there and need not be."""


MISSING = _Missing()


class Subject(NamedTuple):
    """The value for the function's parameter, and the attributes of the event that it came in."""

    value: Any
    event: Mapping[str, Any] | None = None


ReadSubject = Callable[[Scope, Receive], Awaitable[Subject]]

_ReadBody = Callable[[bytes, str | None], Any]


def event_subject(wanted: type | None) -> ReadSubject:
    """For a function of one CloudEvent. Raises InvalidFunction when the library is not installed."""
    from upwell.functions.cloudevent import event_class

    found = event_class(wanted)

    async def read(scope: Scope, receive: Receive) -> Subject:
        body = await read_body(scope, receive)
        event = read_event(scope["headers"], body, versions=found.versions)
        return Subject(found.build(event), event.attributes)

    return read


def events_subject(wanted: type | None) -> ReadSubject:
    """For a function of a batch; an event that comes alone is a batch of one. Raises as `event_subject` does."""
    from upwell.functions.cloudevent import event_class

    found = event_class(wanted)

    async def read(scope: Scope, receive: Receive) -> Subject:
        body = await read_body(scope, receive)
        events = read_events(scope["headers"], body, versions=found.versions)
        if isinstance(events, list):
            return Subject([found.build(each) for each in events])
        return Subject([found.build(events)], events.attributes)

    return read


def body_subject(annotation: object, *, has_default: bool) -> ReadSubject:
    """For a function of a JSON value, text or bytes: the request's body, or its event's data.

    Raises Undecodable when no JSON value becomes what the annotation asks for.
    """
    read_value = _value_reader(annotation)

    async def read(scope: Scope, receive: Receive) -> Subject:
        body = await read_body(scope, receive)
        content_type, is_event = _look(scope)
        attributes: Mapping[str, Any] | None = None
        if is_event:
            event = read_event(scope["headers"], body, versions=_ANY_VERSION)
            attributes = event.attributes
            body, content_type = _event_body(event)
        if not body and has_default:
            return Subject(MISSING, attributes)
        if not body and content_type is None and annotation not in (str, bytes):
            raise InvalidBody("the event has no data" if is_event else "the request has no body")
        return Subject(read_value(body, content_type), attributes)

    return read


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises TooLarge, or Disconnected when the caller leaves before its end."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > BODY_BYTES_LIMIT or (not chunks and _announced(scope, message) > BODY_BYTES_LIMIT):
            raise TooLarge(f"the body is larger than {BODY_BYTES_LIMIT} bytes")
        if not message.get("more_body", False):
            return chunk if not chunks else b"".join((*chunks, chunk))
        chunks.append(chunk)


def _announced(scope: Scope, message: Mapping[str, Any]) -> int:
    """The length that is still to come by the request's own word; 0 when it is there or unknown."""
    if message.get("more_body", False):
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                return int(value)
    return 0


def _look(scope: Scope) -> tuple[str | None, bool]:
    """The content type, and whether the request says that it carries an event."""
    content_type: str | None = None
    is_event = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"ce-specversion":
            is_event = True
    return content_type, is_event or (content_type or "").lower().startswith("application/cloudevents")


def _event_body(event: Event) -> tuple[bytes, str | None]:
    """An event's data as the body that it would have in binary mode, and its type."""
    content_type = event.attributes.get("datacontenttype")
    given = content_type if isinstance(content_type, str) else None
    if event.data is None:
        return b"", given
    if event.encoded:
        return event.data, given
    if isinstance(event.data, str) and not is_json(given):
        return event.data.encode(), given
    return json.dumps(event.data).encode(), given or "application/json"


def _value_reader(annotation: object) -> _ReadBody:
    inner = _without_none(annotation)
    if inner is bytes:
        return lambda body, content_type: body
    if inner is str:
        return _read_text
    read = json_reader(annotation)

    def read_json(body: bytes, content_type: str | None) -> Any:
        if not is_json(content_type):
            raise UnsupportedContent(f"the function takes application/json, not {content_type}")
        return read(body)

    return read_json


def _read_text(body: bytes, content_type: str | None) -> str:
    found = _CHARSET.search(content_type or "")
    charset = found[1] if found else "utf-8"
    try:
        return body.decode(charset)
    except LookupError:
        raise UnsupportedContent(f"the charset {charset} is unknown") from None
    except UnicodeError as error:
        raise InvalidBody(f"the body is not {charset}") from error


def _without_none(annotation: object) -> object:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [each for each in typing.get_args(annotation) if each is not type(None)]
        return members[0] if len(members) == 1 else annotation
    return annotation

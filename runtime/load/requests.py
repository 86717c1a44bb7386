"""The bytes of requests, made ahead as far as they are all alike.

A CloudEvent differs from the next by its id alone, so the bytes around the id are made once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from upwell.functions.errors import InvalidSettings
from upwell.runtime.load.parts import (
    Field,
    check_method,
    content_type,
    encode_attribute,
    encode_target,
    event_fields,
)

STRUCTURED: Final = "application/cloudevents+json"


class EventMode(StrEnum):
    """How a request carries a CloudEvent."""

    BINARY = "binary"
    """Its attributes are headers, its data is the body."""
    STRUCTURED = "structured"
    """All of it is JSON in the body."""


@dataclass(frozen=True, slots=True)
class Event:
    """What the events of a run have in common."""

    type: str
    source: str
    id_prefix: str
    """An id is this and the request's number."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    mode: EventMode = EventMode.BINARY


@dataclass(frozen=True, slots=True)
class Outline:
    """What the requests of a class have in common."""

    method: str
    target: str
    host: str
    fields: tuple[Field, ...] = ()
    body: bytes | None = None
    event: Event | None = None
    keep_alive: bool = True


class Requests:
    """Encodes the requests of one class.

    Raises InvalidSettings when what it is given cannot stand in a request.
    """

    def __init__(self, outline: Outline) -> None:
        check_method(outline.method)
        self.has_no_answer_body = outline.method == "HEAD"
        self._outline = outline
        event = outline.event
        if event is None:
            self._before, self._after = _encode(outline, outline.fields, outline.body), b""
        elif event.mode is EventMode.BINARY:
            identity = encode_attribute(event.id_prefix) + "\0"
            fields = [*_event_fields(event), *outline.fields, ("ce-id", identity)]
            self._before, _, self._after = _encode(outline, fields, outline.body).partition(b"\0")
        else:
            _event_fields(event)
            self._body = _structured(event, _given(outline.fields, "content-type"), outline.body)

    def encode(self, number: int) -> bytes:
        """The request of this number, of which an event's id is made."""
        event = self._outline.event
        if event is None:
            return self._before
        if event.mode is EventMode.BINARY:
            return b"%b%d%b" % (self._before, number, self._after)
        body = self._body.replace(b"\0", b"%d" % number, 1)
        fields = [each for each in self._outline.fields if each[0].lower() != "content-type"]
        return _encode(self._outline, [("content-type", STRUCTURED), *fields], body)


def _encode(outline: Outline, fields: Sequence[Field], body: bytes | None) -> bytes:
    names = {name.lower() for name, _ in fields}
    said = [] if "host" in names else [("Host", outline.host)]
    said += fields
    if body is not None and "content-type" not in names:
        said.append(("Content-Type", content_type(body)))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        said.append(("Content-Length", str(len(body))))
    if "user-agent" not in names:
        said.append(("User-Agent", "upwell-load"))
    if not outline.keep_alive and "connection" not in names:
        said.append(("Connection", "close"))
    first = f"{outline.method} {encode_target(outline.target)} HTTP/1.1"
    lines = [first, *(f"{name}: {value}" for name, value in said), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def _given(fields: Sequence[Field], wanted: str) -> str | None:
    return next((value for name, value in fields if name.lower() == wanted), None)


def _attributes(event: Event) -> dict[str, str]:
    return {"specversion": "1.0", "type": event.type, "source": event.source, **event.attributes}


def _event_fields(event: Event) -> list[Field]:
    """Of binary mode, without the id, which differs."""
    fields = event_fields(_attributes(event))
    if not event.id_prefix.isprintable():
        raise InvalidSettings(f"{event.id_prefix!r} cannot begin an event's id", where="--id")
    return fields


def _structured(event: Event, given_type: str | None, body: bytes | None) -> bytes:
    """The JSON of an event whose id ends with a NUL, which stands nowhere else in it."""
    whole: dict[str, Any] = {**_attributes(event), "id": event.id_prefix}
    if body is not None:
        kind = given_type or content_type(body)
        whole["datacontenttype"] = kind
        if kind.partition(";")[0].strip().endswith("json"):
            whole["data"] = _read_json(body)
        elif kind.startswith("text/"):
            whole["data"] = body.decode(errors="replace")
        else:
            whole["data_base64"] = base64.b64encode(body).decode()
    head = json.dumps({"id": event.id_prefix}, ensure_ascii=True)
    del whole["id"]
    return f'{head[:-2]}\0", {json.dumps(whole, ensure_ascii=True)[1:]}'.encode()


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidSettings("it is said to be JSON and is not", where="--data") from error

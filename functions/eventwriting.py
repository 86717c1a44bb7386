"""CloudEvents on HTTP: writing a reply, by the HTTP binding and the JSON format of spec 1.0.

Pure and free of any CloudEvents library, as reading is: see `upwell.functions.events`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from upwell.functions.asgi import Headers
from upwell.functions.errors import InvalidResult
from upwell.functions.events import FORBIDDEN, INT32, NAME, is_json, refuse_constant

BATCH = b"application/cloudevents-batch+json"

_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def write_event(attributes: Mapping[str, object], data: bytes) -> Headers:
    """The headers of a reply in binary mode, its content-length included.

    Raises InvalidResult for an attribute that cannot be sent.
    """
    headers: Headers = []
    for name, value in attributes.items():
        if value is None:
            continue
        text = _sendable_text(name, value)
        if name == "datacontenttype":
            headers.append((b"content-type", text.encode("latin-1", "replace")))
        else:
            headers.append((b"ce-" + name.encode(), quote(text, safe=_SAFE).encode()))
    headers.append((b"content-length", b"%d" % len(data)))
    return headers


def write_batch(events: Iterable[tuple[Mapping[str, object], bytes]]) -> tuple[Headers, bytes]:
    """Headers and body of a batch, from each event's attributes and the bytes of its data.

    Raises InvalidResult for an attribute that cannot be sent.
    """
    members = [_write_members(attributes, data) for attributes, data in events]
    body = json.dumps(members, separators=(",", ":")).encode()  # in ASCII: data may hold half of a surrogate pair
    return [(b"content-type", BATCH), (b"content-length", b"%d" % len(body))], body


def _write_members(attributes: Mapping[str, object], data: bytes) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in attributes.items():
        if value is None:
            continue
        text = _sendable_text(name, value)
        members[name] = value if isinstance(value, bool) or (type(value) is int and value in INT32) else text
    if data:
        content_type = attributes.get("datacontenttype")
        try:
            text = data.decode()
            is_text = content_type is not None and not is_json(str(content_type))
            members["data"] = text if is_text else _load_data(text)
        except (ValueError, RecursionError):
            members["data_base64"] = base64.b64encode(data).decode()
    return members


def _load_data(text: str) -> Any:
    """JSON that a member can hold and give back; ValueError for any other, which goes as base64."""
    value = json.loads(text, parse_constant=refuse_constant, parse_float=_finite)
    if value is None:
        raise ValueError("null is no data")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _sendable_text(name: str, value: object) -> str:
    if not NAME.fullmatch(name):
        raise InvalidResult(f"the CloudEvent has an attribute {name!r}: only a-z and 0-9 may form a name")
    text = _attribute_text(value)
    if FORBIDDEN.search(text):
        raise InvalidResult(f"the CloudEvent's attribute {name} holds characters that cannot be sent")
    return text


def _attribute_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)

"""What a function returned, as the two messages of an ASGI response, or as a stream of them.

The common values are told apart by their exact type and sent without building a response object; what is rarer
(subclasses, typed values, Starlette responses, events, generators) costs one more look.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from upwell.functions.asgi import Headers, Receive, Scope, Send
from upwell.functions.caller import Caller
from upwell.functions.encoding import encode_json, is_typed
from upwell.functions.errors import InvalidEvent, InvalidInput, InvalidResult
from upwell.functions.sdk import Reject, Retry
from upwell.functions.signature import derives_from, is_cloudevent

TEXT = (b"content-type", b"text/plain; charset=utf-8")
BYTES = (b"content-type", b"application/octet-stream")
JSON = (b"content-type", b"application/json")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers of one connection, which are the server's and not a function's."""

_RETURNABLE = (
    "Return a Starlette Response, str, bytes, dict, list, a dataclass, pydantic or msgspec object, CloudEvent, "
    "None, a generator of these, or (body, status) or (body, status, headers)."
)
_SCALARS = frozenset({str, int, float, bool, dict, list, type(None)})


async def respond(value: Any, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
    """Answer a request with what its function returned.

    Raises InvalidResult, before anything is sent, when that is nothing a response can be made of. What a generator
    raises after its first item is raised here, with the response half sent.
    """
    kind = type(value)
    if kind is str:
        body, content_type = value.encode(), TEXT
    elif kind is dict:
        body, content_type = encode_json(value), JSON
    elif kind is bytes:
        body, content_type = value, BYTES
    elif kind is list and (not value or type(value[0]) in _SCALARS):
        body, content_type = encode_json(value), JSON
    elif derives_from(kind, "starlette", "Response"):
        await value(scope, receive, send)
        return
    elif isinstance(value, AsyncIterator | Iterator) and not is_typed(kind):
        from upwell.functions.streaming import stream

        await stream(value, scope, receive, send, caller)
        return
    else:
        await send_response(send, *whole(value))
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [content_type, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_refusal(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for what was raised in place of a result; raises it again when it is no refusal."""
    if isinstance(error, Reject):
        await send_text(send, error.status, f"{error.reason}\n")
    elif isinstance(error, Retry):
        seconds = error.after_seconds
        later: Headers = [] if seconds is None else [(b"retry-after", b"%d" % math.ceil(seconds))]
        await send_text(send, 503, f"{error.reason}\n", later)
    elif isinstance(error, InvalidEvent):
        await send_text(send, error.status, f"{error.what}\n")
    elif isinstance(error, InvalidInput):
        await _send_faults(send, error)
    elif derives_from(type(error), "starlette", "HTTPException"):
        await _starlette_response(error)(scope, receive, send)
    else:
        raise error


async def send_text(send: Send, status: int, text: str, headers: Headers | None = None) -> None:
    """Answer with a line of plain text."""
    body = text.encode("utf-8", "replace")
    await send_response(send, status, [TEXT, (b"content-length", b"%d" % len(body)), *(headers or [])], body)


async def send_response(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Answer with a whole body at once; `headers` hold its content-length where one is due."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def whole(value: Any) -> tuple[int, Headers, bytes]:
    """Status, headers and body for a value that is answered at once. Raises InvalidResult."""
    if type(value) is tuple:
        return _answer(value)
    if value is None:
        return 204, [], b""
    headers, body = _content(value)
    return 200, headers, body


def _answer(value: tuple[Any, ...]) -> tuple[int, Headers, bytes]:
    """(body, status) and (body, status, headers), as Flask's users write it; any other tuple may mean anything."""
    if len(value) not in (2, 3) or type(value[1]) is not int or not 200 <= value[1] <= 599:
        raise InvalidResult("the function returned a tuple", hint=f"{_RETURNABLE} For JSON return a list.")
    given = value[2] if len(value) == 3 else {}
    pairs = given.items() if isinstance(given, Mapping) else given
    try:
        extra = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in pairs]
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidResult("the headers are no mapping of text to text", hint=_RETURNABLE) from error
    # Those of another response are often passed on whole: how this one is framed is not theirs to say.
    extra = [each for each in extra if each[0] not in HOP_BY_HOP and each[0] != b"content-length"]
    if value[0] is None:
        return value[1], extra if value[1] in (204, 304) else [*extra, (b"content-length", b"0")], b""
    headers, body = _content(value[0])
    if value[1] in (204, 304):
        raise InvalidResult(f"a response with status {value[1]} has no body", hint="Return (None, status).")
    replaced = {name for name, _ in extra}
    return value[1], [each for each in headers if each[0] not in replaced] + extra, body


def _content(value: Any) -> tuple[Headers, bytes]:
    """Headers and body of one value. Raises InvalidResult."""
    kind = type(value)
    if isinstance(value, str):
        body, content_type = value.encode(), TEXT  # of an enumeration: its value, not its name
    elif isinstance(value, bytes | bytearray | memoryview):
        body, content_type = bytes(value), BYTES
    elif is_cloudevent(kind):
        from upwell.functions.cloudevent import event_reply

        return event_reply(value)
    elif isinstance(value, list) and _is_batch(value):
        from upwell.functions.cloudevent import batch_reply

        return batch_reply(value)
    elif isinstance(value, dict | list) or is_typed(kind):
        body, content_type = encode_json(value), JSON
    else:
        raise InvalidResult(f"the function returned an instance of {kind.__qualname__}", hint=_RETURNABLE)
    return [content_type, (b"content-length", b"%d" % len(body))], body


def _is_batch(value: list[Any]) -> bool:
    """Whether a list holds events and nothing else; an empty one holds none."""
    if not value or type(value[0]) in _SCALARS:
        return False
    return all(is_cloudevent(type(each)) for each in value)


async def _send_faults(send: Send, error: InvalidInput) -> None:
    """Which fields are wrong, as JSON: for a program, and short enough for a person."""
    faults = [{"path": fault.field(), "message": fault.message} for fault in getattr(error, "faults", ())]
    body = json.dumps({"error": error.what, "faults": faults}, ensure_ascii=False).encode("utf-8", "replace")
    await send_response(send, error.status, [JSON, (b"content-length", b"%d" % len(body))], body)


def _starlette_response(error: Any) -> Any:
    """The answer that Starlette gives to its own HTTPException."""
    from starlette.responses import PlainTextResponse, Response

    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    return PlainTextResponse(str(error.detail), status_code=error.status_code, headers=error.headers)

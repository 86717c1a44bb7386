"""What a function returned, as the two messages of an ASGI response.

The common values are told apart by their exact type and sent without building a response object; what is rarer
(subclasses, Starlette responses, events) costs one more look.
"""

from __future__ import annotations

import json
from typing import Any

from upwell.functions.asgi import Headers, Receive, Scope, Send
from upwell.functions.errors import InvalidResult
from upwell.functions.signature import derives_from, is_cloudevent

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_BYTES = (b"content-type", b"application/octet-stream")
_JSON = (b"content-type", b"application/json")
_RETURNABLE = "Return a Starlette Response, str, bytes, dict, list, CloudEvent or None."

_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


async def respond(value: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with what its function returned.

    Raises InvalidResult, before anything is sent, when that is nothing a response can be made of.
    """
    kind = type(value)
    if kind is str:
        body, content_type = value.encode(), _TEXT
    elif kind is dict or kind is list:
        body, content_type = _dump(value), _JSON
    elif kind is bytes:
        body, content_type = value, _BYTES
    elif value is None:
        await send_response(send, 204, [], b"")
        return
    else:
        await _respond_rarely(value, scope, receive, send)
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [content_type, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_text(send: Send, status: int, text: str) -> None:
    """Answer with a line of plain text."""
    body = text.encode("utf-8", "replace")
    await send_response(send, status, [_TEXT, (b"content-length", b"%d" % len(body))], body)


async def send_response(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Answer with a whole body at once; `headers` hold its content-length where one is due."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _respond_rarely(value: Any, scope: Scope, receive: Receive, send: Send) -> None:
    kind = type(value)
    if derives_from(kind, "starlette", "Response"):
        await value(scope, receive, send)
    elif is_cloudevent(kind):
        from upwell.functions.cloudevent import event_reply

        headers, body = event_reply(value)
        await send_response(send, 200, headers, body)
    elif isinstance(value, str):
        await respond(value.encode().decode(), scope, receive, send)  # of an enumeration: its value, not its name
    elif isinstance(value, bytes | dict | list):
        plain: Any = next(each for each in (bytes, dict, list) if isinstance(value, each))
        await respond(plain(value), scope, receive, send)
    else:
        raise InvalidResult(f"the function returned a {kind.__qualname__}", hint=_RETURNABLE)


def _dump(value: object) -> bytes:
    try:
        return _encode_json(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(f"the function returned what is not JSON: {error}", hint=_RETURNABLE) from error

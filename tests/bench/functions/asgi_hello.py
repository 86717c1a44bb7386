"""The least that an ASGI application can be; the same one runs on upwell and on bare uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"14")],
}
_BODY = {"type": "http.response.body", "body": b"Hello, World!\n"}


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Say hello to every request."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send(_START)
    await send(_BODY)

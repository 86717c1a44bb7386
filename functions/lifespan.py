"""What a function made into an application answers besides HTTP: the lifespan, and WebSockets by refusing."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable
from typing import Any

from upwell.functions.asgi import Receive, Scope, Send
from upwell.functions.errors import UpwellError

Hook = Callable[[], Any]

_log = logging.getLogger("upwell.function")


def nothing() -> None:
    """The hook of what needs no start or stop."""


async def serve_other(
    scope: Scope, receive: Receive, send: Send, start: Hook = nothing, stop: Hook = nothing
) -> None:
    """Serve a scope that is no HTTP request, with `start` and `stop`, sync or async, around the lifespan.

    A `start` that raises is logged and refuses the startup; a `stop` that raises is logged. Raises UpwellError for
    a protocol that ASGI does not have.
    """
    if scope["type"] == "lifespan":
        await _serve_lifespan(receive, send, start, stop)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
    else:
        raise UpwellError(f"a function serves no {scope['type']!r} connections")


async def _serve_lifespan(receive: Receive, send: Send, start: Hook, stop: Hook) -> None:
    while (await receive())["type"] == "lifespan.startup":
        try:
            await _call(start)
        except Exception:
            await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
            return
        await send({"type": "lifespan.startup.complete"})
    try:
        await _call(stop)
    except Exception:
        _log.exception("the function's stop failed")
    await send({"type": "lifespan.shutdown.complete"})


async def _call(hook: Hook) -> None:
    result = hook()
    if inspect.isawaitable(result):
        await result

"""Asking an ASGI application from within its own process, as a probe's GET does."""

from __future__ import annotations

import asyncio
import logging

from upwell.functions.asgi import Application, Message, Scope
from upwell.runtime.sidecar.checks import LOOPBACK, USER_AGENT, Check, judge
from upwell.runtime.sidecar.probing import HttpGet

_log = logging.getLogger("upwell.replica")


async def ask_application(app: Application, action: HttpGet, timeout: float) -> Check:
    """Whether `app` answers the GET with 200 to 399 within `timeout` seconds."""
    path, _, query = action.path.partition("?")
    headers = {b"host": LOOPBACK.encode(), b"user-agent": USER_AGENT.encode(), b"accept": b"*/*"}
    headers |= {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in action.headers}
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(headers.items()),
        "client": (LOOPBACK, 0),
        "server": (LOOPBACK, 0),
        "state": {},
    }
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    try:
        async with asyncio.timeout(timeout):
            await app(scope, receive, send)
    except TimeoutError:
        return Check(False, f"{action} took longer than {timeout:g} s")
    except Exception as error:
        _log.warning("a probe's request failed", exc_info=error)
        return Check(False, f"{action} raised {type(error).__name__}: {error}")
    return judge(action, statuses[0]) if statuses else Check(False, f"{action} was not answered")

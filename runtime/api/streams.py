"""An answer that goes on: lines to a client until it leaves, the lines end, or the server does.

The generator is pulled only as fast as the client reads, so that a slow client costs what its source holds back
for it and nothing besides. It is closed before the answer is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from starlette.types import Receive, Scope, Send

from upwell.runtime.api.shapes import JSON_LINES

_log = logging.getLogger("upwell.api")


class LineStream:
    """An ASGI response of the lines that `lines` yields, any number of whole ones at a time."""

    def __init__(self, lines: AsyncGenerator[bytes], ending: asyncio.Event) -> None:
        self._lines = lines
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the first of the three ends it."""
        headers = [(b"content-type", JSON_LINES.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        tasks = [asyncio.create_task(wait) for wait in (self._send(send), _left(receive), _set(self._ending))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                _log.error("a stream failed", exc_info=result)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        try:
            async for data in self._lines:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            await self._lines.aclose()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _set(event: asyncio.Event) -> None:
    await event.wait()

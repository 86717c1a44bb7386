"""Answers in the ways that a soak asks for: at once, after a delay, in pieces; always with its body's length."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PIECES = 8
Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """`/slow` waits 0.3 s, `/pieces` takes as long for an answer of 8 parts, `/` answers at once."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    length = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    text = str(length).encode()
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    pieces = PIECES if scope["path"] == "/pieces" else 1
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text) * pieces).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(1, pieces + 1):
        if number > 1:
            await asyncio.sleep(0.3 / PIECES)
        await send({"type": "http.response.body", "body": text, "more_body": number < pieces})

"""Generators as responses: each item is sent when it is there, and the next one taken when there is room for it.

The response begins with its first item; what is raised before that is answered as ever. Text is sent as
`text/plain`, bytes as `application/octet-stream`, anything else as lines of JSON, by the type of the first item.
Who asks with `Accept: text/event-stream`, or a generator of `ServerSentEvent`, gets Server-Sent Events, with a
comment after each `KEEP_ALIVE_SECONDS` of silence, so that proxies keep the connection.

An async generator runs in its request's own task, and is closed there. A sync one runs in one thread of the pool
from its first item to its close, at most `BUFFERED_ITEMS` ahead of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, cast

from upwell.functions.asgi import Headers, Receive, Scope, Send
from upwell.functions.caller import Caller, Disconnected
from upwell.functions.encoding import encode_json
from upwell.functions.errors import InvalidResult
from upwell.functions.response import BYTES, TEXT, send_refusal, send_response
from upwell.functions.sdk import ServerSentEvent

KEEP_ALIVE_SECONDS = 15.0
BUFFERED_ITEMS = 16
UNINTERRUPTED_ITEMS = 32
"""Items that are sent before the loop gets its turn, when neither the generator nor the connection waits."""

_LINES: Final = (b"content-type", b"application/x-ndjson")
_EVENTS: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_UNBUFFERED: Final = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
_COMMENT: Final = b": keep-alive\n\n"
_NEW_LINE: Final = re.compile(r"\r\n|\r|\n")


async def stream(
    items: AsyncIterator[Any] | Iterator[Any], scope: Scope, receive: Receive, send: Send, caller: Caller
) -> None:
    """Answer with the items of a generator, and close it however the response ends.

    Raises what the generator raises once the response has begun, and InvalidResult for an item that cannot be
    sent.
    """
    source = items if isinstance(items, AsyncIterator) else _InThread(items, caller)
    writer = _Writer(scope, send)
    try:
        try:
            first = await anext(source)
        except StopAsyncIteration:
            await writer.end_empty()
            return
        except Exception as error:
            if writer.begun:
                raise
            await send_refusal(error, scope, receive, send)
            return
        await writer.write(first)
        if scope.get("method") != "HEAD":
            async for item in source:
                await writer.write(item)
        await writer.end()
    except asyncio.CancelledError:
        if isinstance(source, _InThread):
            source.abandon()
        raise
    finally:
        await writer.close()
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


class _Writer:
    """Writes one response's items."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self.begun = False
        self._encode: Callable[[Any], bytes] = encode_item
        self._turn = asyncio.Lock()  # items and comments must not mingle
        self._count = 0
        self._written_at = self._loop.time()
        self._beat: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None
        self._asked_for_events = any(
            name == b"accept" and b"text/event-stream" in value.lower() for name, value in scope["headers"]
        )
        if self._asked_for_events:
            self._keep_alive()

    async def write(self, item: Any) -> None:
        """Send one item, waiting until the connection has room."""
        if not self.begun and isinstance(item, ServerSentEvent) and not self._asked_for_events:
            self._asked_for_events = True
            self._keep_alive()
        async with self._turn:
            if not self.begun:
                await self._begin(item)
            piece = self._encode(item)
            self._written_at = self._loop.time()
            if piece:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        self._count += 1
        if self._count % UNINTERRUPTED_ITEMS == 0:
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Send the end, after the last item."""
        async with self._turn:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def end_empty(self) -> None:
        """Answer for a generator without items."""
        if self.begun:
            await self.end()
        else:
            content_type = _EVENTS if self._asked_for_events else TEXT
            await send_response(self._send, 200, [content_type, (b"content-length", b"0")], b"")

    async def close(self) -> None:
        """Write nothing more."""
        if self._beat is not None:
            self._beat.cancel()
        if self._comment is not None:
            self._comment.cancel()
            await asyncio.wait((self._comment,))

    async def _begin(self, first: Any) -> None:
        headers: Headers
        if self._asked_for_events:
            self._encode, headers = encode_event, [_EVENTS, *_UNBUFFERED]
        elif isinstance(first, str):
            headers = [TEXT]
        else:
            headers = [BYTES if isinstance(first, bytes | bytearray | memoryview) else _LINES]
            self._encode(first)  # refused before anything is sent, or not at all
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    def _keep_alive(self) -> None:
        silent = self._loop.time() - self._written_at
        if silent >= KEEP_ALIVE_SECONDS and (self._comment is None or self._comment.done()):
            self._comment = self._loop.create_task(self._send_comment(), name="keep-alive")
            silent = 0.0
        left = max(KEEP_ALIVE_SECONDS - silent, KEEP_ALIVE_SECONDS / 10)
        self._beat = self._loop.call_later(left, self._keep_alive)

    async def _send_comment(self) -> None:
        # Whatever fails here fails in the generator's own next item too, where it is told.
        with contextlib.suppress(Exception):
            async with self._turn:
                if not self.begun:
                    await self._begin(None)
                self._written_at = self._loop.time()
                await self._send({"type": "http.response.body", "body": _COMMENT, "more_body": True})


def encode_item(item: Any) -> bytes:
    """An item of a plain stream: text and bytes as they are, anything else as a line of JSON."""
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    return encode_json(item) + b"\n"


def encode_event(item: Any) -> bytes:
    """An item of an event stream: a ServerSentEvent, or what becomes the data of one."""
    event = item if isinstance(item, ServerSentEvent) else ServerSentEvent(item)
    lines: list[str] = []
    for name, value in (("event", event.event), ("id", event.id)):
        if value is not None:
            if _NEW_LINE.search(value) or "\0" in value:
                raise InvalidResult(f"the {name} of a server-sent event is one line, not {value!r}")
            lines.append(f"{name}: {value}")
    if event.retry_milliseconds is not None:
        lines.append(f"retry: {event.retry_milliseconds}")
    lines += [f"data: {line}" for line in _NEW_LINE.split(_data_text(event.data))]
    return ("\n".join(lines) + "\n\n").encode()


def _data_text(data: Any) -> str:
    if isinstance(data, str):
        return str(data)
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data).decode("utf-8", "replace")
    return encode_json(data).decode()


class _InThread:
    """A sync iterator as an async one. All but `_produce` is called on the loop."""

    def __init__(self, iterator: Iterator[Any], caller: Caller) -> None:
        self._iterator = iterator
        self._loop = asyncio.get_running_loop()
        self._buffer: deque[Any] = deque()
        self._room = threading.Semaphore(BUFFERED_ITEMS)
        self._changed = asyncio.Event()
        self._ended = False
        self._stopped = False
        self._call = caller.pool.submit(self._produce)
        caller.on_leave = self._leave

    def __aiter__(self) -> _InThread:
        return self

    async def __anext__(self) -> Any:
        """The next item. Raises what the iterator raised, or Disconnected once the caller has left."""
        while not self._buffer and not self._ended and not self._stopped:
            self._changed.clear()
            await self._changed.wait()
        if self._stopped:
            await self._call
            raise Disconnected
        if self._buffer:
            self._room.release()
            return self._buffer.popleft()
        await self._call
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Have the thread close the iterator, and wait for that, unless it is abandoned."""
        self._stop()
        if not self._ended:
            with contextlib.suppress(asyncio.CancelledError):
                await self._call

    def abandon(self) -> None:
        """Wait for the thread no longer: it closes the iterator when that has made its next item."""
        self._stop()
        self._call.abandon()
        self._ended = True

    def _leave(self) -> None:
        self._stop()
        self._call.drop()

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._room.release()
            self._changed.set()

    def _produce(self) -> None:
        try:
            for item in self._iterator:
                self._room.acquire()
                if self._stopped:
                    break
                self._buffer.append(item)
                if len(self._buffer) == 1:
                    self._wake(self._changed.set)
        finally:
            try:
                close = getattr(self._iterator, "close", None)
                if close is not None:
                    cast(Callable[[], object], close)()
            finally:
                self._wake(self._end)

    def _end(self) -> None:
        self._ended = True
        self._changed.set()

    def _wake(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback)

"""A WSGI application (PEP 3333) as an ASGI one.

The application runs in a thread of the function's pool from its call until its result is closed. What it reads
and writes goes through the event loop piece by piece: a read waits for the client's next piece, a write until
the server has taken the last one. A small request is read on the loop before a thread is taken for it, so that
slow senders hold none. When the request is cancelled or the client leaves, the thread's next read or write fails
and the result is closed.

One `_Exchange` is one request: its loop half is the coroutine, its thread half `respond` and what that calls.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import io
from collections.abc import Callable, Coroutine, Iterable
from inspect import Parameter
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeVar, cast

from upwell.functions.asgi import Headers, Message, Receive, Scope, Send
from upwell.functions.environ import Environ, build_environ
from upwell.functions.errors import InvalidResult
from upwell.functions.lifespan import serve_other
from upwell.functions.response import HOP_BY_HOP
from upwell.functions.threads import ThreadPool

T = TypeVar("T")
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType]

READ_AHEAD_BYTES: Final = 64 * 1024
"""A request up to this long is read before a thread is taken for it."""


def is_wsgi(target: object) -> bool:
    """Whether `target` is called with `environ` and `start_response`: Flask and Django applications are."""
    if not callable(target) or inspect.iscoroutinefunction(target):
        return False
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return False
    names = [each.name.strip("_") for each in parameters if each.default is Parameter.empty]
    return len(names) == 2 and (names[0] in ("environ", "env") or names[1] == "start_response")


class WsgiApplication:
    """`application` as ASGI 3; `where` names it in errors. It runs in threads: cancelling a request ends none."""

    is_async: Final = False

    def __init__(self, application: Callable[..., Any], pool: ThreadPool, where: str) -> None:
        self._application = application
        self._pool = pool
        self._where = where

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await serve_other(scope, receive, send)
            return
        exchange = _Exchange(receive, send, bodiless=scope["method"] == "HEAD")
        try:
            environ = build_environ(scope, await exchange.body(scope["headers"]))
            for message in await self._pool.run(exchange.respond, self._application, environ):
                await send(message)
        except _Gone:
            return
        except SystemExit as error:
            raise InvalidResult(f"the application called exit({error.code!r})", where=self._where) from error
        finally:
            exchange.end()


class _Gone(ConnectionResetError):
    """The request was cancelled, or the client has left; nobody is there to answer."""


class _Exchange:
    """One request and its response, between the application's thread and the event loop."""

    def __init__(self, receive: Receive, send: Send, *, bodiless: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self._bodiless = bodiless
        self._read_whole = True
        self._pending: concurrent.futures.Future[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False
        self._status = 0
        self._headers: Headers = []
        self._remaining: int | None = None
        self._begun = False
        self._ended = False

    async def body(self, headers: Headers) -> BinaryIO:
        """What the application reads the request from. Raises _Gone when the client leaves first."""
        fields = dict(headers)
        length = int(fields.get(b"content-length", b"0"))
        if length == 0 and b"transfer-encoding" not in fields:
            return io.BytesIO()
        self._read_whole = False
        if not 0 < length <= READ_AHEAD_BYTES or b"expect" in fields:
            return cast(BinaryIO, io.BufferedReader(_Body(self.read), READ_AHEAD_BYTES))
        chunks = []
        while not self._read_whole:
            chunks.append(await self._next())
        return io.BytesIO(b"".join(chunks))

    def end(self) -> None:
        """The request is over for the event loop: the thread's next read or write fails."""
        self._gone = True
        if self._pending is not None:
            self._pending.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise _Gone("the client left before its request was whole")
        self._read_whole = not message.get("more_body", False)
        return cast(bytes, message.get("body", b""))

    async def _send_all(self, messages: list[Message]) -> None:
        for message in messages:
            await self._send(message)
        if self._watcher is None and self._read_whole and not self._ended and len(messages) == 1:
            # It streams: a client that leaves is not seen by sending alone.
            self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end()

    # The rest runs in the application's thread.

    def read(self) -> bytes:
        """The next piece of the request; empty at its end."""
        while not self._read_whole:
            if chunk := self._wait(self._next):
                return chunk
        return b""

    def _wait(self, ask: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        self._check_gone()
        asked = ask(*arguments)
        try:
            self._pending = future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop is closed
            asked.close()
            raise _Gone("the replica has ended") from None
        try:
            self._check_gone()
            return future.result()
        except concurrent.futures.CancelledError:
            raise _Gone("the request has ended") from None
        finally:
            self._pending = None

    def _check_gone(self) -> None:
        if self._gone:
            if self._pending is not None:
                self._pending.cancel()
            raise _Gone("the request has ended")

    def respond(self, application: Callable[..., Any], environ: Environ) -> list[Message]:
        """Call the application and send what it returns; the messages that are still to be sent."""
        result = application(environ, self.start_response)
        try:
            if isinstance(result, list | tuple) and len(result) == 1:
                self._declare_length(len(result[0]))
            for chunk in cast(Iterable[bytes], result):
                if chunk:
                    self.write(chunk)
                if self._ended and self._is_bodiless():
                    break
            return self._finish()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExceptionInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's callable: it keeps the head, which leaves with the first piece of the body."""
        try:
            if exc_info is not None and self._begun:
                raise exc_info[1].with_traceback(exc_info[2])
            if exc_info is None and self._status:
                raise InvalidResult("the application called start_response twice")
            self._status, self._headers = _status(status), [_header(*each) for each in headers]
        finally:
            exc_info = None  # else the traceback holds this frame, and this frame the traceback
        self._headers = [each for each in self._headers if each[0] not in HOP_BY_HOP]
        lengths = [value for name, value in self._headers if name == b"content-length"]
        self._remaining = int(lengths[0]) if lengths else None
        return self.write

    def write(self, chunk: bytes) -> None:
        """Send a piece of the body, behind the head when it is the first; returns when the server has taken it."""
        if not isinstance(chunk, bytes):
            raise InvalidResult(f"the application returned a {type(chunk).__name__} where bytes are due")
        if not chunk or (self._ended and not self._gone):
            return
        messages = self._head()
        if self._is_bodiless():
            self._ended = True
            chunk = b""
        elif self._remaining is not None:
            chunk = chunk[: self._remaining]
            self._remaining -= len(chunk)
            self._ended = self._remaining == 0
        messages.append({"type": "http.response.body", "body": chunk, "more_body": not self._ended})
        self._wait(self._send_all, messages)

    def _finish(self) -> list[Message]:
        if self._ended:
            return []
        if not self._begun and not self._is_bodiless():
            self._declare_length(0)
        return [*self._head(), {"type": "http.response.body", "body": b""}]

    def _head(self) -> list[Message]:
        if self._begun:
            return []
        if not self._status:
            raise InvalidResult("the application returned before it called start_response")
        self._begun = True
        return [{"type": "http.response.start", "status": self._status, "headers": self._headers}]

    def _declare_length(self, length: int) -> None:
        if self._status and not self._begun and self._remaining is None and not self._is_bodiless():
            self._headers.append((b"content-length", b"%d" % length))
            self._remaining = length

    def _is_bodiless(self) -> bool:
        return self._bodiless or self._status in (204, 304)


class _Body(io.RawIOBase):
    """The request as a stream, which is read piece by piece through a callable that returns nothing at its end."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read_chunk = read
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._chunk:
            self._chunk = memoryview(self._read_chunk())
        taken = self._chunk[: len(buffer)]
        buffer[: len(taken)] = taken
        self._chunk = self._chunk[len(taken) :]
        return len(taken)


def _status(line: str) -> int:
    code = line[:3]
    if not (code.isascii() and code.isdigit() and 200 <= int(code) <= 599 and line[3:4] in ("", " ")):
        raise InvalidResult(f"the application answered with {line!r}, which is no status of HTTP")
    return int(code)


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    if not name or any(each in name + value for each in "\r\n\0"):
        raise InvalidResult(f"the application answered with a header that HTTP cannot carry: {name!r}")
    return name.encode("latin-1").lower(), value.strip(" \t").encode("latin-1")

"""A Python callable as an ASGI application.

`adapt` reads once, from the signature, how the callable is to be called; each request then costs that call and two
messages. Heavier things (Starlette's Request, the CloudEvents library, the threads) come in with the first
function that needs them, so that a replica holds no more than its function uses.

Called by the function host, once for each revision and before the fork; the pool of threads therefore starts none
until the first request.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from upwell.functions.asgi import Application, Message, Receive, Scope, Send
from upwell.functions.errors import InvalidEvent, InvalidResult, UpwellError
from upwell.functions.response import respond, send_text
from upwell.functions.signature import Kind, Signature, derives_from, location, read_signature
from upwell.functions.threads import ThreadPool

# An event is held whole in memory; what is larger belongs into a function that reads its request as a stream.
EVENT_BYTES_LIMIT = 64 * 1024 * 1024

_Call = Callable[[Scope, Receive], Awaitable[Any]]


class Handler:
    """A function made ready to serve: `app` is the ASGI 3 application, `kind` what the function is called with.

    `close` ends its threads; the owner calls it once no request is under way.
    """

    __slots__ = ("_pool", "app", "is_async", "kind")

    def __init__(self, app: Application, kind: Kind, is_async: bool, pool: ThreadPool) -> None:
        self.app = app
        self.kind = kind
        self.is_async = is_async
        self._pool = pool

    def __repr__(self) -> str:
        return f"<Handler {self.kind} {'async' if self.is_async else 'sync'} busy_threads={self.busy_threads}>"

    @property
    def busy_threads(self) -> int:
        """Threads that run the function now; those whose caller has given up are among them."""
        return self._pool.busy

    @property
    def abandoned_threads(self) -> int:
        """Those of them whose caller has given up."""
        return self._pool.abandoned

    def close(self) -> None:
        """Let the threads end; waits for none of them. Idempotent."""
        self._pool.close()


def adapt(target: object, *, threads: int) -> Handler:
    """A handler for `target`: an ASGI application, or a callable of a Request, a CloudEvent or nothing.

    Sync callables run in at most `threads` threads at once. Raises InvalidFunction, with the signatures that would
    fit, for anything else.
    """
    signature = read_signature(target)
    pool = ThreadPool(threads)
    if signature.kind is Kind.ASGI:
        return Handler(cast(Application, target), Kind.ASGI, True, pool)
    run = _runner(cast(Callable[..., Any], target), signature, pool)
    app = _application(_caller(run, signature), where=location(target))
    return Handler(app, signature.kind, signature.is_async, pool)


def _runner(function: Callable[..., Any], signature: Signature, pool: ThreadPool) -> Callable[..., Awaitable[Any]]:
    """The function as one that is awaited, called with its one argument or none."""
    if signature.by_name:
        function = _by_name(function, signature.parameter)
    if signature.is_async:
        return cast(Callable[..., Awaitable[Any]], function)

    async def run(*arguments: Any) -> Any:
        result = await pool.run(function, *arguments)
        return await result if inspect.isawaitable(result) else result

    return run


def _by_name(function: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    return lambda argument: function(**{parameter: argument})


def _caller(run: Callable[..., Awaitable[Any]], signature: Signature) -> _Call:
    if signature.kind is Kind.REQUEST:
        return _request_caller(run, signature)
    if signature.kind is Kind.EVENT:
        return _event_caller(run, signature)
    return lambda scope, receive: run()


def _request_caller(run: Callable[..., Awaitable[Any]], signature: Signature) -> _Call:
    from starlette.requests import Request

    request_class = cast(type[Request], signature.wanted or Request)
    if signature.is_async:
        return lambda scope, receive: run(request_class(scope, receive))
    return lambda scope, receive: run(request_class(scope, _from_thread(receive)))


def _from_thread(receive: Receive) -> Receive:
    """`receive` for a function in a thread, which reads its request with a loop of its own (`asyncio.run`).

    The wait ends with the connection: the server then answers http.disconnect.
    """
    loop = asyncio.get_running_loop()

    async def bridged() -> Message:
        return await receive()

    async def receive_in_thread() -> Message:
        if asyncio.get_running_loop() is loop:
            return await receive()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(bridged(), loop))

    return receive_in_thread


def _event_caller(run: Callable[..., Awaitable[Any]], signature: Signature) -> _Call:
    from upwell.functions.cloudevent import event_reader

    read = event_reader(signature.wanted)

    async def call(scope: Scope, receive: Receive) -> Any:
        return await run(read(scope["headers"], await _read_body(receive)))

    return call


async def _read_body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > EVENT_BYTES_LIMIT:
            raise _TooLarge(f"the event is larger than {EVENT_BYTES_LIMIT} bytes")
        if not message.get("more_body", False):
            return chunk if len(chunks) == 1 else b"".join(chunks)


class _Disconnected(Exception):
    """The caller left before its event was whole; nobody is there to answer."""


class _TooLarge(InvalidEvent):
    status = 413


def _application(call: _Call, where: str) -> Application:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _serve_other(scope, receive, send)
            return
        try:
            result = await call(scope, receive)
        except _Disconnected:
            return
        except InvalidEvent as error:
            await send_text(send, error.status, f"{error.what}\n")
            return
        except SystemExit as error:
            raise InvalidResult(f"the function called exit({error.code!r})", where=where) from error
        except Exception as error:
            if not derives_from(type(error), "starlette", "HTTPException"):
                raise
            result = _starlette_response(error)
        try:
            await respond(result, scope, receive, send)
        except InvalidResult as error:
            error.where = error.where or where
            raise

    return app


def _starlette_response(error: Any) -> Any:
    """The answer that Starlette gives to its own HTTPException."""
    from starlette.responses import PlainTextResponse, Response

    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    return PlainTextResponse(str(error.detail), status_code=error.status_code, headers=error.headers)


async def _serve_other(scope: Scope, receive: Receive, send: Send) -> None:
    """The lifespan protocol, in which nothing happens, and WebSockets, which a plain function does not take."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
    else:
        raise UpwellError(f"a function serves no {scope['type']!r} connections")

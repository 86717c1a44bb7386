"""A Python callable as an ASGI application.

`adapt` reads once, from the signature, how the callable is to be called; each request then costs that call and two
messages. Heavier things (Starlette's Request, the CloudEvents library, the threads) come in with the first
function that needs them, so that a replica holds no more than its function uses.

A caller who leaves ends what is done for it: an async function is cancelled, a sync one that waits for a thread is
not called any more, and one that runs can see it in its context. Applications that speak ASGI themselves learn of
it as ASGI has it.

Called by the function host, once for each revision and before the fork; the pool of threads therefore starts none
until the first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from upwell.functions.asgi import GONE, Application, Message, Receive, Scope, Send
from upwell.functions.caller import Caller, Disconnected
from upwell.functions.errors import InvalidResult
from upwell.functions.foreign import foreign_application
from upwell.functions.hooks import Hooks
from upwell.functions.lifespan import serve_other
from upwell.functions.response import respond, send_refusal
from upwell.functions.sdk import Context, LifecycleHooks
from upwell.functions.signature import Kind, Signature, describe, location, read_signature, refusal
from upwell.functions.threads import ThreadPool

_Run = Callable[..., Awaitable[Any]]
_Call = Callable[[Scope, Receive, Caller], Awaitable[Any]]


class Handler:
    """A function made ready to serve: `app` is the ASGI 3 application, `kind` what the function is called with.

    `start` and `stop` run its module's hooks. `close` ends its threads; the owner calls it once no request is
    under way.
    """

    __slots__ = ("_hooks", "_pool", "app", "is_async", "kind")

    def __init__(
        self, app: Application, kind: Kind, is_async: bool, pool: ThreadPool, hooks: LifecycleHooks
    ) -> None:
        self.app = app
        self.kind = kind
        self.is_async = is_async
        self._pool = pool
        self._hooks = Hooks(hooks, pool)

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

    @property
    def has_start_hooks(self) -> bool:
        """Whether `start` has anything to run."""
        return self._hooks.has_start

    async def start(self) -> None:
        """Run what `on_start` has marked, before the first request. Raises what that raises, or TimeoutError."""
        await self._hooks.start()

    async def stop(self) -> None:
        """Run what `on_stop` has marked, after the last request; failures are logged."""
        await self._hooks.stop()

    def close(self) -> None:
        """Let the threads end; waits for none of them. Idempotent."""
        self._pool.close()


def adapt(target: object, *, threads: int, hooks: LifecycleHooks | None = None) -> Handler:
    """A handler for `target`: an application, or a callable of what `upwell.functions.signature` knows.

    Sync callables run in at most `threads` threads at once. Raises InvalidFunction, with the signatures that would
    fit, for anything else.
    """
    pool = ThreadPool(threads)
    hooks = hooks or LifecycleHooks()
    foreign = foreign_application(target, pool, location(target))
    if foreign is not None:
        return Handler(foreign, Kind.ASGI, getattr(foreign, "is_async", True), pool, hooks)
    signature = read_signature(target)
    if signature.kind is Kind.ASGI:
        return Handler(cast(Application, target), Kind.ASGI, True, pool, hooks)
    function = cast(Callable[..., Any], target)
    app = _application(_caller(function, signature), pool, where=location(target))
    return Handler(app, signature.kind, signature.is_async, pool, hooks)


def _caller(function: Callable[..., Any], signature: Signature) -> _Call:
    """Calls the function for a request, with what its signature asks for."""
    run = _runner(_arranged(function, signature), signature)
    if signature.kind is Kind.NULLARY:
        if signature.context:
            return lambda scope, receive, caller: run(caller, Context(scope, cancelled=caller.cancellation))
        return lambda scope, receive, caller: run(caller)
    if signature.kind is Kind.REQUEST:
        return _request_caller(run, signature)
    return _subject_caller(run, function, signature)


def _runner(function: Callable[..., Any], signature: Signature) -> _Run:
    """The function as one that is awaited, called with the caller and its own arguments."""
    if signature.is_generator:  # nothing of it runs until it is asked for its first item

        async def begin(caller: Caller, *arguments: Any) -> Any:
            return function(*arguments)

        return begin
    if signature.is_async:
        return lambda caller, *arguments: cast(Awaitable[Any], function(*arguments))

    async def run(caller: Caller, *arguments: Any) -> Any:
        leave = caller.on_leave
        call = caller.pool.submit(function, *arguments)
        caller.on_leave = call.drop
        result = await call
        caller.on_leave = leave
        if caller.gone:
            raise Disconnected
        return await result if isinstance(result, Awaitable) else result

    return run


def _arranged(function: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """The function as one of subject and context, in this order and by position, of those that it takes."""
    names = tuple(name for name in (signature.parameter, signature.context) if name)
    positional = signature.positional
    if names == positional:
        return function
    order = [names.index(name) for name in positional]
    named = [(name, index) for index, name in enumerate(names) if name not in positional]

    def call(*arguments: Any) -> Any:
        by_name = {name: arguments[index] for name, index in named}
        return function(*(arguments[index] for index in order), **by_name)

    return call


def _request_caller(run: _Run, signature: Signature) -> _Call:
    from starlette.requests import Request

    request_class = cast(type[Request], signature.wanted or Request)
    if signature.context:

        def call_with_context(scope: Scope, receive: Receive, caller: Caller) -> Awaitable[Any]:
            reads = receive if signature.is_async else _from_thread(receive)
            return run(caller, request_class(scope, reads), Context(scope, cancelled=caller.cancellation))

        return call_with_context
    if signature.is_async:
        return lambda scope, receive, caller: run(caller, request_class(scope, receive))
    return lambda scope, receive, caller: run(caller, request_class(scope, _from_thread(receive)))


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


def _subject_caller(run: _Run, function: Callable[..., Any], signature: Signature) -> _Call:
    from upwell.functions import subjects

    read = _subject_reader(function, signature)
    without = _runner(_arranged(function, _without_subject(signature)), signature)

    async def call(scope: Scope, receive: Receive, caller: Caller) -> Any:
        value, event = await read(scope, receive)
        arguments = [] if value is subjects.MISSING else [value]
        if signature.context:
            arguments.append(Context(scope, cancelled=caller.cancellation, event=event))
        return await (without if value is subjects.MISSING else run)(caller, *arguments)

    return call


def _subject_reader(function: Callable[..., Any], signature: Signature) -> Callable[..., Awaitable[Any]]:
    from upwell.functions import subjects
    from upwell.functions.decoding import Undecodable

    if signature.kind is Kind.EVENT:
        return subjects.event_subject(signature.wanted)
    if signature.kind is Kind.EVENTS:
        return subjects.events_subject(signature.wanted)
    try:
        return subjects.body_subject(signature.wanted, has_default=signature.has_default)
    except Undecodable as error:
        what = f"{describe(function)} takes {signature.parameter} in a way that cannot be read from JSON: {error}"
        raise refusal(function, what) from error


def _without_subject(signature: Signature) -> Signature:
    """The same for a call that leaves the subject to its default."""
    # By name: what stands before the context may be what is left out.
    return Signature(signature.kind, signature.is_async, context=signature.context)


def _application(call: _Call, pool: ThreadPool, where: str) -> Application:
    loop: asyncio.AbstractEventLoop | None = None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal loop
        if scope["type"] != "http":
            await serve_other(scope, receive, send)
            return
        # Told its loop, current_task need not look for it, which on Python 3.11 is a system call.
        task = asyncio.current_task(loop) if loop is not None else None
        if task is None:
            loop = asyncio.get_running_loop()
            task = cast(asyncio.Task[Any], asyncio.current_task())
        caller = Caller(task.cancel, pool)
        scope[GONE] = caller.left
        try:
            try:
                result = await call(scope, receive, caller)
            except Exception as error:
                await send_refusal(error, scope, receive, send)
                return
            await respond(result, scope, receive, send, caller)
        except Disconnected:
            return
        except asyncio.CancelledError:
            caller.give_up()
            if not caller.gone:
                raise
        except SystemExit as error:
            raise InvalidResult(f"the function called exit({error.code!r})", where=where) from error
        except InvalidResult as error:
            error.where = error.where or where
            raise
        finally:
            del scope[GONE]

    return app

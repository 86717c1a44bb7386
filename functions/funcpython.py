"""Functions written for Knative's func-python: `new()` and `handle(scope, receive, send)`.

The contract is that of the func-python package: `new()` makes an instance with an async `handle`, and maybe
`start(cfg)`, `stop()`, `alive()` and `ready()`; a module may have a plain `handle` instead. What the generated
main of a project chooses by its import, `func.yaml` says with `invoke`: under `cloudevent` the event stands in
the scope and `send` takes events. Without a `func.yaml`, code that names the CloudEvents library or reads
`scope["event"]` is taken to want that.

`new()` is called at the start of a replica and not in the template: an instance may hold connections, identities
or random state that no two replicas share. Heavy state that they may share belongs to the module.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

from upwell.functions.asgi import Message, Receive, Scope, Send
from upwell.functions.caller import Disconnected
from upwell.functions.errors import InvalidFunction, InvalidInput, InvalidResult
from upwell.functions.lifespan import serve_other
from upwell.functions.response import send_response, send_text
from upwell.functions.signature import is_cloudevent

Invoke = Literal["http", "cloudevent"]

FUNCTION_FILE: Final = "func.yaml"
LIVENESS: Final = "/health/liveness"
READINESS: Final = "/health/readiness"

_INVOKE = re.compile(r"^invoke:\s*[\"']?(\w+)", re.MULTILINE)
_ASGI = ("scope", "receive", "send")


def is_func_python(target: object) -> bool:
    """Whether `target` is a function `new()`, or `handle(scope, receive, send)`."""
    if not inspect.isfunction(target):
        return False
    parameters = inspect.signature(target).parameters.values()
    required = tuple(each.name.strip("_") for each in parameters if each.default is inspect.Parameter.empty)
    return (target.__name__, required) in (("new", ()), ("handle", _ASGI))


def read_invoke(root: Path) -> Invoke | None:
    """How the function in `root` is invoked; None when there is no `func.yaml`.

    Read from the text: in the block style that `func` writes, a field at the top begins a line and is no other
    field's, and so a replica needs no YAML parser for the one thing that it has to know.
    """
    file = root / FUNCTION_FILE
    if not file.is_file():
        return None
    found = _INVOKE.search(file.read_text(errors="replace"))
    return "cloudevent" if found and found[1] == "cloudevent" else "http"


class FunctionApplication:
    """An ASGI 3 application of the function that `target` is or makes; `invoke` None finds out from its code."""

    is_async: Final = True

    def __init__(self, target: Callable[..., Any], where: str, invoke: Invoke | None = None) -> None:
        self.__wrapped__ = target
        self._target = target
        self._where = where
        self._invoke = invoke
        self._instance: Any = None
        self._handle: Callable[..., Any] | None = None
        self._read_event: Callable[[Scope, Receive], Awaitable[Any]] | None = None
        if invoke == "cloudevent" or (invoke is None and "cloudevents" in sys.modules):
            importlib.import_module("upwell.functions.subjects")  # now, and not in each replica
        if target.__name__ == "handle":
            self._prepare()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await serve_other(scope, receive, send, self._start, self._stop)
            return
        handle = self._handle or self._prepare()
        path = scope["path"]
        if path in (LIVENESS, READINESS):
            await self._answer_probe("alive" if path == LIVENESS else "ready", send)
        elif self._read_event is None:
            await handle(scope, receive, send)
        else:
            await self._handle_event(handle, scope, receive, send)

    def _prepare(self) -> Callable[..., Any]:
        """Make the instance. Raises InvalidFunction when it has no `handle`."""
        if self._target.__name__ == "new":
            self._instance = self._target()
            # Before it was `handle`, an instance was the application itself.
            handle = getattr(self._instance, "handle", None) or self._instance
        else:
            handle = self._target
        if not callable(handle):
            raise InvalidFunction(
                f"new() returned a {type(self._instance).__name__}, which has no handle(scope, receive, send)",
                where=self._where,
                hint="Return an object with such a method, or give the function another name than new.",
            )
        if (self._invoke or _guess_invoke(self._target, handle)) == "cloudevent":
            from upwell.functions.subjects import event_subject

            self._read_event = event_subject(_event_class(handle))
        self._handle = cast(Callable[..., Any], handle)
        return self._handle

    def _start(self) -> Any:
        self._prepare()
        start = getattr(self._instance, "start", None)
        return start(os.environ.copy()) if start is not None else None

    def _stop(self) -> Any:
        stop = getattr(self._instance, "stop", None)
        return stop() if stop is not None else None

    async def _answer_probe(self, name: str, send: Send) -> None:
        check = getattr(self._instance, name, None)
        result = check() if check is not None else True
        if inspect.isawaitable(result):
            result = await result
        healthy, text = result if isinstance(result, tuple) else (result, "OK")
        await send_text(send, 200 if healthy else 500, str(text))

    async def _handle_event(self, handle: Callable[..., Any], scope: Scope, receive: Receive, send: Send) -> None:
        assert self._read_event is not None
        try:
            scope["event"] = (await self._read_event(scope, receive)).value
        except Disconnected:
            return
        except InvalidInput as error:
            await send_text(send, error.status, f"Bad Request: this function takes CloudEvents: {error.what}\n")
            return
        await handle(scope, receive, EventSender(send))


class EventSender:
    """The `send` of a function that is invoked with events: it takes events, in either encoding."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, event: Any, status: int = 200) -> None:
        """Answer with an event in structured mode; a message of ASGI is passed on."""
        if isinstance(event, dict):
            await self.http(event)
        else:
            await self.structured(event, status)

    async def structured(self, event: Any, status: int = 200) -> None:
        """Answer with the event as one JSON document."""
        await self._answer(*_encode(event, "structured"), status)

    async def binary(self, event: Any, status: int = 200) -> None:
        """Answer with the event's data as the body and its attributes in headers."""
        await self._answer(*_encode(event, "binary"), status)

    async def http(self, message: Message) -> None:
        """Send a message of ASGI as it is."""
        await self._send(message)

    async def _answer(self, headers: dict[str, str], body: bytes, status: int) -> None:
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send_response(self._send, status, [*encoded, (b"content-length", b"%d" % len(body))], body)


def _encode(event: Any, mode: Literal["structured", "binary"]) -> tuple[dict[str, str], bytes]:
    """Headers and body, by the functions that the event's own library has for it."""
    if any(base.__module__ == "cloudevents.core.base" for base in type(event).__mro__):
        from cloudevents.core.bindings import http

        message = http.to_structured_event(event) if mode == "structured" else http.to_binary_event(event)
        return message.headers, message.body
    modules = [base.__module__ for base in type(event).__mro__ if base.__module__.startswith("cloudevents.")]
    if not modules:
        raise InvalidResult(f"the function sent a {type(event).__qualname__} where an event is due")
    package = "cloudevents.v1" if modules[0].startswith("cloudevents.v1.") else "cloudevents"
    conversion = importlib.import_module(f"{package}.conversion")
    headers, body = getattr(conversion, f"to_{mode}")(event)
    return headers, body or b""


def _guess_invoke(target: Callable[..., Any], handle: Callable[..., Any]) -> Invoke:
    for each in vars(sys.modules.get(target.__module__, types)).values():
        if getattr(each, "__module__", "") in ("func_python.http", "func_python.cloudevent"):
            return "http" if each.__module__ == "func_python.http" else "cloudevent"
    if any(_is_events(value) or value == "event" for value in _mentioned(handle)):
        return "cloudevent"
    return "http"


def _is_events(value: object) -> bool:
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", "")
    return isinstance(name, str) and name.partition(".")[0] == "cloudevents"


def _event_class(handle: Callable[..., Any]) -> type | None:
    """The class of events that the function's code names; else that of func-python, which cloudevents 2 has."""
    for value in _mentioned(handle):
        if isinstance(value, type) and is_cloudevent(value):
            return value
    try:
        from cloudevents.core.v1.event import CloudEvent
    except ModuleNotFoundError:
        return None
    return CloudEvent


def _mentioned(handle: Callable[..., Any]) -> Iterator[object]:
    """Constants in the code of a function, or of its object's class, and what its global names stand for."""
    instance = getattr(handle, "__self__", None)
    kinds = () if instance is None else type(instance).__mro__
    functions = [value for kind in kinds for value in vars(kind).values() if inspect.isfunction(value)]
    for function in functions or filter(inspect.isfunction, [inspect.unwrap(handle)]):
        scope = function.__globals__
        for code in _codes(function.__code__):
            yield from code.co_consts
            yield from (scope[name] for name in code.co_names if name in scope)
            yield from _closed_over(function)


def _closed_over(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # not assigned yet


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)

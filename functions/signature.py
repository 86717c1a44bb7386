"""What a callable wants to be called with, read from its signature and annotations.

An annotation decides; only where there is none does the parameter's name. Annotations that are strings are
resolved in the callable's own module, and those that cannot be (an import under `TYPE_CHECKING`) are taken by
their last word. Nothing is imported here: a class is recognised by the names in its method resolution order.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from inspect import Parameter
from typing import Any

from upwell.functions.errors import InvalidFunction


class Kind(StrEnum):
    """What a function is called with."""

    ASGI = "asgi"
    REQUEST = "request"
    EVENT = "event"
    NULLARY = "nullary"


@dataclass(frozen=True, slots=True)
class Signature:
    """How to call one function.

    `parameter` is the name of the argument that carries the request or event, empty for the other kinds;
    `wanted` is the class that its annotation asks for, None when the annotation left it open.
    """

    kind: Kind
    is_async: bool
    parameter: str = ""
    by_name: bool = False
    wanted: type | None = None


_NAMES = {"request": Kind.REQUEST, "req": Kind.REQUEST, "event": Kind.EVENT}
_ASGI = ("scope", "receive", "send")
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_FITTING = """Any of these would fit, as a function, a method or an instance with __call__, sync or async:
    async def hello():
    async def hello(request: starlette.requests.Request):
    async def hello(event: cloudevents.core.v1.event.CloudEvent):   or the class of cloudevents.v1.http;
        with cloudevents 1 that of cloudevents.http
    async def app(scope, receive, send):"""


def read_signature(target: object) -> Signature:
    """How `target` wants to be called.

    Raises InvalidFunction, with the signatures that would fit, when it wants something that a request is not.
    """
    if inspect.isclass(target):
        return _read_class(target)
    if not callable(target):
        raise _refusal(target, f"a {type(target).__name__} cannot be called")
    parameters = _parameters(target)
    required = [each for each in parameters if each.default is Parameter.empty and each.kind not in _VARIADIC]
    is_async = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(_call_of(target))
    if _is_asgi(required, is_async):
        return Signature(Kind.ASGI, is_async=True)
    return _read_function(target, parameters, required, is_async)


def location(target: object) -> str:
    """`file:line` where `target` was written, or its type's name when that is unknown."""
    function = _underlying(target)
    code = getattr(function, "__code__", None)
    if isinstance(code, types.CodeType):
        return f"{code.co_filename}:{code.co_firstlineno}"
    return f"{type(target).__module__}.{type(target).__qualname__}"


def derives_from(kind: type, library: str, *names: str) -> bool:
    """Whether a class is, or descends from, one of these names in a library that need not be imported."""
    return any(base.__name__ in names and base.__module__.partition(".")[0] == library for base in kind.__mro__)


def is_cloudevent(kind: type) -> bool:
    """Whether a class is one of the events of the cloudevents library, of either major version."""
    return derives_from(kind, "cloudevents", "CloudEvent", "BaseCloudEvent")


def _read_class(target: type) -> Signature:
    """A class is only ever an ASGI application whose instances are awaited, as Starlette's endpoints are."""
    required = [each for each in _parameters(target) if each.default is Parameter.empty]
    if hasattr(target, "__await__") and _is_asgi(required, is_async=True):
        return Signature(Kind.ASGI, is_async=True)
    raise _refusal(target, f"{target.__qualname__} is a class; name an instance or a function")


def _read_function(
    target: object, parameters: list[Parameter], required: list[Parameter], is_async: bool
) -> Signature:
    resolve = _resolver(target)
    for parameter in parameters:
        found = _by_annotation(resolve(parameter))
        if found is not None and all(each is parameter for each in required):
            return _signature(parameter, parameters, *found, is_async)
    subject = required[0] if required else _named(parameters)
    if len(required) > 1 or (subject is None and any(each.kind in _VARIADIC for each in parameters)):
        raise _refusal(target, f"{_describe(target)} takes what no request can give it")
    if subject is None:
        return Signature(Kind.NULLARY, is_async)
    kind = _NAMES.get(subject.name)
    if kind is None or resolve(subject) not in (Parameter.empty, Any, object):
        raise _refusal(target, f"{_describe(target)} takes {subject}, which no request can give it")
    return _signature(subject, parameters, kind, None, is_async)


def _named(parameters: list[Parameter]) -> Parameter | None:
    """An optional parameter that is named for what it should get."""
    for each in parameters:
        if each.name in _NAMES and each.kind not in _VARIADIC and each.annotation is Parameter.empty:
            return each
    return None


def _signature(
    parameter: Parameter, parameters: list[Parameter], kind: Kind, wanted: type | None, is_async: bool
) -> Signature:
    # By position where possible: a decorator may have renamed the parameter that it passes on.
    by_name = parameter is not parameters[0] or parameter.kind is Parameter.KEYWORD_ONLY
    return Signature(kind, is_async, parameter.name, by_name, wanted)


def _is_asgi(required: list[Parameter], is_async: bool) -> bool:
    if len(required) != len(_ASGI) or any(each.kind is Parameter.KEYWORD_ONLY for each in required):
        return False
    return is_async or tuple(each.name.strip("_") for each in required) == _ASGI


def _by_annotation(annotation: object) -> tuple[Kind, type | None] | None:
    if isinstance(annotation, str):
        word = annotation.strip("\"'").removesuffix(" | None").rpartition(".")[2]
        return {"Request": (Kind.REQUEST, None), "CloudEvent": (Kind.EVENT, None)}.get(word)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(filter(None, map(_by_annotation, typing.get_args(annotation))), None)
    if not isinstance(annotation, type):
        return None
    if derives_from(annotation, "starlette", "Request"):
        return Kind.REQUEST, annotation
    return (Kind.EVENT, annotation) if is_cloudevent(annotation) else None


def _parameters(target: Callable[..., object]) -> list[Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError) as error:
        raise _refusal(target, "it has no signature that can be read") from error


def _resolver(target: object) -> Callable[[Parameter], object]:
    """A function from a parameter to its annotation, resolved when it is a string that can be."""
    scope = getattr(_underlying(target), "__globals__", {})

    def resolve(parameter: Parameter) -> object:
        if not isinstance(parameter.annotation, str):
            return parameter.annotation
        holder = types.SimpleNamespace(__annotations__={"value": parameter.annotation})
        try:
            return typing.get_type_hints(holder, globalns=scope)["value"]
        except Exception:
            return parameter.annotation  # an annotation is the user's own code: any failure means unresolved

    return resolve


def _member(kind: type, name: str) -> object:
    return getattr(kind, name, None)


def _call_of(target: object) -> object:
    while isinstance(target, functools.partial):
        target = target.func
    return _member(type(target), "__call__")


def _underlying(target: object) -> object:
    """The plain function behind partials, methods, instances and `functools.wraps`."""
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = _member(type(target), "__call__") or target
    target = getattr(target, "__func__", target)
    return inspect.unwrap(target) if callable(target) else target


def _describe(target: object) -> str:
    name = getattr(target, "__qualname__", None) or getattr(
        _underlying(target), "__qualname__", type(target).__qualname__
    )
    return f"{name}{inspect.signature(target)}" if callable(target) else str(name)


def _refusal(target: object, what: str) -> InvalidFunction:
    return InvalidFunction(what, where=location(target), hint=_FITTING)

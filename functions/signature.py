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
from collections.abc import Callable, Sequence
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
    EVENTS = "events"
    BODY = "body"
    NULLARY = "nullary"


@dataclass(frozen=True, slots=True)
class Signature:
    """How to call one function.

    `parameter` is the name of the argument that carries the request, event or body, empty for the other kinds;
    `wanted` is what its annotation asks for, None when the annotation left it open. `context` is the name of the
    argument that carries the context, empty for none. `positional` are those of the two that are passed by
    position, in their order. `is_async` is of what runs on the loop, `is_generator` of what streams. With
    `has_default` the function may be called without a body.
    """

    kind: Kind
    is_async: bool
    parameter: str = ""
    wanted: Any = None
    context: str = ""
    positional: tuple[str, ...] = ()
    is_generator: bool = False
    has_default: bool = False


_Found = tuple[Kind, Any]

_NAMES = {
    "request": Kind.REQUEST,
    "req": Kind.REQUEST,
    "event": Kind.EVENT,
    "cloud_event": Kind.EVENT,
    "cloudevent": Kind.EVENT,
}
_CONTEXT_NAMES = ("ctx", "context")
_ASGI = ("scope", "receive", "send")
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_OPEN = (Parameter.empty, Any, object)
_FITTING = """Any of these would fit, as a function, a method or an instance with __call__, sync or async, \
and each with a further ctx: upwell.functions.sdk.Context:
    async def hello():
    async def hello(request: starlette.requests.Request):
    async def hello(event: cloudevents.core.v1.event.CloudEvent):   or the class of cloudevents.v1.http;
        with cloudevents 1 that of cloudevents.http; list[CloudEvent] takes batches too
    async def hello(order: Order):   a dataclass, a pydantic model or a msgspec Struct; dict, list, str, bytes
    async def app(scope, receive, send):"""


def read_signature(target: object) -> Signature:
    """How `target` wants to be called.

    Raises InvalidFunction, with the signatures that would fit, when it wants something that a request is not.
    """
    if inspect.isclass(target):
        return _read_class(target)
    if not callable(target):
        raise refusal(target, f"a {type(target).__name__} cannot be called")
    parameters = _parameters(target)
    required = [each for each in parameters if each.default is Parameter.empty and each.kind not in _VARIADIC]
    if _is_asgi(required, _is(inspect.iscoroutinefunction, target)):
        return Signature(Kind.ASGI, is_async=True)
    return _read_function(target, parameters)


def location(target: object) -> str:
    """`file:line` where `target` was written, or its type's name when that is unknown."""
    function = _underlying(target)
    code = getattr(function, "__code__", None)
    if isinstance(code, types.CodeType):
        return f"{code.co_filename}:{code.co_firstlineno}"
    return f"{type(target).__module__}.{type(target).__qualname__}"


def refusal(target: object, what: str) -> InvalidFunction:
    """The error that says what is wrong with `target`, where it is, and what would fit."""
    return InvalidFunction(what, where=location(target), hint=_FITTING)


def describe(target: object) -> str:
    """The callable with its parameters, as in its definition."""
    name = getattr(target, "__qualname__", None) or getattr(
        _underlying(target), "__qualname__", type(target).__qualname__
    )
    return f"{name}{inspect.signature(target)}" if callable(target) else str(name)


def derives_from(kind: type, library: str, *names: str) -> bool:
    """Whether a class is, or descends from, one of these names in a library that need not be imported."""
    return any(base.__name__ in names and base.__module__.partition(".")[0] == library for base in kind.__mro__)


def is_cloudevent(kind: type) -> bool:
    """Whether a class is one of the events of the cloudevents library, of either major version."""
    return derives_from(kind, "cloudevents", "CloudEvent", "BaseCloudEvent")


def _read_class(target: type) -> Signature:
    """A class is only ever an ASGI application whose instances are awaited, as Starlette's endpoints are."""
    required = [each for each in _parameters(target) if each.default is Parameter.empty]
    if hasattr(target, "__await__") and _is_asgi(required, is_coroutine=True):
        return Signature(Kind.ASGI, is_async=True)
    raise refusal(target, f"{target.__qualname__} is a class; name an instance or a function")


def _read_function(target: object, parameters: list[Parameter]) -> Signature:
    resolve = _resolver(target)
    named = [each for each in parameters if each.kind not in _VARIADIC]
    context = _find_context(named, resolve)
    others = [each for each in named if each is not context]
    required = [each for each in others if each.default is Parameter.empty]
    subject, found = _find_subject(target, others, required, resolve)
    if len(required) > 1 or (subject is None and required):
        raise refusal(target, f"{describe(target)} takes what no request can give it")
    if subject is None and context is None and len(named) < len(parameters):
        raise refusal(target, f"{describe(target)} takes what no request can give it")
    passed = [each for each in named if each is subject or each is context]
    kind, wanted = found
    return Signature(
        kind,
        _is(inspect.iscoroutinefunction, target) or _is(inspect.isasyncgenfunction, target),
        subject.name if subject else "",
        wanted,
        context.name if context else "",
        _positional(target, named, passed),
        _is(inspect.isgeneratorfunction, target) or _is(inspect.isasyncgenfunction, target),
        subject is not None and subject.default is not Parameter.empty,
    )


def _find_context(named: list[Parameter], resolve: Callable[[Parameter], object]) -> Parameter | None:
    for each in named:
        if _is_context(resolve(each)):
            return each
    for each in named:
        if each.name in _CONTEXT_NAMES and resolve(each) in _OPEN and each.default in (Parameter.empty, None):
            return each
    return None


def _find_subject(
    target: object,
    others: list[Parameter],
    required: list[Parameter],
    resolve: Callable[[Parameter], object],
) -> tuple[Parameter | None, _Found]:
    """The parameter for the request, event or body, and what it wants; no other may be required."""
    for each in others:
        found = _by_annotation(resolve(each))
        if found is not None and all(other is each for other in required):
            return each, found
    if len(required) == 1:
        return required[0], _by_name_or_type(target, required[0], resolve(required[0]))
    for each in others if not required else ():
        if each.name in _NAMES and each.annotation is Parameter.empty:
            return each, (_NAMES[each.name], None)
    for each in others if not required else ():
        annotation = resolve(each)
        if annotation not in _OPEN and _is_for_bodies(annotation):
            return each, (Kind.BODY, annotation)
    return None, (Kind.NULLARY, None)


def _by_name_or_type(target: object, parameter: Parameter, annotation: object) -> _Found:
    if annotation not in _OPEN and not isinstance(annotation, str):
        return Kind.BODY, annotation
    kind = _NAMES.get(parameter.name)
    if kind is None or isinstance(annotation, str):
        unknown = ": its annotation cannot be resolved when the module is loaded" if annotation else ""
        reason = unknown if isinstance(annotation, str) else ", which no request can give it"
        raise refusal(target, f"{describe(target)} takes {parameter}{reason}")
    return kind, None


def _is_for_bodies(annotation: object) -> bool:
    """Whether an optional parameter is there for a body: it is of a class of fields."""
    from upwell.functions.typed import is_model_type

    return is_model_type(annotation)


def _positional(target: object, named: Sequence[Parameter], passed: Sequence[Parameter]) -> tuple[str, ...]:
    """By position where possible: a decorator may have renamed the parameters that it passes on."""
    count = 0
    while (
        count < len(passed) and passed[count] is named[count] and named[count].kind is not Parameter.KEYWORD_ONLY
    ):
        count += 1
    for each in passed[count:]:
        if each.kind is Parameter.POSITIONAL_ONLY:
            raise refusal(target, f"{describe(target)} takes what no request can give it")
    return tuple(each.name for each in passed[:count])


def _is_asgi(required: list[Parameter], is_coroutine: bool) -> bool:
    if len(required) != len(_ASGI) or any(each.kind is Parameter.KEYWORD_ONLY for each in required):
        return False
    return is_coroutine or tuple(each.name.strip("_") for each in required) == _ASGI


def _is_context(annotation: object) -> bool:
    annotation = _unwrapped(annotation)
    if isinstance(annotation, str):
        return _last_word(annotation) == "Context"
    if _is_union(annotation):
        return any(map(_is_context, typing.get_args(annotation)))
    return isinstance(annotation, type) and derives_from(annotation, "upwell", "Context")


def _by_annotation(annotation: object) -> _Found | None:
    annotation = _unwrapped(annotation)
    if isinstance(annotation, str):
        word = _last_word(annotation)
        kinds = {"Request": Kind.REQUEST, "CloudEvent": Kind.EVENT, "list[CloudEvent]": Kind.EVENTS}
        return (kinds[word], None) if word in kinds else None
    if _is_union(annotation):
        return next(filter(None, map(_by_annotation, typing.get_args(annotation))), None)
    if typing.get_origin(annotation) in (list, Sequence):
        inner = _by_annotation(typing.get_args(annotation)[0])
        return (Kind.EVENTS, inner[1]) if inner is not None and inner[0] is Kind.EVENT else None
    if not isinstance(annotation, type):
        return None
    if derives_from(annotation, "starlette", "Request"):
        return Kind.REQUEST, annotation
    return (Kind.EVENT, annotation) if is_cloudevent(annotation) else None


def _last_word(annotation: str) -> str:
    text = annotation.strip("\"'").removesuffix(" | None")
    outer, bracket, inner = text.partition("[")
    if bracket and outer.rpartition(".")[2].lower() in ("list", "sequence"):
        return f"list[{inner.removesuffix(']').rpartition('.')[2]}]"
    return text.rpartition(".")[2]


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _unwrapped(annotation: object) -> object:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _is(predicate: Callable[[Any], bool], target: object) -> bool:
    return predicate(target) or predicate(_call_of(target))


def _parameters(target: Callable[..., object]) -> list[Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError) as error:
        raise refusal(target, "it has no signature that can be read") from error


def _resolver(target: object) -> Callable[[Parameter], object]:
    """A function from a parameter to its annotation, resolved when it is a string that can be."""
    scope = getattr(_underlying(target), "__globals__", {})

    def resolve(parameter: Parameter) -> object:
        if not isinstance(parameter.annotation, str):
            return parameter.annotation
        holder = types.SimpleNamespace(__annotations__={"value": parameter.annotation})
        try:
            return typing.get_type_hints(holder, globalns=scope, include_extras=True)["value"]
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

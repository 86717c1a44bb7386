"""A callable's signature says what it is called with; what fits nothing is refused with what would."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request

from support.functions import unannotated
from upwell.functions.asgi import Receive, Scope, Send
from upwell.functions.errors import InvalidFunction
from upwell.functions.signature import Kind, location, read_signature

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent

    from upwell.functions.sdk import Context


@dataclass
class Order:
    """What a body may be."""

    number: int


class OwnRequest(Request):
    """What a user may derive."""


def nullary() -> str:
    return ""


async def nullary_async() -> str:
    return ""


def with_optional(name: str = "World") -> str:
    return name


def annotated(anything: Request) -> str:
    return ""


async def annotated_by_text(anything: Request) -> str:
    return ""


def annotated_by_own(request: OwnRequest) -> str:
    return ""


def annotated_optional(anything: Optional[Request] = None) -> str:  # noqa: UP045  people write it so
    return ""


def annotated_union(anything: Request | None) -> str:
    return ""


def keyword_only(*, verbose: bool = False, incoming: Request) -> str:
    return ""


@unannotated
def named_request(request: Any) -> Any:
    return ""


@unannotated
def named_req(req: Any) -> Any:
    return ""


@unannotated
def named_cloud_event(cloud_event: Any) -> Any:
    return ""


@unannotated
def named_event(event: Any) -> Any:
    return ""


@unannotated
def named_optional(request: Any = None) -> Any:
    return ""


def named_any(request: Any) -> str:
    return ""


def event_only_for_checkers(arrived: CloudEvent) -> str:
    return ""


def events_only_for_checkers(arrived: list[CloudEvent]) -> str:
    return ""


def context_only_for_checkers(arrived: Context) -> str:
    return ""


def context_and_anything(ctx: Context, *arguments: Any, **options: Any) -> str:
    return ""


def typed_body(request: dict[str, str]) -> str:
    return ""


def optional_body(limit: int = 3, order: Order | None = None) -> str:
    return ""


async def typed_body_of_any_name(*, number: int) -> str:
    return ""


def streaming() -> Iterator[str]:
    yield ""


async def streaming_async() -> AsyncIterator[str]:
    yield ""


async def application(scope: Scope, receive: Receive, send: Send) -> None: ...


@unannotated
def application_in_disguise(scope: Any, receive: Any, send: Any) -> Any:
    return application(scope, receive, send)


async def application_of_other_names(_scope: Scope, _receive: Receive, _send: Send) -> None: ...


class Applications:
    """An instance that is an application, with a method that takes a request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def method(self, request: Request) -> str:
        return ""


class Greeter:
    def __call__(self) -> str:
        return ""


class Endpoint(HTTPEndpoint):
    """An application that is a class."""


def passes_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize(
    ("target", "kind", "is_async"),
    [
        (nullary, Kind.NULLARY, False),
        (nullary_async, Kind.NULLARY, True),
        (with_optional, Kind.NULLARY, False),
        (functools.partial(with_optional, "Ada"), Kind.NULLARY, False),
        (functools.partial(nullary_async), Kind.NULLARY, True),
        (lambda: "", Kind.NULLARY, False),
        (Greeter(), Kind.NULLARY, False),
        (annotated, Kind.REQUEST, False),
        (annotated_by_text, Kind.REQUEST, True),
        (annotated_by_own, Kind.REQUEST, False),
        (annotated_optional, Kind.REQUEST, False),
        (annotated_union, Kind.REQUEST, False),
        (keyword_only, Kind.REQUEST, False),
        (Applications().method, Kind.REQUEST, True),
        (passes_on(annotated), Kind.REQUEST, False),
        (named_request, Kind.REQUEST, False),
        (named_req, Kind.REQUEST, False),
        (named_optional, Kind.REQUEST, False),
        (named_any, Kind.REQUEST, False),
        (named_event, Kind.EVENT, False),
        (named_cloud_event, Kind.EVENT, False),
        (event_only_for_checkers, Kind.EVENT, False),
        (events_only_for_checkers, Kind.EVENTS, False),
        (typed_body, Kind.BODY, False),
        (optional_body, Kind.BODY, False),
        (typed_body_of_any_name, Kind.BODY, True),
        (context_only_for_checkers, Kind.NULLARY, False),
        (context_and_anything, Kind.NULLARY, False),
        (streaming, Kind.NULLARY, False),
        (streaming_async, Kind.NULLARY, True),
        (application, Kind.ASGI, True),
        (application_in_disguise, Kind.ASGI, True),
        (application_of_other_names, Kind.ASGI, True),
        (Applications(), Kind.ASGI, True),
        (Starlette(), Kind.ASGI, True),
        (Endpoint, Kind.ASGI, True),
    ],
)
def test_signature_says_what_the_callable_takes(target: object, kind: Kind, is_async: bool) -> None:
    signature = read_signature(target)
    assert (signature.kind, signature.is_async) == (kind, is_async)


def test_annotation_gives_the_class_to_build() -> None:
    assert read_signature(annotated_by_own).wanted is OwnRequest
    assert read_signature(annotated_by_text).wanted is Request
    assert read_signature(named_request).wanted is None


@unannotated
def two_arguments(name: Any, city: Any) -> Any:
    return ""


@unannotated
def unknown_name(payload: Any) -> Any:
    return ""


def unresolved_annotation(request: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    return ""


def request_and_more(request: Request, name: str) -> str:
    return name


def anything(*arguments: Any, **options: Any) -> str:
    return ""


class ReadsNothing:
    def __init__(self) -> None: ...


@pytest.mark.parametrize(
    "target",
    [two_arguments, unknown_name, unresolved_annotation, request_and_more, anything, ReadsNothing, 3, "main"],
)
def test_what_fits_nothing_is_refused_with_what_would_fit(target: object) -> None:
    with pytest.raises(InvalidFunction) as refused:
        read_signature(target)
    for fitting in ("hello():", "Request", "CloudEvent", "Context", "dataclass", "app(scope, receive, send)"):
        assert fitting in refused.value.hint


def test_refusal_names_the_callable_and_the_line_it_is_on() -> None:
    with pytest.raises(InvalidFunction) as refused:
        read_signature(functools.partial(two_arguments))
    line = inspect.getsourcelines(two_arguments)[1]
    assert refused.value.where == f"{Path(__file__)}:{line}"
    assert "two_arguments(name, city)" in refused.value.what


@pytest.mark.parametrize("target", [passes_on(annotated), Greeter(), Applications().method])
def test_location_is_where_the_user_wrote_the_code(target: object) -> None:
    assert location(target).startswith(f"{Path(__file__)}:")

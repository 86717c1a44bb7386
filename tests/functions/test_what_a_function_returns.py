"""Each value that a function may return becomes one response, and what may not is a plain 500's cause."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from support.functions import answer, handler, request, run
from upwell.functions.asgi import Message
from upwell.functions.errors import InvalidResult, UpwellError


@dataclasses.dataclass
class Point:
    x: int
    y: float


class PointModel(pydantic.BaseModel):
    x: int = pydantic.Field(serialization_alias="ex")


class PointStruct(msgspec.Struct):
    x: int


ALL_POINTS = b'[{"x":1,"y":2.5},{"ex":1},{"x":1}]'


class Colour(enum.StrEnum):
    RED = "red"


class Names(dict[str, int]):
    """A dictionary that is more than one."""


def returning(value: object) -> Callable[[], Awaitable[object]]:
    async def function() -> object:
        return value

    return function


@pytest.mark.parametrize(
    ("value", "status", "content_type", "body"),
    [
        ("héllo", 200, "text/plain; charset=utf-8", "héllo".encode()),
        ("", 200, "text/plain; charset=utf-8", b""),
        (Colour.RED, 200, "text/plain; charset=utf-8", b"red"),
        (b"\x00\xff", 200, "application/octet-stream", b"\x00\xff"),
        ({"a": ["é", None]}, 200, "application/json", '{"a":["é",null]}'.encode()),
        (Names(a=1), 200, "application/json", b'{"a":1}'),
        ([], 200, "application/json", b"[]"),
        (None, 204, None, b""),
        (PlainTextResponse("made", 201), 201, "text/plain; charset=utf-8", b"made"),
        (JSONResponse({"a": 1}), 200, "application/json", b'{"a":1}'),
        (bytearray(b"a"), 200, "application/octet-stream", b"a"),
        (Point(1, 2.5), 200, "application/json", b'{"x":1,"y":2.5}'),
        (PointModel(x=1), 200, "application/json", b'{"ex":1}'),
        (PointStruct(1), 200, "application/json", b'{"x":1}'),
        ([Point(1, 2.5), PointModel(x=1), PointStruct(1)], 200, "application/json", ALL_POINTS),
        ({"at": datetime(2024, 2, 29, tzinfo=UTC)}, 200, "application/json", b'{"at":"2024-02-29T00:00:00Z"}'),
        ({"of": {Colour.RED}}, 200, "application/json", b'{"of":["red"]}'),
        (("made", 201), 201, "text/plain; charset=utf-8", b"made"),
        (
            ({"a": 1}, 400, {"Content-Type": "application/problem+json"}),
            400,
            "application/problem+json",
            b'{"a":1}',
        ),
        ((None, 202), 202, None, b""),
    ],
)
def test_returned_value_becomes_the_response(
    value: object, status: int, content_type: str | None, body: bytes
) -> None:
    response = answer(returning(value))
    assert (response.status_code, response.headers.get("content-type")) == (status, content_type)
    assert response.content == body
    if status != 204:
        assert response.headers["content-length"] == str(len(body))
    else:
        assert "content-length" not in response.headers


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_any_json_value_comes_through_unchanged(value: dict[str, Any]) -> None:
    assert json.loads(answer(returning(value)).content) == value


@pytest.mark.parametrize(
    "value",
    [
        3,
        1.5,
        True,
        object(),
        Point,
        ("a", "b"),
        ("a", 99),
        ("a", 204),
        ("a", 200, 3),
        (3, 200),
        {1, 2},
        {"a": object()},
        [float("nan")],
    ],
)
def test_other_values_raise_and_send_nothing(value: object) -> None:
    sent: list[Message] = []
    with handler(returning(value)) as adapted, pytest.raises(InvalidResult) as raised:
        run(_collect(adapted.app, sent))
    assert sent == []
    assert raised.value.status == 500
    assert __file__ in raised.value.where


async def _collect(app: Any, sent: list[Message], kind: str = "http", *received: Message) -> None:
    inbox = list(received)

    async def receive() -> Message:
        return inbox.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": kind, "method": "GET", "path": "/", "headers": []}, receive, send)


def test_headers_that_frame_another_response_are_not_passed_on() -> None:
    headers = {"Transfer-Encoding": "chunked", "Connection": "close", "Content-Length": "3", "ETag": "x"}
    response = answer(lambda: ("hello", 200, headers))
    assert response.text == "hello"
    assert {name: response.headers.get(name) for name in headers} == {
        "Transfer-Encoding": None,
        "Connection": None,
        "Content-Length": "5",
        "ETag": "x",
    }


def test_exception_of_the_function_reaches_the_host_as_it_is() -> None:
    async def fails() -> str:
        raise LookupError("secret")

    with pytest.raises(LookupError, match="secret"):
        answer(fails)


def test_starlettes_http_exception_is_its_answer() -> None:
    def refuses(request: Request) -> str:
        raise HTTPException(418, "short and stout", {"x-kind": "teapot"})

    response = answer(refuses)
    assert (response.status_code, response.text, response.headers["x-kind"]) == (418, "short and stout", "teapot")


def test_starlettes_not_modified_has_no_body() -> None:
    def unchanged() -> str:
        raise HTTPException(304)

    assert (answer(unchanged).status_code, answer(unchanged).content) == (304, b"")


@pytest.mark.parametrize("is_async", [False, True])
def test_function_that_exits_fails_its_request_only(is_async: bool) -> None:
    def leaves() -> str:
        raise SystemExit(3)

    async def leaves_async() -> str:
        raise SystemExit(3)

    with pytest.raises(InvalidResult, match=r"exit\(3\)"):
        answer(leaves_async if is_async else leaves)


def test_sync_function_that_returns_an_awaitable_is_awaited() -> None:
    async def later() -> dict[str, int]:
        return {"later": 1}

    assert answer(lambda: later()).json() == {"later": 1}


def test_request_function_reads_the_whole_request() -> None:
    async def echo(request: Request) -> dict[str, Any]:
        return {
            "method": request.method,
            "query": dict(request.query_params),
            "header": request.headers["x-one"],
            "body": (await request.body()).decode(),
        }

    response = answer(echo, "PUT", "/path?a=1", content=b"data", headers={"x-one": "1"})
    assert response.json() == {"method": "PUT", "query": {"a": "1"}, "header": "1", "body": "data"}


def test_request_is_passed_by_the_name_of_its_parameter_where_it_is_not_the_first() -> None:
    def function(prefix: str = "path:", *, incoming: Request) -> str:
        return prefix + incoming.url.path

    assert answer(function, path="/x").text == "path:/x"


def test_request_body_streams_while_it_arrives() -> None:
    async def first_piece(request: Request) -> str:
        async for piece in request.stream():
            return piece.decode()
        return "nothing"

    sent: list[Message] = []
    # There is no second message: a function that waited for the whole body would fail for want of one.
    piece = {"type": "http.request", "body": b"first", "more_body": True}
    with handler(first_piece) as adapted:
        run(_collect(adapted.app, sent, "http", piece))
    assert sent[1]["body"] == b"first"


def test_sync_request_function_reads_its_body_with_a_loop_of_its_own() -> None:
    def echo(request: Request) -> str:
        return asyncio.run(request.body()).decode()

    assert answer(echo, "POST", content=b"from the thread").text == "from the thread"


def test_starlette_response_may_stream() -> None:
    async def count(request: Request) -> StreamingResponse:
        async def numbers() -> AsyncIterator[str]:
            for number in range(3):
                yield f"{number}\n"

        return StreamingResponse(numbers())

    assert answer(count).text == "0\n1\n2\n"


def test_asgi_application_is_served_untouched() -> None:
    app = Starlette(routes=[Route("/x", lambda request: PlainTextResponse("routed"))])
    with handler(app) as adapted:
        assert adapted.app is app
        assert run(request(adapted.app, path="/x")).text == "routed"


def test_lifespan_of_a_plain_function_starts_and_stops_at_once() -> None:
    sent: list[Message] = []
    with handler(returning("")) as adapted:
        run(_collect(adapted.app, sent, "lifespan", {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
    assert [each["type"] for each in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_websocket_to_a_plain_function_is_refused() -> None:
    sent: list[Message] = []
    with handler(returning("")) as adapted:
        run(_collect(adapted.app, sent, "websocket", {"type": "websocket.connect"}))
    assert [each["type"] for each in sent] == ["websocket.close"]


def test_unknown_protocol_is_an_error() -> None:
    with handler(returning("")) as adapted, pytest.raises(UpwellError, match="carrier-pigeon"):
        run(_collect(adapted.app, [], "carrier-pigeon"))


def test_representation_says_kind_and_busy_threads() -> None:
    with handler(lambda: "") as adapted:
        assert repr(adapted) == "<Handler nullary sync busy_threads=0>"

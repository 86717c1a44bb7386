"""Applications of Starlette and FastAPI, and of WSGI, which run on upwell and on bare uvicorn alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import fastapi
import pydantic
from cloudevents.v1.http import from_http
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

HELLO = "Hello, World!\n"


class ItemModel(pydantic.BaseModel):
    """One line of an order."""

    name: str
    price: float
    quantity: int = 1


class OrderModel(pydantic.BaseModel):
    """What is sent and returned."""

    customer: str
    items: list[ItemModel]


async def _hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(HELLO)


async def _event(request: Request) -> PlainTextResponse:
    event = from_http(dict(request.headers), await request.body())
    return PlainTextResponse(str(event["type"]))


starlette_app = Starlette(routes=[Route("/", _hello), Route("/", _event, methods=["POST"])])
fastapi_app = fastapi.FastAPI()


@fastapi_app.get("/")
async def hello() -> dict[str, str]:
    """Say hello in JSON."""
    return {"message": HELLO}


@fastapi_app.post("/")
async def order(order: OrderModel) -> OrderModel:
    """Return what was sent."""
    return order


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Say hello as PEP 3333 has it."""
    body = HELLO.encode()
    headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]

"""A function of each kind that a handler may be; each answers a hello or what it was sent."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pydantic
from cloudevents.v1.http import CloudEvent
from starlette.requests import Request

HELLO = "Hello, World!\n"


@dataclass
class Item:
    """One line of an order."""

    name: str
    price: float
    quantity: int = 1


@dataclass
class Order:
    """As a dataclass."""

    customer: str
    items: list[Item]


class ItemModel(pydantic.BaseModel):
    """One line of an order."""

    name: str
    price: float
    quantity: int = 1


class OrderModel(pydantic.BaseModel):
    """As a pydantic model."""

    customer: str
    items: list[ItemModel]


class ItemStruct(msgspec.Struct):
    """One line of an order."""

    name: str
    price: float
    quantity: int = 1


class OrderStruct(msgspec.Struct):
    """As a msgspec Struct."""

    customer: str
    items: list[ItemStruct]


async def nullary() -> str:
    """Of nothing."""
    return HELLO


def nullary_sync() -> str:
    """Of nothing, in a thread."""
    return HELLO


async def request(request: Request) -> str:
    """Of the request."""
    return HELLO if request.method == "GET" else ""


async def order_dataclass(order: Order) -> Order:
    """Of a dataclass, which it returns."""
    return order


async def order_pydantic(order: OrderModel) -> OrderModel:
    """Of a pydantic model, which it returns."""
    return order


async def order_msgspec(order: OrderStruct) -> OrderStruct:
    """Of a msgspec Struct, which it returns."""
    return order


async def event(event: CloudEvent) -> str:
    """Of an event."""
    return str(event["type"])

"""Takes a typed value and returns one: a body that does not fit gets 400 and the name of the wrong field."""

from dataclasses import dataclass


@dataclass
class Order:
    item: str
    price: float
    count: int = 1


@dataclass
class Invoice:
    item: str
    total: float


async def main(order: Order) -> Invoice:
    return Invoice(order.item, round(order.price * order.count, 2))

import asyncio

from main import main
from starlette.requests import Request


async def asked(query: str) -> list[str]:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": query.encode()}
    return [piece async for piece in main(Request(scope))]


def test_as_many_pieces_come_as_are_asked_for() -> None:
    assert asyncio.run(asked("count=2")) == ["1 of 2\n", "2 of 2\n"]

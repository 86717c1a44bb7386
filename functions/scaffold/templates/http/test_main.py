import asyncio

from main import main
from starlette.requests import Request


def asked(query: str) -> dict[str, str]:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": query.encode()}
    return asyncio.run(main(Request(scope)))


def test_named_caller_is_greeted_by_name() -> None:
    assert asked("name=Ada") == {"greeting": "Hello, Ada!"}


def test_anybody_is_greeted() -> None:
    assert asked("") == {"greeting": "Hello, World!"}

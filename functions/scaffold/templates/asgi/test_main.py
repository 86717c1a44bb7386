import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

from main import app


async def get(path: str) -> tuple[int, bytes]:
    """Status and body of the application's answer."""
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


def test_home_says_hello() -> None:
    assert asyncio.run(get("/")) == (200, b"Hello, World!\n")


def test_greeting_names_who_is_greeted() -> None:
    status, body = asyncio.run(get("/greetings/Ada"))
    assert status == 200
    assert json.loads(body) == {"greeting": "Hello, Ada!"}


def test_other_paths_are_not_found() -> None:
    assert asyncio.run(get("/nowhere"))[0] == 404

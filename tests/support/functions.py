"""Driving functions in tests: requests without a server, and imports that leave no trace."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import httpx

from upwell.functions.asgi import Application
from upwell.functions.handler import Handler, adapt

T = TypeVar("T")

DEADLINE = 20.0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns, on a loop of its own; it fails rather than hangs."""

    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, DEADLINE)

    return asyncio.run(bounded())


async def request(
    app: Application,
    method: str = "GET",
    path: str = "/",
    *,
    content: bytes = b"",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """One request to an ASGI application; what the application raises is raised here."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://function.test") as client:
        return await client.request(method, path, content=content, headers=headers)


def answer(target: object, method: str = "GET", path: str = "/", **options: Any) -> httpx.Response:
    """The answer of a function to one request."""
    with handler(target) as adapted:
        return run(request(adapted.app, method, path, **options))


@contextlib.contextmanager
def handler(target: object, threads: int = 4) -> Iterator[Handler]:
    """A handler that is closed again."""
    adapted = adapt(target, threads=threads)
    try:
        yield adapted
    finally:
        adapted.close()


def unannotated(function: T) -> T:
    """The function as one who writes no annotations would have written it."""
    function.__annotations__.clear()
    return function


async def reached(condition: Callable[[], bool]) -> None:
    """Wait for a state, not for a time; fails at the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def pristine_imports() -> Iterator[None]:
    """Undo what loading a function leaves in the interpreter: a replica does so by ending."""
    path, hooks, modules = list(sys.path), list(sys.path_hooks), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:], sys.path_hooks[:] = path, hooks
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is None or not _is_installed(file):
                del sys.modules[name]
        sys.path_importer_cache.clear()


def _is_installed(file: str) -> bool:
    return file.startswith((sys.prefix, sys.base_prefix)) or "site-packages" in file

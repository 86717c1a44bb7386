"""Loads and calls functions in a process of its own each, for tests of what must not meet in one interpreter.

`main` runs in a process aside: it reads a case a line and answers each with a line; it has imported what the cases
share and forks for each. A case is `{"root", "module", "attribute", "environment", "requests": [{"method", "path",
"headers", "body"}]}`; the answer is `{"refused": text}` or `{"responses": [{"status", "headers", "text"}],
"is_async": bool}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Case = dict[str, Any]


class Driver:
    """The other end of that process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, case: Case) -> Any:
        """The answer to one case."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the driver has ended"
        return json.loads(line)


@contextmanager
def driver(*paths: Path) -> Iterator[Driver]:
    """A driver that ends with the context, with `paths` before all others on its path."""
    before = [str(each) for each in paths]
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.pathsep.join([*before, *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", "from support.framework import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        try:
            yield Driver(process)
        finally:
            process.kill()


def main() -> None:
    """Serve cases until standard input ends."""
    for module in (
        "flask",
        "starlette.applications",
        "httpx",
        "upwell.functions.project",
        "upwell.functions.foreign",
    ):
        __import__(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what functions print is no answer
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            answers.write(json.dumps(_answer(json.loads(line))) + "\n")
            answers.flush()
            os._exit(0)
        os.waitpid(child, 0)


def _answer(case: Case) -> Any:
    from upwell.functions.errors import InvalidFunction
    from upwell.functions.project import load

    os.environ.update(case.get("environment", {}))
    os.chdir(case["root"])
    try:
        target = load(Path(case["root"]), case.get("module", "main"), case.get("attribute"), None)
        return asyncio.run(_responses(target, case["requests"]))
    except InvalidFunction as error:
        return {"refused": str(error)}


async def _responses(target: Any, requests: list[dict[str, Any]]) -> Any:
    import httpx

    from upwell.functions.foreign import foreign_application
    from upwell.functions.threads import ThreadPool

    application = foreign_application(target, ThreadPool(4), "main.py") or target
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    responses = []
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for each in requests:
            response = await client.request(
                each.get("method", "GET"),
                each.get("path", "/"),
                headers=each.get("headers"),
                content=each.get("body", "").encode(),
            )
            headers = dict(response.headers)
            responses.append({"status": response.status_code, "headers": headers, "text": response.text})
    return {"responses": responses, "is_async": getattr(application, "is_async", True)}

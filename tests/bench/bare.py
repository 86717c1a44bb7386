"""What a cold start costs without a platform: a process that has a socket, and no server yet.

Run as a process of its own: ``fork`` has uvicorn imported and configured and forks a child at the first
connection, ``spawn`` starts a fresh interpreter with uvicorn then. It says its port, and after each line that it
reads ends the server and says so, so that the next connection finds none again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import uvicorn

from .functions.asgi_hello import app
from .plan import FUNCTIONS, ROOT

MODULE: Final = "tests.bench.bare"
BACKLOG: Final = 128


class BareServer:
    """The process as the benchmark sees it. Use as a context manager."""

    def __init__(self, way: str) -> None:
        self.port = 0
        self._way = way
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> BareServer:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            self._way,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.port = int(await self._line())
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def to_zero(self) -> None:
        """End the server that the last connection started."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        await self._line()

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the bare server's process ended")
        return line


def main(way: str) -> None:
    """Serve rounds until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    start = _forker(listener) if way == "fork" else _spawner(listener)
    _say(str(listener.getsockname()[1]))
    while True:
        arrived, _, _ = select.select([listener, sys.stdin], [], [])
        if listener not in arrived:
            return
        child = start()
        line = sys.stdin.readline()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not line:
            return
        _say("zero")


def _forker(listener: socket.socket) -> Callable[[], int]:
    config = uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, server_header=False)
    config.load()
    config.get_loop_factory()  # imports uvloop, which a child would have to do otherwise
    gc.collect()
    gc.freeze()

    def start() -> int:
        child = os.fork()
        if child == 0:
            try:
                uvicorn.Server(config).run(sockets=[listener])
            finally:
                os._exit(0)
        return child

    return start


def _spawner(listener: socket.socket) -> Callable[[], int]:
    descriptor = listener.fileno()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "asgi_hello:app",
        "--app-dir",
        str(FUNCTIONS),
        "--fd",
        str(descriptor),
    ]
    quiet = ["--log-level", "critical", "--no-access-log"]

    def start() -> int:
        return subprocess.Popen([*command, *quiet], pass_fds=[descriptor], stdin=subprocess.DEVNULL).pid

    return start


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])

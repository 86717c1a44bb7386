"""`upwell run` as a process, and what it prints."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.command import PATIENCE, UPWELL, Started

__all__ = ["PATIENCE", "Running", "command", "running"]


class Running(Started):
    """An `upwell run` under way."""

    def port(self) -> int:
        return int(self.wait_for(r"also http://localhost:(\d+)").group(1))

    def get(self, path: str = "/", host: str = "hello.default.localhost") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def command(*arguments: str) -> list[str]:
    return [*UPWELL, "run", *arguments]


@contextlib.contextmanager
def running(tmp_path: Path, *arguments: str, admin: str | None = "0") -> Iterator[Running]:
    output = tmp_path / "output.txt"
    ports = ["--port", "0", *(["--admin-port", admin] if admin is not None else [])]
    with output.open("w") as stream:
        process = subprocess.Popen(command(*arguments, *ports), stdout=stream, stderr=stream)
    try:
        yield Running(process, output)
    finally:
        process.kill()
        process.wait()

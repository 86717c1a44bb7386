"""`upwell run` as a process, and what it prints."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 30.0


class Running:
    """An `upwell run` under way."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Until the output matches."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = re.search(pattern, self.output)
            if found:
                return found
            assert self.process.poll() is None, f"ended early:\n{self.output}"
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in:\n{self.output}")

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
    return [sys.executable, "-m", "upwell", "run", *arguments]


@contextlib.contextmanager
def running(tmp_path: Path, *arguments: str, admin: str | None = "0") -> Iterator[Running]:
    output = tmp_path / "output.txt"
    ports = ["--port", "0", *(["--admin-port", admin] if admin is not None else [])]
    with output.open("w") as stream:
        process = subprocess.Popen(command(*arguments, *ports), stdout=stream, stderr=stream, text=True)
    try:
        yield Running(process, output)
    finally:
        process.kill()
        process.wait()

"""The `upwell` command as a person runs it, and a platform that it runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0
UPWELL = [sys.executable, "-m", "upwell"]


@dataclass
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@dataclass
class Shell:
    """Where commands are run: a working directory, and the data directory that they mean."""

    directory: Path
    data: Path

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
        return {**inherited, "UPWELL_DATA": str(self.data)}

    def run(self, *arguments: str, given: str = "", environment: Mapping[str, str] | None = None) -> Done:
        """Run one command to its end."""
        done = subprocess.run(
            [*UPWELL, *arguments],
            cwd=self.directory,
            env={**self.environment, **(environment or {})},
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def fine(self, *arguments: str, given: str = "") -> str:
        """What a command prints that must succeed."""
        done = self.run(*arguments, given=given)
        assert done.code == 0, done.err
        return done.out

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[Started]:
        """A command that goes on, killed at the end."""
        output = self.directory / f"output-{len(list(self.directory.glob('output-*')))}"
        with output.open("w") as stream:
            process = subprocess.Popen(
                [*UPWELL, *arguments], cwd=self.directory, env=self.environment, stdout=stream, stderr=stream
            )
        try:
            yield Started(process, output)
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def up(self, *arguments: str) -> Iterator[Started]:
        """A platform that takes commands."""
        with self.started("up", "--port", "0", "--admin-port", "0", *arguments) as platform:
            platform.wait_for("Ctrl-C ends it")
            yield platform

    def write(self, name: str, text: str) -> Path:
        """A file in the working directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@dataclass
class Started:
    """A command under way."""

    process: subprocess.Popen[bytes]
    file: Path

    @property
    def output(self) -> str:
        """What it printed so far, on both streams."""
        return self.file.read_text()

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

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal it, and its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def port(self) -> int:
        """Of a platform's gateway."""
        return int(self.wait_for(r"gateway on http://127\.0\.0\.1:(\d+)").group(1))

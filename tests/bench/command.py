"""`upwell run` as a person starts it: a process of its own, its access log in a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .load import Target
from .processes import server, wait_for_line


@dataclass(frozen=True, slots=True)
class Running:
    """The platform's process, and where its function answers."""

    pid: int
    target: Target


@contextlib.contextmanager
def upwell_run(path: Path, log: Path) -> Iterator[Running]:
    """Serve the function in `path` on free ports; what it prints, a line a request included, goes to `log`."""
    command = [sys.executable, "-m", "upwell", "run", str(path), "--port", "0", "--admin-port", "0"]
    with server(command, log) as process:
        found = wait_for_line(process, log, r"http://([a-z0-9.-]+):(\d+)\s")
        yield Running(process.pid, Target(found[1], int(found[2])))

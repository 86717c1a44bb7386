"""Servers as processes of their own, and what the kernel says they cost.

A server's output goes to a file; whatever ends the benchmark ends it too, where `setpriv` is there to ask for
that. Figures come from /proc: CPU is user and system time of processes that are still alive.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from upwell.runtime import procfs

from .plan import ROOT

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.02


class DidNotStart(Exception):
    """A server that did not come up; its output is in the message."""


@contextlib.contextmanager
def server(
    command: Sequence[str], log: Path, *, directory: Path = ROOT, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` with its output in `log`; within, it is alive, and afterwards it has ended."""
    guard = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*guard, *command],
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_line(process: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
    """The first match of `pattern` in the server's output. Raises DidNotStart."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found is not None:
            return found
        _check_alive(process, log)
        time.sleep(POLL_SECONDS)
    raise DidNotStart(f"no {pattern!r} within {START_SECONDS:g} s in:\n{log.read_text(errors='replace')}")


def wait_for_listener(process: subprocess.Popen[bytes], log: Path, address: tuple[str, int] | str) -> None:
    """Return once something accepts connections at `address`, a host and port or a path. Raises DidNotStart."""
    deadline = time.monotonic() + START_SECONDS
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    while time.monotonic() < deadline:
        with socket.socket(family) as connection, contextlib.suppress(OSError):
            connection.connect(address)
            return
        _check_alive(process, log)
        time.sleep(POLL_SECONDS)
    raise DidNotStart(f"nobody listens at {address} after {START_SECONDS:g} s:\n{log.read_text(errors='replace')}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {int(name): procfs.parent(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def cpu_seconds(pid: int) -> dict[int, float]:
    """User and system time of a process and of each of its descendants."""
    return {each: procfs.cpu_seconds(each) for each in tree(pid)}


def resident_bytes(pid: int) -> int:
    """The resident set of a process, pages that it shares included; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def unix_listener(pid: int) -> str | None:
    """The path of the Unix socket that a process listens on, or None."""
    inodes = {target[8:-1] for target in procfs.descriptors(pid).values() if target.startswith("socket:[")}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 8 and fields[6] in inodes and fields[3] == _ACCEPTS:
            return fields[7]
    return None


_ACCEPTS: Final = "00010000"
"""The flags that /proc/net/unix shows for a socket that listens."""


def _check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise DidNotStart(f"exit code {process.returncode}:\n{log.read_text(errors='replace')}")

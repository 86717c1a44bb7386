"""The machine that figures were measured on, and its processors shared out between subject and load generator."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

TOOLS: Final = ("h2load", "wrk")
PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "starlette")


def describe() -> dict[str, Any]:
    """Processors, memory, kernel, Python, what the figures depend on, and how busy it is before they are taken."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "tools": {name: shutil.which(name) is not None for name in TOOLS},
        "load_average": round(os.getloadavg()[0], 2),
    }


def shares() -> tuple[frozenset[int], frozenset[int]]:
    """The processors for servers and those for the load generator; with a single one, both get it."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) == 1:
        return frozenset(processors), frozenset(processors)
    return frozenset(processors[:-1]), frozenset(processors[-1:])


@contextlib.contextmanager
def pinned(processors: frozenset[int]) -> Iterator[None]:
    """Processes started within run on these processors only. The calling thread moves there meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _field(file: Path, name: str) -> str:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

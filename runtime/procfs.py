"""What Linux tells of a process under /proc: threads, descriptors, children, CPU time, memory.

Every reading gives an empty answer where there is no /proc or the process is gone, so that callers need no
branch for other systems. Nothing here is kept between calls.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_SHORT = 4096


class Process(NamedTuple):
    """A process and what it has cost so far."""

    parent: int
    started: int
    """In ticks since the machine started; with the number it tells a process from a later one of that number."""
    own_seconds: float
    """User and system time that it has spent."""
    waited_seconds: float
    """That of its children, and theirs, which have ended and were waited for."""


def thread_count(pid: int | str = "self") -> int:
    """The threads of a process as the kernel sees them, those of C libraries included; 0 when unknown."""
    try:
        return len(os.listdir(PROC / str(pid) / "task"))
    except OSError:
        return 0


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """The open descriptors of a process and what each refers to, such as ``socket:[123]``."""
    folder = PROC / str(pid) / "fd"
    found: dict[int, str] = {}
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for name in names:
        try:
            found[int(name)] = os.readlink(folder / name)
        except OSError:
            continue  # closed since it was listed, as is the one that listed them
    return found


def parent(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def state(pid: int) -> str:
    """The letter of a process's state (``Z`` is a zombie); empty when it is gone."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has spent; 0 when it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def children(pid: int) -> list[int]:
    """The direct children of a process, zombies included."""
    try:
        names = os.listdir(PROC)
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and parent(int(name)) == pid]


def own_processes() -> list[int]:
    """The processes of this user."""
    user = os.getuid()
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(PROC):
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == user:
                    found.append(int(entry.name))
    return found


def private_bytes(pid: int) -> int:
    """Memory that a process shares with no other (clean and dirty); 0 when it is gone."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines() if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return sum(int(line[1]) for line in lines) * 1024


def parents() -> dict[int, int]:
    """Every process and its parent, in one pass."""
    try:
        names = os.listdir(PROC)
    except OSError:
        return {}
    return {int(name): parent(int(name)) for name in names if name.isdigit()}


def below(pid: int, parents: Mapping[int, int]) -> list[int]:
    """All that descend from a process, by what `parents` gave; nearer ones first."""
    by_parent: dict[int, list[int]] = {}
    for child, its_parent in parents.items():
        by_parent.setdefault(its_parent, []).append(child)
    found = list(by_parent.get(pid, ()))
    for each in found:
        found += by_parent.get(each, ())
    return found


def processes() -> dict[int, Process]:
    """Every process, in one pass of a read each."""
    try:
        names = os.listdir(PROC)
    except OSError:
        return {}
    per_second = os.sysconf("SC_CLK_TCK")
    found = {}
    for name in names:
        fields = _stat(name) if name.isdigit() else ()
        if fields:
            own, waited = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            found[int(name)] = Process(int(fields[1]), int(fields[19]), own / per_second, waited / per_second)
    return found


def anonymous_bytes(pid: int) -> int:
    """Memory in use that no file stands behind, what is shared with the process it was forked from included."""
    fields = _read(f"/proc/{pid}/statm").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def initial_variable(pid: int, name: str) -> str:
    """A variable of the environment that a process was started with; empty when it had none or is gone."""
    try:
        block = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return ""
    start = f"{name}=".encode()
    found = next((entry for entry in block.split(b"\0") if entry.startswith(start)), b"")
    return found[len(start) :].decode(errors="replace")


def _stat(pid: int | str) -> list[str]:
    """The fields after a process's name, which may hold blanks and parentheses itself; none when it is gone."""
    text = _read(f"/proc/{pid}/stat").decode("latin-1")
    return text[text.rindex(")") + 2 :].split() if text else []


def _read(path: str) -> bytes:
    """A short file, empty when its process is gone; thousands are read at a time, and this way costs least."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _SHORT)
    except OSError:  # it ended meanwhile
        return b""
    finally:
        os.close(descriptor)

"""What Linux tells of a process under /proc: threads, descriptors, children, CPU time, memory.

Every reading gives an empty answer where there is no /proc or the process is gone, so that callers need no
branch for other systems. Nothing here is kept between calls.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


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


def private_bytes(pid: int) -> int:
    """Memory that a process shares with no other (clean and dirty); 0 when it is gone."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines() if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return sum(int(line[1]) for line in lines) * 1024


def _stat(pid: int) -> list[str]:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    # The name in parentheses may hold blanks and parentheses itself.
    return text[text.rindex(")") + 2 :].split()

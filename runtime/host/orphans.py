"""Ends the processes that carry a mark in the environment with which they were started.

By a mark they are found wherever they have gone in the tree of processes: daemons, and what a dead parent left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from typing import Final

from upwell.functions.errors import Unavailable
from upwell.runtime import procfs

END_SECONDS: Final = 5.0
"""For processes to die of SIGKILL; only one that hangs in the kernel takes longer."""
ROUNDS: Final = 50
"""Of looking for processes to end: what is found may have started another meanwhile."""


def end_carriers(variable: str, value: str) -> tuple[int, ...]:
    """Kill every process of this user that carries exactly this value, but for this process and those that led to
    it. Returns them once they are gone. Raises Unavailable when some do not end."""
    if not value:
        raise ValueError("every process without the variable would count")
    spared = {os.getpid(), *_ancestors(os.getpid())}
    ended: set[int] = set()
    for _ in range(ROUNDS):
        found = [pid for pid in procfs.own_processes() if pid not in spared and _carries(pid, variable, value)]
        if not found:
            return tuple(sorted(ended))
        ended.update(found)
        _kill(found, variable, value)
    left = ", ".join(map(str, sorted(set(found))))
    raise Unavailable(f"processes of an earlier platform do not end: {left}", hint="End them and try again.")


def _carries(pid: int, variable: str, value: str) -> bool:
    return value != "" and procfs.initial_variable(pid, variable) == value


def _ancestors(pid: int) -> Iterator[int]:
    while pid := procfs.parent(pid):
        yield pid


def _kill(pids: list[int], variable: str, value: str) -> None:
    """Kill and wait for their ends; the time is bounded."""
    with contextlib.ExitStack() as stack:
        waiting = select.poll()
        handles = set()
        for pid in pids:
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                # Once more, now that the pid cannot become another's.
                if _carries(pid, variable, value):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    waiting.register(handle, select.POLLIN)
                    handles.add(handle)
        while handles:
            gone = waiting.poll(END_SECONDS * 1000)
            if not gone:
                return
            for handle, _ in gone:
                waiting.unregister(handle)
                handles.discard(handle)

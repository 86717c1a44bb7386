"""What only Linux lets a process set for itself; elsewhere it does nothing and the life line does the work."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys

HAS_SUBREAPER = sys.platform == "linux"
"""Whether orphans become the zygote's children. Elsewhere they become init's, and how they end is not known."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make orphaned descendants this process's children, so that it learns how they end."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send `number` when the thread that started this process ends.

    A fork clears the setting. It says nothing of a parent that ended before: compare `os.getppid()` afterwards.
    """
    _prctl(PR_SET_PDEATHSIG, number)


def overwrite_variable(name: str, text: str) -> None:
    """Put `text` in place of a variable's, if that is as long, in the environment that the kernel shows of this
    process and of what it forks: that of its start. Call `find_variable` before anything sets the variable."""
    place, length = find_variable(name)
    if length == len(text):
        ctypes.memmove(place, text.encode(), length)


@functools.cache
def find_variable(name: str) -> tuple[int, int]:
    """Where the value of a variable stands in memory, and its length; 0 and 0 when there is none. Remembered, for
    the children too, since it is not found again once it has been set anew."""
    place = _library().getenv(name.encode()) if HAS_SUBREAPER else None
    return (place, len(ctypes.string_at(place))) if place else (0, 0)


@functools.cache
def _library() -> ctypes.CDLL:
    """The C library, found once: the zygote's children have it from the zygote."""
    library = ctypes.CDLL(None, use_errno=True)
    library.getenv.restype = ctypes.c_void_p
    return library


def _prctl(option: int, value: int) -> None:
    if not HAS_SUBREAPER:
        return
    library = _library()
    if library.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")

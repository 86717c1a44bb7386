"""The two process settings that only Linux has; elsewhere they do nothing and the life line does the work."""

from __future__ import annotations

import ctypes
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


def _prctl(option: int, value: int) -> None:
    if not HAS_SUBREAPER:
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")

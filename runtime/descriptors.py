"""The limit of open files: each held request is one, and its connection to a replica another."""

from __future__ import annotations

import contextlib
import resource


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the hard limit does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS refuses what it calls unlimited
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

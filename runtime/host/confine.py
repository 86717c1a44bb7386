"""What a process of a revision sets for itself before anything of the user's runs: output, limits, its mark."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from upwell.runtime.host import linux

REPLICA_MARK: Final = "UPWELL_REPLICA"
"""In the environment of all that a replica starts: the replica's pid. What carries it is ended with the replica,
wherever it has hidden itself in the tree of processes."""
UNMARKED: Final = "0" * 10
"""What the zygote's own environment holds in its place: room for any pid."""

OUT_OF_MEMORY_SCORE: Final = 600
"""Added to the score by which Linux picks whom to end when memory runs out; the platform keeps 0."""
HEADROOM_BYTES: Final = 1 << 30
"""Of address space above a memory limit. What is in use is watched; this bound refuses at once what would exceed
the limit by far before the watch looks again, and leaves room for the stacks of a hundred threads."""


def mark(pid: int) -> None:
    """Mark this process, which is `pid`, and all that it starts from now on, in the place of an earlier mark."""
    # A child that is merely forked shows the environment of the zygote's start: the mark is written over that too.
    linux.overwrite_variable(REPLICA_MARK, str(pid).zfill(len(UNMARKED)))
    os.environ[REPLICA_MARK] = str(pid)


def be_expendable() -> None:
    """Have the kernel end this process and its children rather than the platform when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OUT_OF_MEMORY_SCORE))


def limit_memory(limit: int) -> None:
    """Refuse this process and its children allocations far beyond `limit` bytes; 0 is no limit."""
    if limit == 0 or sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = limit + HEADROOM_BYTES
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def log_to(path: Path | None) -> None:
    """Append standard output and error to a file from now on; None leaves them. A file that cannot be opened is
    told of where they go now."""
    if path is None:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        print(f"upwell: no log at {path}: {error.strerror}", file=sys.stderr)  # noqa: T201  # there is no log
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)

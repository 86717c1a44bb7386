"""Which replicas use more memory than they may.

Counted is what a replica and all below it hold that no file stands behind, as a container's limit does in the
main; for a program without the sidecar, which is ours. Pure but for the readings, which are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from upwell.runtime import procfs

LOOK_SECONDS: Final = 0.25
"""Between two looks: what a process can fill meanwhile is far below what a machine has."""
LOOK_SHARE: Final = 0.02
"""Of a processor that looking may take: with very many processes it is done less often."""


class Watched(NamedTuple):
    """A limit: bytes, and whether the process itself counts beside what is below it."""

    limit: int
    itself: bool


class Excess(NamedTuple):
    """A replica that uses more than it may."""

    pid: int
    used: int
    processes: list[int]
    """Its own and all below it."""


def excesses(
    watched: Mapping[int, Watched],
    parents: Mapping[int, int],
    used: Callable[[int], int] = procfs.anonymous_bytes,
) -> list[Excess]:
    """Those of `watched` that are beyond their limits, by the `parents` of all processes."""
    found = []
    for pid, (limit, itself) in watched.items():
        processes = procfs.below(pid, parents)
        total = sum(map(used, processes)) + (used(pid) if itself else 0)
        if total > limit:
            found.append(Excess(pid, total, [pid, *processes]))
    return found


def pause(took: float) -> float:
    """Seconds until the next look, when the last one took so long."""
    return max(LOOK_SECONDS, took / LOOK_SHARE)

"""What the replicas of this machine use of its processors and its memory, each with all that descends from it.

`UsageMeter` looks at all processes in one pass, and keeps of each tree that it is asked for the time spent so far,
as of the latest looks. Time of a process that has ended is not lost where its parent waited for it: it is then
counted there. What leaves a tree without that (a daemon, a child that nobody waits for) is counted up to the last
look. Memory is what no file stands behind, pages included that a replica shares with the one it was forked from.

Where there is no /proc nothing is known. Not to be used from two threads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from upwell.runtime import procfs
from upwell.runtime.procfs import Process

LOOKS: Final = 4
"""Kept of a tree: time is averaged over three intervals, so that a single one does not count for all."""


class Usage(NamedTuple):
    """Of one replica; None where it is not known."""

    cores: float | None
    """Processor time a second over the latest looks; not known at the first one."""
    memory: int | None
    """Bytes."""


class _Tree:
    """The time that one process and all below it have spent, look by look."""

    __slots__ = ("looks", "members", "spent", "started")

    def __init__(self, started: int) -> None:
        self.started = started
        self.members: Mapping[int, Process] = {}
        self.spent = 0.0
        self.looks: deque[tuple[float, float]] = deque(maxlen=LOOKS)
        """When, and what was spent until then."""

    def look(self, members: Mapping[int, Process], now: float) -> None:
        if self.looks:
            self.spent += spent_between(self.members, members)
        self.members = members
        self.looks.append((now, self.spent))

    def cores(self) -> float | None:
        (began, before), (ended, after) = self.looks[0], self.looks[-1]
        return (after - before) / (ended - began) if ended > began else None


def spent_between(before: Mapping[int, Process], after: Mapping[int, Process]) -> float:
    """Seconds of processor time that a tree has spent between two looks at its processes.

    At least what those that are there have spent themselves; more where children ended in between and were waited
    for, less what was already counted while they ran.
    """
    own = sum(process.own_seconds - _known(before, pid, process).own_seconds for pid, process in after.items())
    return max(own, _total(after) - _total(before), 0.0)


def _known(before: Mapping[int, Process], pid: int, process: Process) -> Process:
    known = before.get(pid)
    same = known is not None and known.started == process.started
    return known if known is not None and same else _NOTHING


def _total(members: Mapping[int, Process]) -> float:
    return sum(process.own_seconds + process.waited_seconds for process in members.values())


_NOTHING: Final = Process(0, 0, 0.0, 0.0)


class UsageMeter:
    """Measures trees of processes, each again and again; what is not asked for is forgotten."""

    def __init__(
        self,
        processes: Callable[[], Mapping[int, Process]] = procfs.processes,
        memory: Callable[[int], int] = procfs.anonymous_bytes,
    ) -> None:
        self._trees: dict[int, _Tree] = {}
        self._processes = processes
        self._memory = memory

    def measure(self, pids: Collection[int], now: float) -> dict[int, Usage]:
        """What the trees of these processes use; `now` in seconds that never go back. One that is gone is left
        out, and so are all where there is no /proc."""
        processes = self._processes()
        below = _by_parent(processes)
        self._trees = {pid: self._tree(pid, processes[pid]) for pid in pids if pid in processes}
        found = {}
        for pid, tree in self._trees.items():
            members = {each: processes[each] for each in _with_descendants(pid, below)}
            tree.look(members, now)
            found[pid] = Usage(tree.cores(), sum(map(self._memory, members)))
        return found

    def _tree(self, pid: int, process: Process) -> _Tree:
        tree = self._trees.get(pid)
        return tree if tree is not None and tree.started == process.started else _Tree(process.started)


def _by_parent(processes: Mapping[int, Process]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    return children


def _with_descendants(pid: int, below: Mapping[int, list[int]]) -> list[int]:
    found = [pid]
    for each in found:
        found += below.get(each, ())
    return found

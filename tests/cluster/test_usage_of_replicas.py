"""What replicas use of processors and memory is what their processes, and all below these, have used."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.cluster.usage import LOOKS, Usage, UsageMeter, spent_between
from upwell.runtime.procfs import Process

BURNT = 0.4
BURN = f"import time; began = time.process_time()\nwhile time.process_time() - began < {BURNT}: pass\n"
# Each says that it has started, burns when it is told to, says so, and stays.
ITSELF = f"print('started', flush=True); input()\n{BURN}print('burnt', flush=True); input()"
CHILD = f"""
import subprocess, sys
print("started", flush=True); input()
subprocess.run([sys.executable, "-c", {BURN!r}])
print("burnt", flush=True); input()
"""
GRANDCHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {ITSELF!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("started", flush=True); input()
child.stdin.write(b"\\n"); child.stdin.flush(); child.stdout.readline()
print("burnt", flush=True); input()
"""
UNWAITED = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + CHILD
MEBIBYTE = 1 << 20


@contextlib.contextmanager
def program(text: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line


def has_burnt(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    says(process, b"burnt\n")


def used(meter: UsageMeter, process: subprocess.Popen[bytes], now: float) -> Usage:
    return meter.measure([process.pid], now)[process.pid]


@pytest.mark.parametrize("text", [ITSELF, CHILD, GRANDCHILD], ids=["itself", "ended child", "grandchild"])
def test_processor_time_is_that_of_the_whole_tree(text: str) -> None:
    meter = UsageMeter()
    with program(text) as process:
        says(process, b"started\n")
        assert used(meter, process, 100.0).cores is None, "one look tells nothing"
        has_burnt(process)
        cores = used(meter, process, 110.0).cores
    assert cores is not None
    assert BURNT - 0.05 <= cores * 10 <= BURNT + 0.35, "the start of a child's interpreter comes on top"


def test_time_of_children_that_nobody_waits_for_is_never_taken_from_what_others_used() -> None:
    meter = UsageMeter()
    with program(UNWAITED) as process:
        says(process, b"started\n")
        used(meter, process, 0.0)
        has_burnt(process)
        for moment in (5.0, 10.0):
            cores = used(meter, process, moment).cores
            assert cores is not None
            assert cores >= 0


def test_time_is_averaged_over_the_latest_looks_alone() -> None:
    spent = {1: Process(0, 7, 0.0, 0.0)}
    meter = UsageMeter(lambda: spent, lambda pid: 0)
    cores = []
    for look, own in enumerate([0.0, 5.0, 5.0, 5.0, 5.0]):
        spent[1] = Process(0, 7, own, 0.0)
        cores.append(meter.measure([1], look * 5.0)[1].cores)
    assert LOOKS == 4
    assert cores == [None, 1.0, 0.5, 1 / 3, 0.0]


def test_another_process_of_the_same_number_begins_anew() -> None:
    table = {1: Process(0, 7, 90.0, 0.0)}
    meter = UsageMeter(lambda: table, lambda pid: 0)
    meter.measure([1], 0.0)
    table[1] = Process(0, 8, 2.0, 0.0)
    assert meter.measure([1], 5.0)[1].cores is None
    table[1] = Process(0, 8, 3.0, 0.0)
    assert meter.measure([1], 10.0)[1].cores == 0.2


def test_memory_is_that_of_the_whole_tree() -> None:
    hold = f"block = bytearray(b'x') * ({64 * MEBIBYTE}); print('burnt', flush=True); input()"
    text = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with program(text) as process:
        says(process, b"burnt\n")
        memory = used(UsageMeter(), process, 0.0).memory
    assert memory is not None
    assert 64 * MEBIBYTE <= memory <= 96 * MEBIBYTE


def test_a_process_that_is_gone_and_a_machine_without_proc_give_nothing() -> None:
    with program("input()") as process:
        pass
    assert UsageMeter().measure([process.pid], 0.0) == {}
    assert UsageMeter(dict, lambda pid: 0).measure([1], 0.0) == {}


def test_what_is_not_asked_for_is_forgotten() -> None:
    table = {pid: Process(0, 7, 0.0, 0.0) for pid in range(1, 4)}
    meter = UsageMeter(lambda: table, lambda pid: 0)
    meter.measure([1, 2], 0.0)
    meter.measure([2, 3], 5.0)
    found = meter.measure([1, 2], 10.0)
    assert [found[pid].cores for pid in (1, 2)] == [None, 0.0]


seconds = st.floats(min_value=0, max_value=1e6)
members = st.dictionaries(
    st.integers(1, 6), st.builds(Process, st.just(1), st.integers(1, 2), seconds, seconds), max_size=6
)


@given(members, members)
def test_no_change_of_a_tree_gives_a_negative_time(
    before: Mapping[int, Process], after: Mapping[int, Process]
) -> None:
    assert spent_between(before, after) >= 0


def test_a_child_that_ended_between_two_looks_counts_once() -> None:
    parent = Process(0, 1, 1.0, 0.0)
    before = {1: parent, 2: Process(1, 5, 3.0, 0.0)}
    after = {1: Process(0, 1, 1.5, 4.0)}
    assert spent_between(before, after) == pytest.approx(1.5)

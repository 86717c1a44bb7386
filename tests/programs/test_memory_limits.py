"""A replica that uses more memory than its limit is ended with a reason; the platform and other replicas live."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.host import Host, Running, hosting, run
from support.programs import program, serving
from upwell.runtime.cluster.quantity import parse_bytes
from upwell.runtime.host.launcher import LoadFailed
from upwell.runtime.host.memory import LOOK_SECONDS, Watched, excesses, pause

LIMIT = 200 << 20
EATER = """
    held = []
    def eat():
        while True:
            held.append(bytearray(b"x" * (8 << 20)))
"""


@pytest.mark.parametrize(
    ("text", "amount"),
    [("128Mi", 128 << 20), ("1Gi", 1 << 30), ("0.5G", 500_000_000), ("1e9", 10**9), ("100", 100), ("1500m", 2)],
)
def test_amounts_of_memory_are_read_as_kubernetes_writes_them(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "lots", "-1Mi", "1MiB", "1 Mi", "Mi"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount of memory"):
        parse_bytes(text)


@given(st.dictionaries(st.integers(2, 9), st.integers(1, 8)), st.integers(1, 50))
def test_what_counts_is_all_that_a_replica_started_and_nothing_else(
    parents: Mapping[int, int], limit: int
) -> None:
    tree = {child: parent for child, parent in parents.items() if parent < child}
    below = {2}
    for child in sorted(tree):
        if tree[child] in below:
            below.add(child)
    for itself in (True, False):
        used = sum(10 for pid in below if itself or pid != 2)
        found = excesses({2: Watched(limit, itself)}, tree, lambda pid: 10)
        assert [excess.used for excess in found] == ([used] if used > limit else [])
        if found:
            assert set(found[0].processes) == below


def test_looking_takes_a_small_share_of_a_processor() -> None:
    assert pause(0.0001) == LOOK_SECONDS
    assert pause(0.05) == pytest.approx(2.5)


async def eats_and_ends(host: Host, running: Running) -> None:
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await running.get("/eat")
    status = await running.recorder.exit()
    assert status.cause == "OOMKilled"
    assert "out of memory: it used" in status.reason
    assert "its limit is 200 MiB" in status.reason
    assert host.launcher.zygote_pid is not None


def test_a_function_that_eats_all_memory_is_ended_and_others_live(tmp_path: Path) -> None:
    text = EATER + "    def main(request):\n        return eat() if request.url.path == '/eat' else 'well'"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(text, memory_bytes=LIMIT)
            eater, other = host.start(template), host.start(template)
            await eater.recorder.became_ready()
            await other.recorder.became_ready()
            assert (await eater.get()).body == b"well"
            await eats_and_ends(host, eater)
            assert (await other.get()).body == b"well"

    run(main())


def test_a_program_that_eats_all_memory_is_ended_with_its_children_counted(tmp_path: Path) -> None:
    text = (
        EATER
        + """
    def answer(request):
        if request.path == "/eat":
            if os.fork() == 0:
                eat()
            os.wait()
        return 200, "well"
"""
    )

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text, memory_bytes=LIMIT))
            assert (await running.get()).body == b"well"
            await eats_and_ends(host, running)

    run(main())


def test_one_huge_allocation_fails_in_the_handler_and_the_replica_lives(tmp_path: Path) -> None:
    text = """
        def main(request):
            return str(len(b"x" * (4 << 30))) if request.url.path == "/eat" else "well"
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, memory_bytes=LIMIT)
            assert (await running.get("/eat")).status == 500
            assert (await running.get()).body == b"well"

    run(main())


def test_replicas_are_the_first_to_go_when_the_machine_runs_out(tmp_path: Path) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve("def main(): return 'hi'")
            text = "def answer(request):\n    return 200, str(os.getpid())"
            started = await serving(host, program(tmp_path / "p", text))
            assert host.launcher.zygote_pid is not None
            ours = score(host.launcher.zygote_pid)
            assert score(running.pid) > ours
            assert score(int((await started.get()).body)) > ours

    run(main())


def test_one_that_eats_all_memory_before_it_serves_cannot_serve(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.launcher.load(program(tmp_path / "p", EATER + "    eat()", memory_bytes=LIMIT))
            with pytest.raises(LoadFailed) as raised:
                await template.loaded
            assert raised.value.cause == "OOMKilled"
            assert "its limit is 200 MiB" in raised.value.what

    run(main())

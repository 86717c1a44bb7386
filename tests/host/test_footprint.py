from __future__ import annotations

import json
import os
from pathlib import Path

from support.host import HELLO, Running, hosting, reached, run
from upwell.runtime import procfs

HEAVY = {"pydantic", "numpy", "kubernetes", "aiokafka", "typer", "click", "rich", "cloudevents", "yaml", "h11"}

LOOP = {"anon_inode", "pipe", "/dev/null"}
"""What libuv holds for itself: epoll, io_uring, eventfd, two pipes, one in reserve."""

MODULES = """
    import sys
    def main():
        return sorted({name.partition(".")[0] for name in sys.modules})
"""


def kinds(pid: int) -> list[str]:
    return sorted(target.partition(":")[0] for number, target in procfs.descriptors(pid).items() if number > 2)


def test_a_replica_of_a_plain_function_imports_nothing_heavy(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(MODULES)
            modules = set(json.loads((await running.get()).body))
            assert {"uvicorn", "uvloop", "httptools", "upwell"} <= modules
            assert not modules & HEAVY

    run(main())


def test_a_function_that_wants_uvicorn_itself_gets_all_of_it(tmp_path: Path) -> None:
    text = "import uvicorn\ndef main(): return [uvicorn.__name__, uvicorn.Config.__name__, uvicorn.run.__name__]"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            assert json.loads((await running.get()).body) == ["uvicorn", "Config", "run"]

    run(main())


async def check_descriptors(pid: int) -> None:
    # A listener, a channel, and the pair with which the loop hears of signals; the client's connection goes.
    await reached(lambda: kinds(pid).count("socket") == 4)
    assert set(kinds(pid)) <= LOOP | {"socket"}
    assert len(kinds(pid)) <= 12


def sockets_shared(running: Running, others: set[int]) -> set[str]:
    mine = {target for target in procfs.descriptors(running.pid).values() if target.startswith("socket:")}
    theirs = {target for pid in others for target in procfs.descriptors(pid).values()}
    return mine & theirs


def test_a_replica_holds_its_listener_its_channel_and_its_loops_own_descriptors(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            first, second = host.start(template), host.start(template)
            for running in (first, second):
                await running.recorder.became_ready()
                await running.get()
            for running in (first, second):
                await check_descriptors(running.pid)
            zygote, parent = host.launcher.zygote_pid, template.pid
            assert zygote is not None
            assert parent is not None
            others = {zygote, parent, os.getpid(), await host.standby(template)}
            assert not sockets_shared(first, others | {second.pid})
            assert not sockets_shared(second, others | {first.pid})

    run(main())


def test_nobody_else_holds_a_dead_replicas_listener(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            running = host.start(template)
            await running.recorder.became_ready()
            zygote, pid = host.launcher.zygote_pid, template.pid
            assert zygote is not None
            assert pid is not None
            assert kinds(zygote) == ["pipe", "pipe", "socket"]
            standby = await host.standby(template)
            # Beside the pipe between the two, each has the socket of commands and a standby its loop.
            await reached(lambda: kinds(pid) == ["pipe", "socket"])
            await reached(lambda: "anon_inode" in kinds(standby))
            assert kinds(standby).count("socket") == 1
            assert set(kinds(standby)) <= LOOP | {"socket"}
            assert not sockets_shared(running, {zygote, pid, standby})

    run(main())


def test_the_pipe_of_a_standby_does_not_stay_with_the_replica_that_it_becomes(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            standby = await host.standby(template)
            await reached(lambda: "anon_inode" in kinds(standby))
            pid = template.pid
            assert pid is not None
            pipes = {each for each in procfs.descriptors(pid).values() if each.startswith("pipe:")}
            assert len(pipes) == 1
            running = host.start(template)
            await running.recorder.became_ready()
            assert running.pid == standby
            assert not pipes & set(procfs.descriptors(standby).values())

    run(main())


def test_a_standby_is_small(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            standby = await host.standby(template)
            await reached(lambda: "anon_inode" in kinds(standby))
            assert 0 < procfs.private_bytes(standby) < 4 * 1024 * 1024

    run(main())


def test_many_replicas_leave_no_descriptor_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            before = len(procfs.descriptors())
            for _ in range(3):
                replicas = [host.start(template) for _ in range(5)]
                for running in replicas:
                    await running.recorder.became_ready()
                    running.process.drain()
                for running in replicas:
                    await running.recorder.exit()
            assert len(procfs.descriptors()) == before

    run(main())


def test_soft_limits_on_descriptors_are_raised(tmp_path: Path) -> None:
    text = "import resource\ndef main(): return list(resource.getrlimit(resource.RLIMIT_NOFILE))"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            soft, hard = json.loads((await (await host.serve(text)).get()).body)
            assert soft == hard

    run(main())

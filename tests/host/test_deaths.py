from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from support.host import HELLO, Recorder, descendants, hosting, is_gone, kill, reached, run
from upwell.runtime.host.launcher import HostLauncher, HostSettings, TemplateState
from upwell.runtime.host.wire import Received
from upwell.runtime.testing.clock import FakeClock

PLATFORM = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.host import hosting, reached

async def main():
    async with hosting(Path(sys.argv[1])) as host:
        template = host.load(Path(sys.argv[3]).read_text())
        replicas = [host.start(template) for _ in range(2)]
        for running in replicas:
            await running.recorder.became_ready()
            await running.get()
        print("ready", flush=True)
        await reached(lambda: False)

asyncio.run(main())
"""

WITH_A_CHILD = """
    import subprocess
    children = []
    def main():
        children.append(subprocess.Popen(["sleep", "1000"]))
        return str(children[-1].pid)
"""


def processes_of(mark: str) -> list[int]:
    """Every living process that was given `mark` in its environment, or descends from one that was."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if not is_gone(pid)]


def start_platform(folder: Path, mark: str) -> subprocess.Popen[str]:
    folder.mkdir()
    function = folder / "function.txt"
    function.write_text(WITH_A_CHILD)
    support = str(Path(__file__).resolve().parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", PLATFORM, str(folder), support, str(function)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"UPWELL_TEST_MARK": mark},
    )


def test_kill_9_of_the_platform_leaves_no_process(tmp_path: Path) -> None:
    mark = f"whole-{tmp_path}"
    platform = start_platform(tmp_path / "platform", mark)
    try:
        assert platform.stdout is not None
        assert platform.stdout.readline().strip() == "ready"
        # The platform, zygote, template and standby, two replicas and the processes that each has started.
        run(reached(lambda: len(processes_of(mark)) == 8, "the whole family of processes"))
    finally:
        platform.kill()
        platform.communicate()
    run(reached(lambda: not processes_of(mark), "the end of all processes"))


def test_kill_9_of_the_platform_at_any_moment_of_its_start_leaves_no_process(tmp_path: Path) -> None:
    random = Random(20)
    for attempt in range(8):
        mark = f"attempt-{attempt}-{tmp_path}"
        platform = start_platform(tmp_path / str(attempt), mark)
        with contextlib.suppress(subprocess.TimeoutExpired):
            platform.wait(random.uniform(0.2, 0.7))
        platform.kill()
        platform.communicate()
        run(reached(lambda mark=mark: not processes_of(mark), "the end of all processes"))  # type: ignore[misc]  # a default argument


def test_kill_9_of_the_zygote_is_told_and_another_one_takes_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path, restart_delay=0.01) as host:
            template = host.load(HELLO)
            running = host.start(template)
            await running.recorder.became_ready()
            zygote = host.launcher.zygote_pid
            assert zygote is not None
            below = descendants(zygote)
            os.kill(zygote, signal.SIGKILL)
            status = await running.recorder.exit()
            assert (status.code, status.signal, status.was_ready) == (None, None, True)
            assert "zygote" in status.reason
            assert template.state is TemplateState.EVICTED
            await reached(lambda: all(is_gone(pid) for pid in below))
            again = await host.serve(HELLO)
            assert (await again.get()).body == b"hello"
            assert host.launcher.zygote_pid != zygote

    run(main())


@pytest.mark.parametrize("session", [False, True])
def test_what_replicas_had_started_ends_with_a_zygote_that_is_killed(tmp_path: Path, session: bool) -> None:
    text = f"""
        import subprocess
        def main():
            child = subprocess.Popen(["sleep", "1000"], start_new_session={session})
            return str(child.pid)
    """

    async def main() -> None:
        async with hosting(tmp_path, restart_delay=0.01) as host:
            running = await host.serve(text)
            child = int((await running.get()).body)
            assert host.launcher.zygote_pid is not None
            os.kill(host.launcher.zygote_pid, signal.SIGKILL)
            await running.recorder.exit()
            await reached(lambda: is_gone(child), "the child's end")
            again = await host.serve(text)  # by the next zygote, whose own are spared
            assert not is_gone(int((await again.get()).body))

    run(main())


def test_what_is_asked_for_while_the_zygote_is_away_is_done_once_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path, restart_delay=0.2) as host:
            recorder = (await host.serve(HELLO)).recorder
            assert host.launcher.zygote_pid is not None
            os.kill(host.launcher.zygote_pid, signal.SIGKILL)
            await recorder.exit()
            running = host.start(host.load(HELLO))
            assert (await running.get()).body == b"hello"

    run(main())


def test_kill_9_of_a_template_leaves_its_replicas_alive(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            running = host.start(template)
            await running.recorder.became_ready()
            assert template.pid is not None
            standby = await host.standby(template)
            os.kill(template.pid, signal.SIGKILL)
            await reached(lambda: template.state is TemplateState.EVICTED)
            await reached(lambda: is_gone(standby))
            assert (await running.get()).body == b"hello"
            assert not is_gone(running.pid)

    run(main())


def test_kill_9_of_a_standby_evicts_its_template(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            os.kill(await host.standby(template), signal.SIGKILL)
            await reached(lambda: template.state is TemplateState.EVICTED)

    run(main())


def test_a_command_that_a_killed_standby_will_never_take_ends_its_replica_with_a_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path, exit_wait=0.1) as host:
            template = host.load(HELLO)
            await template.loaded
            standby = await host.standby(template)
            os.kill(standby, signal.SIGSTOP)
            running = host.start(template)
            os.kill(standby, signal.SIGKILL)
            status = await running.recorder.exit()
            assert (status.code, status.was_ready) == (None, False)
            assert status.reason

    run(main())


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, [9]), (60.0, [])])
def test_an_exit_told_long_ago_is_not_taken_for_that_of_a_new_process_with_its_pid(
    seconds: float, expected: list[int]
) -> None:
    async def main() -> None:
        clock = FakeClock()
        launcher = HostLauncher(HostSettings(exit_wait=2.0), clock)
        launcher._received(Received({"exits": [[1234, 9]]}, []))
        clock.advance(seconds)
        ended: list[int] = []
        launcher.claim(1234, ended.append)
        assert ended == expected
        launcher._received(Received({"exits": [[1234, 15]]}, []))
        assert ended == (expected or [15])

    run(main())


def test_an_evicted_templates_standby_ends_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            standby = await host.standby(template)
            template.close()
            await reached(lambda: is_gone(standby))

    run(main())


def test_a_standby_ends_with_the_zygote(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            standby = await host.standby(template)
            zygote = host.launcher.zygote_pid
            assert zygote is not None
            assert template.pid is not None
            os.kill(template.pid, signal.SIGSTOP)  # nor does it take a template that looks after it
            os.kill(zygote, signal.SIGKILL)
            await reached(lambda: is_gone(standby))

    run(main())


def test_kill_9_of_a_replica_is_told_with_its_signal_and_its_socket_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(HELLO)
            os.kill(running.pid, signal.SIGKILL)
            status = await running.recorder.exit()
            assert (status.code, status.signal, status.was_ready) == (None, signal.SIGKILL, True)
            assert status.reason == (
                "killed by SIGKILL: signal 9 did not come from upwell; the machine may be out of memory"
            )
            with pytest.raises(ConnectionRefusedError):
                await running.get()

    run(main())


def test_a_request_under_way_fails_when_its_replica_is_killed(tmp_path: Path) -> None:
    text = "import time\ndef main():\n    time.sleep(1000)"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            request = asyncio.create_task(running.get())
            await reached(lambda: any(report.request_count for report in running.recorder.reports))
            running.process.kill()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await request
            assert (await running.recorder.exit()).signal == signal.SIGKILL

    run(main())


def test_a_handler_that_ends_the_process_is_told_with_its_exit_code(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve("import os\ndef main(): os._exit(7)")
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await running.get()
            status = await running.recorder.exit()
            assert (status.code, status.reason) == (7, "exited with code 7")

    run(main())


def test_what_a_function_started_ends_with_its_replica(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(WITH_A_CHILD)
            child = int((await running.get()).body)
            assert not is_gone(child)
            os.kill(running.pid, signal.SIGKILL)
            await reached(lambda: is_gone(child))

    run(main())


def test_a_replica_ends_when_its_channel_closes(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(HELLO)
            pid = running.pid
            running.process.finish(None, "let go")
            await reached(lambda: is_gone(pid))

    run(main())


def test_every_end_is_told_exactly_once_whatever_order_its_signs_come_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            replicas = [host.start(template) for _ in range(12)]
            for number, running in enumerate(replicas):
                if number % 3 == 0:
                    running.process.kill()  # before it exists, most likely
            for number, running in enumerate(replicas):
                if number % 3 == 1:
                    await running.recorder.became_ready()
                    kill(running.pid, signal.SIGKILL)
                elif number % 3 == 2:
                    running.process.drain()
            for running in replicas:
                await running.recorder.exit()
            recorders: list[Recorder] = [running.recorder for running in replicas]
            again = await host.serve(HELLO)
            assert [len(recorder.exits) for recorder in recorders] == [1] * 12
            assert (await again.get()).status == 200

    run(main())

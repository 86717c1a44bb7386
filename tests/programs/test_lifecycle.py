"""What happens right after a start and before an end, in which order, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from support.host import hosting, is_gone, reached, run
from support.programs import command, program, serving
from upwell.runtime.sidecar.probing import Exec, HttpGet, Lifecycle, Sleep

NOTES = """
    def note(text):
        with open("notes", "a") as file:
            file.write(text + "\\n")
    def stop(number, frame):
        note("SIGTERM")
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    note("started")
    def answer(request):
        if request.path == "/slow":
            time.sleep(0.3)
        note(request.path)
        return 200, ""
"""


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().splitlines()


def test_requests_end_before_pre_stop_and_pre_stop_before_sigterm(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            lifecycle = Lifecycle(HttpGet("/post-start"), Exec(("sh", "-c", "echo pre-stop >> notes")))
            running = await serving(host, program(tmp_path / "p", NOTES, lifecycle=lifecycle))
            slow = asyncio.create_task(running.get("/slow"))
            await reached(lambda: any(r.request_count for r in running.recorder.reports))
            running.process.drain()
            assert (await slow).status == 200
            assert (await running.recorder.exit()).code == 0
            assert notes(tmp_path / "p") == ["started", "/slow", "pre-stop", "SIGTERM"]

    run(main())


def test_a_pre_stop_may_ask_the_program_itself_or_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            source = program(tmp_path / "p", NOTES, lifecycle=Lifecycle(None, HttpGet("/pre-stop")))
            running = await serving(host, source)
            running.process.drain()
            await running.recorder.exit()
            assert notes(tmp_path / "p") == ["started", "/pre-stop", "SIGTERM"]
            running = await serving(host, program(tmp_path / "q", NOTES, lifecycle=Lifecycle(None, Sleep(0.4))))
            began = time.monotonic()
            running.process.drain()
            await running.recorder.exit()
            assert time.monotonic() - began >= 0.4

    run(main())


def test_one_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    text = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def answer(request):
            return 200, str(os.getpid())
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text, termination_seconds=0.3))
            pid = int((await running.get()).body)
            began = time.monotonic()
            running.process.drain()
            assert (await running.recorder.exit()).code == 0
            assert is_gone(pid)
            assert time.monotonic() - began >= 0.3

    run(main())


def test_what_a_shell_started_gets_its_sigterm_too_when_the_shell_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            words = program(tmp_path / "p", NOTES).command
            script = f"{words[0]} {words[1]} & wait"
            running = await serving(host, command(["sh", "-c", script], tmp_path / "p"))
            running.process.drain()
            await running.recorder.exit()
            assert notes(tmp_path / "p") == ["started", "SIGTERM"]

    run(main())


def test_one_that_is_told_to_end_while_it_starts_ends_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            text = "open('pid', 'w').write(str(os.getpid()))\ndef serve():\n    time.sleep(1000)"
            template = host.launcher.load(program(tmp_path / "p", text))
            running = host.start(template)
            pid = tmp_path / "p" / "pid"
            await reached(lambda: pid.exists() and pid.read_text() != "")
            running.process.drain(0.0)
            assert (await running.recorder.exit()).code == 0
            assert is_gone(int(pid.read_text()))
            template.close()

    run(main())


def test_stopping_the_host_ends_programs_with_all_they_started(tmp_path: Path) -> None:
    text = """
        import subprocess
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def answer(request):
            return 200, f"{os.getpid()} {child.pid}"
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text))
            pids = [int(pid) for pid in (await running.get()).body.split()]
            await host.launcher.stop(0.2)
            await reached(lambda: all(is_gone(pid) for pid in pids))
            assert len(running.recorder.exits) == 1

    run(main())


def test_a_daemon_that_a_function_started_in_a_session_of_its_own_ends_with_its_replica(tmp_path: Path) -> None:
    text = """
        import subprocess
        def main():
            script = "sleep 1000 & echo $!"
            told = subprocess.run(["setsid", "sh", "-c", script], stdout=subprocess.PIPE, close_fds=True)
            return told.stdout.decode()
    """.replace("sleep 1000 &", "sleep 1000 > /dev/null 2>&1 &")

    async def main() -> None:
        async with hosting(tmp_path) as host:
            ended, spared = await host.serve(text), await host.serve(text)
            daemon, other = int((await ended.get()).body), int((await spared.get()).body)
            assert not is_gone(daemon)
            os.kill(ended.pid, signal.SIGKILL)
            await reached(lambda: is_gone(daemon), "the daemon's end")
            assert not is_gone(other)

    run(main())


def test_a_pre_stop_that_hangs_has_no_more_than_the_termination_grace_period(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            hanging = Lifecycle(pre_stop=Exec(("sleep", "1000")))
            source = program(tmp_path / "p", lifecycle=hanging, termination_seconds=0.5)
            running = await serving(host, source)
            running.process.drain()
            assert (await running.recorder.exit()).code == 0

    run(main())


def test_a_daemon_that_a_function_merely_forked_ends_with_its_replica(tmp_path: Path) -> None:
    text = """
        import os, time
        def main():
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.setsid()
                daemon = os.fork()
                if daemon == 0:
                    time.sleep(1000)
                os.write(writing, b"%d" % daemon)
                os._exit(0)
            return os.read(reading, 100).decode()
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            ended, spared = await host.serve(text), await host.serve(text)
            daemon, other = int((await ended.get()).body), int((await spared.get()).body)
            assert not is_gone(daemon)
            os.kill(ended.pid, signal.SIGKILL)
            await reached(lambda: is_gone(daemon), "the daemon's end")
            assert not is_gone(other)

    run(main())


def test_a_function_s_pre_stop_runs_after_its_requests(tmp_path: Path) -> None:
    text = """
        import time
        def main():
            time.sleep(0.2)
            open("notes", "a").write("answered\\n")
            return "ok"
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            lifecycle = Lifecycle(None, Exec(("sh", "-c", "echo pre-stop >> notes")))
            source = host.source(text, lifecycle=lifecycle)
            running = host.start(host.launcher.load(source))
            await running.recorder.became_ready()
            answer = asyncio.create_task(running.get())
            await reached(lambda: any(r.request_count for r in running.recorder.reports))
            running.process.drain()
            assert (await answer).body == b"ok"
            await running.recorder.exit()
            assert notes(source.root) == ["answered", "pre-stop"]

    run(main())


def test_one_that_was_told_to_end_before_it_was_ready_proves_nothing(tmp_path: Path) -> None:
    text = """
        starts = len(open("notes").readlines()) if os.path.exists("notes") else 0
        open("notes", "a").write("started\\n")
        if starts == 0:
            time.sleep(1000)
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.launcher.load(program(tmp_path / "p", text))
            running = host.start(template)
            await reached(lambda: (tmp_path / "p" / "notes").exists())
            running.process.drain(0.0)
            assert not (await running.recorder.exit()).was_ready
            assert (await template.loaded).forkable
            assert notes(tmp_path / "p") == ["started", "started"]

    run(main())

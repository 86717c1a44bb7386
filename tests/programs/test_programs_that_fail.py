"""A program that cannot serve is told of with what the one who deploys it needs to mend it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from support.host import Host, hosting, is_gone, reached, run
from support.programs import command, program, serving
from upwell.functions.errors import InvalidFunction
from upwell.runtime.host.launcher import LoadFailed, ProgramSource, TemplateState
from upwell.runtime.sidecar.probing import HttpGet, Probe, Probes
from upwell.runtime.sidecar.program import Program, reserve_port


async def refusal(host: Host, source: ProgramSource) -> LoadFailed:
    """Why a program cannot serve; a replica ends with the same reason."""
    template = host.launcher.load(source)
    with pytest.raises(InvalidFunction) as raised:
        await template.loaded
    assert isinstance(raised.value, LoadFailed)
    assert template.state is TemplateState.FAILED
    with pytest.raises(InvalidFunction):
        host.start(template)
    running = host.start(host.launcher.load(source))
    status = await running.recorder.exit()
    assert not status.was_ready
    assert status.cause == raised.value.cause
    return raised.value


@pytest.mark.parametrize(
    ("text", "what", "cause"),
    [
        pytest.param("sys.exit(3)", "exited with code 3 before it was ready", "ExitCode3", id="code"),
        pytest.param("sys.exit(0)", "exited with code 0 before it was ready", "ExitCode0", id="nothing to do"),
        pytest.param("raise ValueError('no database')", "exited with code 1", "ExitCode1", id="raises"),
        pytest.param("os.kill(os.getpid(), 11)", "was killed by SIGSEGV", "ExitCode139", id="crashes"),
    ],
)
def test_one_that_ends_before_it_listens_is_told_with_its_code_and_its_last_words(
    tmp_path: Path, text: str, what: str, cause: str
) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            refused = await refusal(host, program(tmp_path / "p", f"print('my last words')\n{text}"))
            assert what in refused.what
            assert "($PORT)" in refused.what
            assert refused.cause == cause
            assert "my last words" in refused.hint
            if "no database" in text:
                assert "ValueError: no database" in str(refused)

    run(main())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["$PORT"], True),
        (["--bind=127.0.0.1:${PORT}"], True),
        (["--bind=127.0.0.1:$(PORT)"], False),
        (["-c", "unknown $PORT"], False),
    ],
)
def test_a_port_that_a_shell_should_have_put_in_is_told_with_how_to_write_it(
    tmp_path: Path, words: list[str], told: bool
) -> None:
    script = tmp_path / "fails.sh"
    script.write_text("exit 2")

    async def main() -> None:
        async with hosting(tmp_path) as host:
            refused = await refusal(host, command(["sh", str(script), *words], tmp_path))
            assert ("it should have listened" in refused.what, "$(PORT)" in refused.hint) == (True, told)

    run(main())


def test_one_that_never_listens_is_told_with_the_port_that_it_should_have_listened_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path, progress_deadline=1.0) as host:
            text = "print('port is', os.environ['PORT'])\ndef serve():\n    time.sleep(1000)"
            refused = await refusal(host, program(tmp_path / "p", text))
            port = (tmp_path / "p" / "output.log").read_text().split()[2]
            assert refused.what == f"the program runs but nothing listens on port {port} ($PORT) after 1 s"
            assert "on 127.0.0.1 or on all addresses" in refused.hint
            assert f"\n  Its output ended with:\n  | port is {port}" in str(refused)
            assert refused.cause == "ProgressDeadlineExceeded"

    run(main())


def test_one_that_listens_but_is_never_ready_is_told_with_what_its_probe_met(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path, progress_deadline=1.0) as host:
            text = "def answer(request):\n    return 500, 'not today'"
            probes = Probes(readiness=Probe(HttpGet("/healthz")))
            refused = await refusal(host, program(tmp_path / "p", text, probes=probes))
            assert refused.what == (
                "the program runs but is not ready after 1 s: GET /healthz was answered with 500"
            )

    run(main())


def test_a_command_that_cannot_be_run_is_told_with_what_to_do(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    expected = {
        "no-such-command": ("was not found on PATH", "Is it installed"),
        "./absent": ("absent does not exist", ""),
        "./plain": ("plain is not executable", "chmod +x"),
    }

    async def main() -> None:
        async with hosting(tmp_path) as host:
            for name, (what, hint) in expected.items():
                refused = await refusal(host, command([name], tmp_path))
                assert what in refused.what
                assert hint in refused.hint
                assert (refused.where, refused.cause) == (name, "StartError")
            refused = await refusal(host, command(["sh"], tmp_path / "nowhere", log=None))
            assert "working directory" in refused.what
            assert "does not exist" in refused.what

    run(main())


def test_one_that_ends_while_it_serves_ends_its_replica_with_its_code(tmp_path: Path) -> None:
    text = """
        def answer(request):
            print("going down", flush=True)
            os._exit(7)
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text))
            assert (await running.get()).status == 502
            status = await running.recorder.exit()
            assert (status.code, status.was_ready, status.cause) == (7, True, "ExitCode7")
            assert status.reason == "the program exited with code 7"

    run(main())


def test_one_that_is_killed_from_outside_is_told_with_its_signal(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            text = "def answer(request):\n    return 200, str(os.getpid())"
            running = await serving(host, program(tmp_path / "p", text))
            os.kill(int((await running.get()).body), signal.SIGKILL)
            status = await running.recorder.exit()
            assert status.signal == signal.SIGKILL
            assert "killed by SIGKILL" in status.reason
            assert "the machine may be out of memory" in status.reason

    run(main())


def test_a_program_ends_with_its_sidecar_however_that_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            text = """
                import subprocess
                children = [subprocess.Popen(["sleep", "1000"], start_new_session=new) for new in (False, True)]
                def answer(request):
                    return 200, " ".join(str(pid) for pid in [os.getpid(), *(c.pid for c in children)])
            """
            running = await serving(host, program(tmp_path / "p", text))
            pids = [int(pid) for pid in (await running.get()).body.split()]
            os.kill(running.pid, signal.SIGKILL)
            await reached(lambda: all(is_gone(pid) for pid in pids), "the end of the program and its children")

    run(main())


def test_a_port_that_another_takes_meanwhile_is_told_from_one_that_is_free(tmp_path: Path) -> None:
    started = Program([sys.executable], {}, None, None)
    assert not started.port_is_taken()
    with socket.socket() as other:
        other.bind(("127.0.0.1", started.port))
        other.listen()
        assert started.port_is_taken()
    started.release()


def test_of_programs_that_do_not_listen_yet_no_two_have_one_port() -> None:
    free, kept = reserve_port()
    kept.close()
    with reserve_port(range(free, free + 1))[1], pytest.raises(OSError, match="in use"):
        reserve_port(range(free, free + 1))
    port, kept = reserve_port(range(free, free + 1))
    kept.close()
    assert port == free


def test_a_program_whose_port_is_taken_is_started_again_on_another(tmp_path: Path) -> None:
    text = """
        import subprocess
        if not os.path.exists("port"):
            open("port", "w").write(os.environ["PORT"])
            # It has the port but does not listen, or it could be taken for the program before that has ended.
            code = "import os, socket, time; s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['PORT'])));"
            code += "open('taken', 'w').close(); time.sleep(1000)"
            subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
            while not os.path.exists("taken"):
                time.sleep(0.01)
            sys.exit("address already in use")
        def answer(request):
            return 200, os.environ["PORT"]
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text))
            assert (await running.get()).body.decode() != (tmp_path / "p" / "port").read_text()

    run(main())

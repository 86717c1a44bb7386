"""Any program that listens on $PORT is a replica, behind a sidecar that keeps the revision's limits."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.host import DEADLINE, hosting, reached, request_bytes, run
from support.programs import command, program, serving
from upwell.runtime.host.launcher import TemplateState

TELLS_ITS_WORLD = """
    import json
    def answer(request):
        names = ("PORT", "K_SERVICE", "GREETING", "UPWELL_REPLICA", "PYTHONUNBUFFERED")
        world = {name: os.environ.get(name) for name in names}
        world |= {"directory": os.getcwd(), "arguments": sys.argv[1:], "listens": request.server.server_address[1]}
        world |= {"group": os.getpgid(0), "pid": os.getpid(), "parent": os.getppid()}
        world |= {"descriptors": {n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                                  if os.path.exists(f"/proc/self/fd/{n}")}}
        return 200, json.dumps(world)
"""


def test_a_program_gets_its_port_its_environment_and_its_directory_and_nothing_of_ours(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            environment = {"K_SERVICE": "program", "GREETING": "good day"}
            script = program(tmp_path / "p", TELLS_ITS_WORLD)
            words = [*script.command, "--port=$(PORT)", "$$(PORT)", "$(ABSENT)"]
            running = await serving(host, command(words, tmp_path / "p", environment=environment))
            world = json.loads((await running.get()).body)
            port = world["PORT"]
            assert int(port) == world["listens"]
            assert (world["K_SERVICE"], world["GREETING"]) == ("program", "good day")
            assert world["PYTHONUNBUFFERED"] == "1"
            assert world["arguments"] == [f"--port={port}", "$(PORT)", "$(ABSENT)"]
            assert Path(world["directory"]) == (tmp_path / "p").resolve()
            assert world["group"] == world["pid"] != running.pid
            assert world["parent"] == running.pid
            assert world["UPWELL_REPLICA"] == str(running.pid)
            kinds = list(world["descriptors"].values())
            assert str(tmp_path / "p" / "output.log") in kinds
            # Its own listener and the connection from the sidecar; nothing of the sidecar's.
            assert sum(kind.startswith("socket:") for kind in kinds) == 2

    run(main())


def test_a_shell_script_is_a_program(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            script = tmp_path / "serve.sh"
            script.write_text(
                f'#!/bin/sh\necho starting\n"{sys.executable}" -m http.server "$PORT" --bind 127.0.0.1\n'
            )
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
            (tmp_path / "greeting.txt").write_text("from a file")
            running = await serving(host, command(["./serve.sh"], tmp_path))
            assert (await running.get("/greeting.txt")).body == b"from a file"
            assert (tmp_path / "output.log").read_text().startswith("starting\n")

    run(main())


def test_a_trial_proves_a_program_that_nobody_asks_for_and_leaves_nothing_running(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            text = "open('pids', 'a').write(f'{os.getpid()}\\n')"
            template = host.launcher.load(program(tmp_path / "p", text))
            assert (await template.loaded).forkable
            assert template.state is TemplateState.LOADED
            await reached(lambda: "process" not in repr(host.launcher) and "0 replicas" in repr(host.launcher))
            assert len((tmp_path / "p" / "pids").read_text().splitlines()) == 1

    run(main())


def test_a_replica_that_is_asked_for_at_once_is_the_proof(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            text = "open('pids', 'a').write(f'{os.getpid()}\\n')"
            template = host.launcher.load(program(tmp_path / "p", text))
            running = host.start(template)
            await running.recorder.became_ready()
            await template.loaded
            assert len((tmp_path / "p" / "pids").read_text().splitlines()) == 1
            assert list(running.process.phases) == ["wait", "fork", "start"]

    run(main())


def test_the_limit_on_concurrency_holds_and_what_waits_is_served_in_turn(tmp_path: Path) -> None:
    text = """
        import threading
        running, most = 0, 0
        def answer(request):
            global running, most
            running += 1
            most = max(most, running)
            time.sleep(0.02)
            running -= 1
            return 200, str(most)
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text, container_concurrency=2))
            answers = await asyncio.gather(*(running.get() for _ in range(12)))
            assert {answer.status for answer in answers} == {200}
            assert max(int(answer.body) for answer in answers) == 2

    run(main())


@pytest.mark.parametrize("limit", ["timeout_seconds", "response_start_timeout_seconds", "idle_timeout_seconds"])
def test_a_program_that_takes_too_long_is_answered_for(tmp_path: Path, limit: str) -> None:
    text = "def answer(request):\n    time.sleep(30)\n    return 200, ''"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            source = replace(program(tmp_path / "p", text), **{limit: 0.2})  # type: ignore[arg-type]  # all floats
            running = await serving(host, source)
            answer = await running.get()
            assert (answer.status, answer.body) == (504, b"request timeout")

    run(main())


def test_a_program_s_load_is_reported_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p"))
            for _ in range(3):
                assert (await running.get()).body == b"hello"
            await reached(lambda: sum(r.request_count for r in running.recorder.reports) == 3, "three requests")
            await reached(lambda: running.recorder.metrics.get("responses") == {"200": 3}, "the totals")

    run(main())


def test_an_upgrade_passes_through_the_sidecar_in_both_directions(tmp_path: Path) -> None:
    text = """
        import socketserver
        class Echo(socketserver.StreamRequestHandler):
            def handle(self):
                while self.rfile.readline().strip():
                    pass
                head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: echo", "Connection: Upgrade", "", ""]
                self.wfile.write("\\r\\n".join(head).encode())
                while data := self.request.recv(1000):
                    self.wfile.write(data.upper())
        def serve():
            socketserver.ThreadingTCPServer.daemon_threads = True
            socketserver.ThreadingTCPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text))
            async with asyncio.timeout(DEADLINE):
                reader, writer = await asyncio.open_unix_connection(running.path)
                writer.write(request_bytes("/", "Connection: Upgrade", "Upgrade: echo"))
                assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
                for word in (b"one", b"two"):
                    writer.write(word)
                    assert await reader.readexactly(3) == word.upper()
                writer.close()
                await writer.wait_closed()

    run(main())


def test_a_drain_loses_nothing_that_is_under_way_or_has_just_been_sent(tmp_path: Path) -> None:
    text = "def answer(request):\n    time.sleep(0.3)\n    return 200, 'done'"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text))
            before = [asyncio.create_task(running.get()) for _ in range(5)]
            await reached(lambda: any(r.request_count for r in running.recorder.reports))
            running.process.drain()
            before += [asyncio.create_task(running.get()) for _ in range(5)]
            assert [(await answer).body for answer in before] == [b"done"] * 10
            status = await running.recorder.exit()
            assert (status.code, status.was_ready) == (0, True)

    run(main())

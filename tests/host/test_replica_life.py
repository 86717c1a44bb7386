from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from support.host import HELLO, hosting, is_gone, reached, run
from upwell.functions.errors import Unavailable
from upwell.runtime import procfs
from upwell.runtime.host.launcher import LoadResult, TemplateState


def test_a_replica_serves_on_the_socket_it_was_given_and_tells_the_phases_of_its_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            assert isinstance(await template.loaded, LoadResult)
            assert template.state is TemplateState.LOADED
            running = host.start(template)
            answer = await running.get()
            assert (answer.status, answer.body) == (200, b"hello")
            assert "server" not in answer.headers
            await running.recorder.became_ready()
            assert list(running.process.phases) == ["wait", "fork", "start"]
            assert all(milliseconds >= 0 for milliseconds in running.process.phases.values())

    run(main())


def test_a_replica_asked_for_while_its_module_is_still_importing_starts_when_it_can(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load("import time\ntime.sleep(0.2)\ndef main(): return 'slow'")
            first, second = host.start(template), host.start(template)
            assert template.state is TemplateState.LOADING
            answers = await asyncio.gather(first.get(), second.get())
            assert [answer.body for answer in answers] == [b"slow", b"slow"]

    run(main())


def test_the_zygote_is_the_parent_of_templates_and_replicas(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            running = host.start(template)
            await running.recorder.became_ready()
            assert template.pid is not None
            assert procfs.parent(running.pid) == host.launcher.zygote_pid
            assert procfs.parent(template.pid) == host.launcher.zygote_pid
            assert os.getpgid(running.pid) == running.pid

    run(main())


def test_the_standby_becomes_the_replica_and_another_one_takes_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            for _ in range(3):
                standby = await host.standby(template)
                running = host.start(template)
                await running.recorder.became_ready()
                assert running.pid == standby
                assert procfs.parent(running.pid) == host.launcher.zygote_pid
                assert os.getpgid(running.pid) == running.pid

    run(main())


def test_many_that_are_asked_for_at_once_are_all_started_and_all_the_zygotes_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            await template.loaded
            replicas = [host.start(template) for _ in range(12)]
            for running in replicas:
                await running.recorder.became_ready()
                assert procfs.parent(running.pid) == host.launcher.zygote_pid
                assert os.getpgid(running.pid) == running.pid
            assert len({running.pid for running in replicas}) == 12
            await host.standby(template)

    run(main())


def test_a_replica_runs_in_its_source_folder_with_the_environment_it_was_given(tmp_path: Path) -> None:
    text = """
        import os
        def main():
            return {name: os.environ.get(name) for name in ("TARGET", "OMP_NUM_THREADS", "MKL_NUM_THREADS")} | {
                "folder": os.getcwd()
            }
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            source = host.source(text, environment={"TARGET": "you", "OMP_NUM_THREADS": "2"})
            running = host.start(host.launcher.load(source))
            answer = await running.get()
            expected = f'{{"TARGET":"you","OMP_NUM_THREADS":"2","MKL_NUM_THREADS":"1","folder":"{source.root}"}}'
            assert answer.body.decode() == expected

    run(main())


def test_replicas_of_one_template_draw_different_random_numbers(tmp_path: Path) -> None:
    text = "import random\nrandom.seed(1)\ndef main(): return str(random.random())"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(text)
            bodies = {(await host.start(template).get()).body for _ in range(3)}
            assert len(bodies) == 3

    run(main())


def test_numpys_global_generator_differs_between_replicas_too(tmp_path: Path) -> None:
    text = "import numpy.random\nnumpy.random.seed(1)\ndef main(): return str(numpy.random.random())"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(text)
            assert (await template.loaded).reasons == ()
            bodies = {(await host.start(template).get()).body for _ in range(3)}
            assert len(bodies) == 3

    run(main())


def test_a_drained_replica_that_is_idle_exits_with_0_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(HELLO)
            running.process.drain()
            status = await running.recorder.exit()
            assert (status.code, status.was_ready, status.reason) == (0, True, "exited with code 0")

    run(main())


def test_sigterm_drains_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(HELLO)
            os.kill(running.pid, signal.SIGTERM)
            assert (await running.recorder.exit()).code == 0

    run(main())


def test_an_evicted_template_takes_no_replica_with_it_and_starts_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            running = host.start(template)
            await running.recorder.became_ready()
            assert template.pid is not None
            template.close()
            pid = template.pid
            await reached(lambda: is_gone(pid))
            assert (await running.get()).body == b"hello"
            assert template.state is TemplateState.EVICTED
            with pytest.raises(Unavailable, match="evicted"):
                host.start(template)

    run(main())


def test_a_request_counts_in_a_report_that_comes_at_once_and_in_the_metrics(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(HELLO)
            recorder = running.recorder
            await running.get("/", "K-Proxy-Request: activator")
            await running.get()
            await reached(lambda: sum(report.request_count for report in recorder.reports) == 2)
            assert sum(report.proxied_request_count for report in recorder.reports) == 1
            assert {report.reporter for report in recorder.reports} == {running.process.name}
            assert {report.revision for report in recorder.reports} == {"default/function-00001"}
            sequence = [report.sequence for report in recorder.reports]
            assert sequence == list(range(1, len(sequence) + 1))
            await reached(lambda: recorder.metrics.get("responses") == {"200": 2})
            assert sum(recorder.metrics["buckets"]) == 2

    run(main())


def test_an_application_whose_startup_fails_ends_its_replica_with_a_known_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database today"})
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = host.start(host.load(text))
            status = await running.recorder.exit()
            assert (status.code, status.was_ready) == (3, False)
            assert "the application's startup failed" in status.reason

    run(main())
    assert "no database today" in capfd.readouterr().err


def test_an_application_sees_its_startup_and_its_shutdown(tmp_path: Path) -> None:
    text = """
        import pathlib
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                for name in ("startup", "shutdown"):
                    assert (await receive())["type"] == f"lifespan.{name}"
                    pathlib.Path(name).touch()
                    await send({"type": f"lifespan.{name}.complete"})
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            source = host.source(text)
            running = host.start(host.launcher.load(source))
            await running.recorder.became_ready()
            assert (source.root / "startup").exists()
            assert not (source.root / "shutdown").exists()
            running.process.drain()
            assert (await running.recorder.exit()).code == 0
            assert (source.root / "shutdown").exists()

    run(main())


def test_stopping_the_launcher_drains_replicas_and_tells_of_every_end(tmp_path: Path) -> None:
    text = "import time\ndef main():\n    time.sleep(0.3)\n    return 'done'"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(text)
            busy, idle = host.start(template), host.start(template)
            await busy.recorder.became_ready()
            await idle.recorder.became_ready()
            answer = asyncio.create_task(busy.get())
            await reached(lambda: any(report.request_count for report in busy.recorder.reports))
            await host.launcher.stop(10.0)
            assert (await answer).body == b"done"
            assert [status.code for status in busy.recorder.exits + idle.recorder.exits] == [0, 0]

    run(main())

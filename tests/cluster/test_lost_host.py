"""With real processes: what is lost with the host's zygote is no fault of the function."""

import asyncio
import os
import signal
from pathlib import Path

from support.platform import deploy, platform, run, until
from upwell.runtime.host.templates import TemplateState

SLOW = "import time\ntime.sleep(0.7)\ndef main():\n    return 'hello'\n"


def test_a_zygote_that_dies_during_an_import_delays_the_deployment_and_does_not_fail_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            deploying = asyncio.create_task(deploy(on, SLOW))

            def importing() -> bool:
                return any(t.state is TemplateState.LOADING and t.pid is not None for t in on.launcher._templates)

            await until(importing, "an import that is under way")
            before = on.launcher.zygote_pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            hello = await deploying
            assert on.launcher.zygote_pid != before
            assert (await hello.ask()).text == "hello"

    run(scenario())


def test_an_import_that_is_killed_twice_is_begun_again_and_does_not_fail_the_deployment(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            deploying = asyncio.create_task(deploy(on, SLOW))
            killed: set[int] = set()

            def importing() -> set[int]:
                templates = on.launcher._templates
                pids = {t.pid for t in templates if t.state is TemplateState.LOADING and t.pid is not None}
                return pids - killed

            for _ in range(2):
                await until(lambda: bool(importing()), "an import that is under way")
                (pid,) = importing()
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            hello = await deploying
            assert (await hello.ask()).text == "hello"

    run(scenario())


def test_a_request_is_answered_although_what_would_serve_it_is_killed_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            hello = await deploy(on, SLOW)
            killed: set[int] = set()

            def pids() -> set[int]:
                return {t.pid for t in on.launcher._templates if t.pid is not None} - killed

            (first,) = pids()
            killed.add(first)
            os.kill(first, signal.SIGKILL)
            asking = asyncio.create_task(hello.ask())
            await until(lambda: bool(pids()), "another template")
            (second,) = pids()
            killed.add(second)
            os.kill(second, signal.SIGKILL)
            answer = await asking
            assert (answer.status, answer.text) == (200, "hello")

    run(scenario())

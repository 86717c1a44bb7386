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

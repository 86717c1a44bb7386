from __future__ import annotations

import logging
from pathlib import Path

import pytest

from support.host import Host, hosting, reached, run
from upwell.functions.errors import InvalidFunction
from upwell.runtime.host.launcher import LoadFailed, TemplateState


async def refusal(host: Host, text: str, **fields: str) -> LoadFailed:
    """Why a function cannot be loaded; a replica that was asked for ends with the same reason."""
    template = host.load(text, **fields)
    running = host.start(template)
    with pytest.raises(InvalidFunction) as raised:
        await template.loaded
    assert isinstance(raised.value, LoadFailed)
    assert template.state is TemplateState.FAILED
    status = await running.recorder.exit()
    assert (status.code, status.was_ready) == (None, False)
    assert raised.value.what in status.reason
    with pytest.raises(InvalidFunction):
        host.start(template)
    return raised.value


@pytest.mark.parametrize(
    ("text", "what", "traceback"),
    [
        pytest.param("def main(:\n", "invalid syntax", "SyntaxError", id="syntax error"),
        pytest.param(
            "import no_such_thing\n", "no module named no_such_thing", "ModuleNotFoundError", id="missing"
        ),
        pytest.param("raise ValueError('bad day')\n", "bad day", "ValueError: bad day", id="raises"),
        pytest.param("import sys\nsys.exit(3)\n", "exit(3)", "SystemExit", id="exits"),
        pytest.param("raise KeyboardInterrupt\n", "KeyboardInterrupt", "KeyboardInterrupt", id="interrupts"),
        pytest.param("import os\nos._exit(9)\n", "exited with code 9", "", id="dies"),
        pytest.param("import os\nos.kill(os.getpid(), 11)\n", "killed by SIGSEGV", "", id="crashes"),
        pytest.param("def main(first, second): ...\n", "main", "", id="fits nothing"),
        pytest.param("number = 1\n", "no public callable", "", id="holds no function"),
    ],
)
def test_a_module_that_cannot_be_served_is_refused_with_its_reason(
    tmp_path: Path, text: str, what: str, traceback: str
) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            refused = await refusal(host, text)
            assert what in refused.what
            assert (traceback in refused.traceback) if traceback else (refused.traceback == "")

    run(main())


def test_an_import_that_hangs_is_given_up_at_the_load_deadline(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path, load_deadline=0.3) as host:
            refused = await refusal(host, "import time\ntime.sleep(1000)\n")
            assert "took longer than 0.3 s" in refused.what

    run(main())


def test_a_template_closed_amid_its_import_is_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load("import time\ntime.sleep(1000)\n")
            running = host.start(template)
            await reached(lambda: template.pid is not None)
            template.close()
            assert "evicted" in (await running.recorder.exit()).reason

    run(main())


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        pytest.param(
            "from threading import Event, Thread\nThread(target=Event().wait, daemon=True, name='poller').start()",
            "it started 1 thread(s): poller",
            id="thread",
        ),
        pytest.param("import socket\nkept = socket.socket()", "it opened a socket", id="socket"),
        pytest.param(
            "import select\nkept = select.epoll()", "it opened an epoll instance (an event loop?)", id="epoll"
        ),
        pytest.param("import os\nkept = os.pipe()", "it opened a pipe", id="pipe"),
        pytest.param("import os\nkept = os.eventfd(0)", "it opened an eventfd", id="eventfd"),
    ],
)
def test_a_module_that_cannot_be_forked_is_imported_anew_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, opening: str, reason: str
) -> None:
    text = f"import os\n{opening}\nimported_by = os.getpid()\ndef main(): return str(imported_by)\n"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(text)
            early = host.start(template)
            result = await template.loaded
            assert (result.forkable, result.reasons) == (False, (reason,))
            late = host.start(template)
            for running in (early, late):
                assert (await running.get()).body == str(running.pid).encode()
                await running.recorder.became_ready()
                assert list(running.process.phases) == ["wait", "fork", "import", "start"]
            assert template.state is TemplateState.FRESH

    with caplog.at_level(logging.WARNING, "upwell.host"):
        run(main())
    assert [record.__dict__["reasons"] for record in caplog.records] == [reason]


def test_a_fresh_replica_whose_import_fails_says_why(tmp_path: Path) -> None:
    text = """
        import os, pathlib
        kept = os.pipe()
        if pathlib.Path("imported").exists():
            raise ValueError("only once")
        pathlib.Path("imported").touch()
        def main(): ...
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(text)
            await template.loaded
            status = await host.start(template).recorder.exit()
            assert status.code == 5
            assert "only once" in status.reason

    run(main())


def test_open_files_do_not_keep_a_module_from_being_forked(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load("kept = open(__file__)\ndef main(): return kept.name\n")
            assert (await template.loaded).forkable

    run(main())

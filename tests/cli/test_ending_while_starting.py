"""A command that serves is ended while the platform has not started yet: its host's interpreter hangs."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.command import PATIENCE, UPWELL

HANGING_HOST = """\
import pathlib, sys, time

if "upwell.runtime.host.base" in sys.orig_argv:
    pathlib.Path({mark!r}).touch()
    time.sleep(300)
"""
PROMPT_SECONDS = 3.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["up", "run"])
def test_the_first_signal_ends_it_at_once(tmp_path: Path, command: str, number: signal.Signals) -> None:
    mark = tmp_path / "the host began"
    (tmp_path / "sitecustomize.py").write_text(HANGING_HOST.format(mark=str(mark)))
    (tmp_path / "hello.py").write_text("def hello(): ...\n")
    arguments = ["up", "--data", "data"] if command == "up" else ["run", "hello.py"]
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [*UPWELL, *arguments, "--port", "0", "--admin-port", "0"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mark.exists()
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0, (tmp_path / "output").read_text()
        assert time.monotonic() - began < PROMPT_SECONDS
        assert (tmp_path / "output").read_text() == "■ stopping\n"
    finally:
        process.kill()
        process.wait()

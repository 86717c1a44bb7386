"""A run's directory goes with it, and a killed run's with the next."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from upwell.runtime.roles.scratch import LONGEST_SOCKET_FOLDER, scratch_directory, socket_folder, sweep

HOLD = (
    "from upwell.runtime.roles.scratch import scratch_directory as d\nwith d() as p: print(p, flush=True); input()"
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_is_private_and_gone_at_the_end(temporary: Path) -> None:
    with scratch_directory() as path:
        assert path.parent == temporary
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "bundle").mkdir()
    assert not path.exists()


def test_the_next_run_sweeps_what_a_killed_one_left_and_leaves_a_living_one_alone(temporary: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, dead = start()
    living, alive = start()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert dead.exists()
        foreign = temporary / "upwell-run-link"
        foreign.symlink_to(os.curdir)
        sweep(temporary)
        assert not dead.exists()
        assert alive.exists()
        assert foreign.is_symlink()
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()


def test_sockets_stand_where_their_paths_are_short_enough(temporary: Path) -> None:
    deep = temporary / ("x" * LONGEST_SOCKET_FOLDER)
    deep.mkdir()
    with socket_folder(deep) as folder:
        assert folder.parent == temporary
    assert not folder.exists()
    near = Path(tempfile.mkdtemp(dir="/tmp"))
    with socket_folder(near) as folder:
        assert folder.parent == near
    near.rmdir()

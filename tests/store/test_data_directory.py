"""A data directory belongs to one platform at a time, which ends what a dead one left running and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from upwell.functions.errors import InvalidSettings, Unavailable
from upwell.runtime import procfs
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.cluster.reference import SourceReference
from upwell.runtime.roles.data import MARK, DataDirectory, end_marked, sweep_bundles, sweep_logs
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.object_store import service

DAEMON = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    return procfs.state(pid) not in ("", "Z", "X")


@contextlib.contextmanager
def daemon(**environment: str) -> Iterator[int]:
    """A process in a session of its own, whose parent is gone and which passes over SIGTERM."""
    started = subprocess.run(
        [sys.executable, "-c", DAEMON],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    pid = int(started.stdout)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_new_directory_is_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with DataDirectory.open(path) as data:
        assert path.stat().st_mode & 0o777 == 0o700
        assert data.objects.parent == path
        assert data.bundles.is_dir()
        assert data.logs.is_dir()
        assert (path / "version").read_text() == "1\n"
        assert (path / "lock").read_text() == f"{os.getpid()}\n"
        assert data.environment == {MARK: data.mark}


def test_one_that_others_could_enter_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o755)
    with DataDirectory.open(path):
        assert path.stat().st_mode & 0o777 == 0o700


def test_the_mark_stays_and_is_the_directorys_own(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path / "one") as one, DataDirectory.open(tmp_path / "two") as two:
        assert one.mark != two.mark
        assert len(one.mark) == 32
    with DataDirectory.open(tmp_path / "one") as again:
        assert again.mark == one.mark


@pytest.mark.parametrize("text", [b"", b"0" * 32, b"\xff" * 32])
def test_a_damaged_mark_is_replaced_by_a_new_one(tmp_path: Path, text: bytes) -> None:
    with DataDirectory.open(tmp_path / "data") as data:
        before = data.mark
    (tmp_path / "data" / "mark").write_bytes(text)
    with DataDirectory.open(tmp_path / "data") as data:
        assert len(data.mark) == 32
        assert data.mark not in (before, "0" * 32)


def test_a_copy_of_a_directory_has_a_mark_of_its_own_and_leaves_the_first_ones_processes(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path / "data") as data, daemon(**{MARK: data.mark}) as serving:
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        with DataDirectory.open(tmp_path / "copy") as copy:
            assert copy.ended == ()
            assert copy.mark != data.mark
        assert is_alive(serving)


def test_no_mark_at_all_is_refused_since_everybody_carries_that() -> None:
    with pytest.raises(ValueError, match="every process"):
        end_marked("")


def test_a_second_platform_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with DataDirectory.open(path):
        with pytest.raises(Unavailable, match=f"process {os.getpid()}") as refused, DataDirectory.open(path):
            pass
        assert refused.value.where == str(path)
    with DataDirectory.open(path):
        pass


def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from upwell.runtime.roles.data import DataDirectory\n"
        "with DataDirectory.open(Path(sys.argv[1])): print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "data")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(Unavailable, match=f"process {process.pid}"), DataDirectory.open(tmp_path / "data"):
            pass
        process.kill()
    with DataDirectory.open(tmp_path / "data"):
        pass


def test_a_directory_of_a_newer_version_is_refused_with_both(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path / "data"):
        pass
    (tmp_path / "data" / "version").write_text("12\n")
    with (
        pytest.raises(InvalidSettings, match="its format is 12, this one knows 1"),
        DataDirectory.open(tmp_path / "data"),
    ):
        pass


def test_a_directory_with_anything_else_in_it_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(InvalidSettings, match="is not a data directory"), DataDirectory.open(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InvalidSettings, match="is not a directory"), DataDirectory.open(notes):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    os.chown(path, 12345, -1)
    with pytest.raises(InvalidSettings, match="belongs to another user"), DataDirectory.open(path):
        pass


def test_a_directory_whose_making_was_cut_off_is_made(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "lock").touch()
    (path / "version.partial").write_text("")
    with DataDirectory.open(path):
        assert (path / "version").read_text() == "1\n"


def test_orphans_are_ended_by_the_mark_daemons_too_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with DataDirectory.open(path) as data:
        mark = data.mark
    with (
        daemon(**{MARK: mark}) as orphan,
        daemon(**{MARK: mark}) as other_orphan,
        daemon(**{MARK: mark + "0"}) as longer,
        daemon(**{MARK: "0" + mark}) as foreign,
        daemon(OTHER=f"{MARK}={mark}") as mentioning,
        daemon() as bystander,
    ):
        with DataDirectory.open(path) as data:
            assert data.ended == tuple(sorted((orphan, other_orphan)))
            assert not is_alive(orphan)
            assert not is_alive(other_orphan)
        for pid in (longer, foreign, mentioning, bystander):
            assert is_alive(pid)
    with DataDirectory.open(path) as data:
        assert data.ended == ()


def test_one_that_carries_the_mark_itself_ends_neither_itself_nor_those_that_led_to_it() -> None:
    code = (
        "import os, subprocess, sys; from upwell.runtime.roles.data import end_marked\n"
        "if len(sys.argv) > 1: print(end_marked(os.environ['UPWELL_PLATFORM']))\n"
        "else: print('parent', subprocess.run([sys.executable, '-c', os.environ['CODE'], 'x']).returncode)"
    )
    environment = {**os.environ, MARK: "f00d", "CODE": code}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["()", "parent", "0"]


def test_nothing_is_ended_when_nothing_carries_the_mark() -> None:
    assert end_marked("there is no such mark") == ()


def test_sources_that_no_object_names_are_removed_and_none_in_use(tmp_path: Path) -> None:
    store = MemoryStore(FakeClock())
    used, unused = "a" * 64, "b" * 64
    manifest = service("hello")
    annotation = SourceReference(used, "main").annotation()
    manifest["spec"]["template"]["metadata"] = {"annotations": {"upwell.dev/source": annotation}}
    asyncio.run(store.create(manifest))
    with DataDirectory.open(tmp_path / "data") as data:
        for name in (used, unused, ".partial-x"):
            (data.bundles / name).mkdir()
            (data.bundles / name / "main.py").write_text("")
        assert sweep_bundles(store, data) == 2
        assert [path.name for path in data.bundles.iterdir()] == [used]
        assert sweep_bundles(store, data) == 0


def test_what_revisions_of_deleted_services_printed_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path / "data") as data:
        for name in ("default/kept", "default/deleted", "other/kept"):
            (data.logs / name).mkdir(parents=True)
            (data.logs / name / "revision-00001.log").write_text("hi")
        assert sweep_logs([("default", "kept")], data) == 2
        assert sorted(map(str, (p.relative_to(data.logs) for p in data.logs.rglob("*")))) == [
            "default",
            "default/kept",
            "default/kept/revision-00001.log",
        ]
        assert sweep_logs([("default", "kept")], data) == 0

"""A full disk is told to whoever writes, costs nothing that is there, and is no trouble once there is room."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upwell.functions.errors import Unavailable
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.cluster.sqlite import SqliteStore
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.object_store import service

ROOM = 1 << 20
LIMITED = """
import asyncio, resource, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_full_disk import fill
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
lift = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(asyncio.run(fill(Path(sys.argv[1]), lift)))
"""


async def fill(path: Path, make_room: Callable[[], None]) -> str:
    """Write until the disk is full; check what then holds, make room and write again. What the writer was told."""
    store = SqliteStore(path, FakeClock())
    written: list[Manifest] = []
    told = ""
    while not told:
        assert len(written) < 1000, "the disk is not as small as it should be"
        try:
            written.append(await store.create(service(f"hello-{len(written):04}", "x" * 20_000)))
        except Unavailable as error:
            told = str(error)
    assert await store.list(SERVICE) == written
    refused = await asyncio.gather(
        *(store.create(service(f"n-{n}", "x" * 20_000)) for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(each, Unavailable) for each in refused), refused
    assert await store.list(SERVICE) == written
    make_room()
    written.append(await store.create(service("last")))
    assert await store.list(SERVICE) == written
    await store.aclose()
    again = SqliteStore(path, FakeClock())
    assert await again.list(SERVICE) == written
    await again.aclose()
    return told.replace("\n", " ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "upwell-test", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_with_its_folder_and_the_store_goes_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (ROOM // 2))
    told = asyncio.run(fill(small_disk / "objects.db", ballast.unlink))
    assert f"the disk of {small_disk} is full" in told
    assert "nothing was changed" in told


def test_a_disk_that_is_full_from_the_start_is_told_too(small_disk: Path) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(b"x" * ROOM)
    with pytest.raises(Unavailable, match="is full"):
        SqliteStore(small_disk / "objects.db", FakeClock())


def test_a_file_that_may_not_grow_is_told_to_its_writers_and_loses_nothing(tmp_path: Path) -> None:
    """As where a quota or a limit stands in the way."""
    code = LIMITED.format(folder=str(Path(__file__).parent), room=ROOM)
    path = tmp_path / "objects.db"
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "objects.db" in run.stdout
    assert "cannot be written" in run.stdout

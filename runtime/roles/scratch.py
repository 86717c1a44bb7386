"""A directory for one run of a platform, gone with it, and swept by the next run if it was killed.

Each run locks its directory. A lock ends with its process, however that ends, so an unlocked directory of ours is
a dead run's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "upwell-run-"
LOCK: Final = "lock"
LONGEST_SOCKET_FOLDER: Final = 80
"""A Unix socket's path has 107 bytes on Linux and 103 on macOS; what stands in the folder takes 20."""


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A new directory that only this user may enter, removed at the end; those of dead runs are removed now."""
    sweep(Path(tempfile.gettempdir()))
    path, lock = _locked_directory()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _locked_directory() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (path / LOCK).exists():  # else another run swept it before it was locked
                return path, lock
            os.close(lock)


def sweep(parent: Path) -> None:
    """Remove the directories in `parent` that dead runs of this user left."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


@contextlib.contextmanager
def socket_folder(directory: Path) -> Iterator[Path]:
    """A folder for Unix sockets: in `directory`, or elsewhere when its path would be too long for them."""
    if len(os.fsencode(directory)) <= LONGEST_SOCKET_FOLDER:
        folder = directory / "s"
        folder.mkdir(mode=0o700, exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="upwell-s-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

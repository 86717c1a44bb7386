"""The directory that holds a platform's state: one platform at a time uses it, however the last one ended.

What is in it: `lock` is locked for as long as a platform uses the directory and names its process; `version` is
the format of all the rest, and tells our directories from others; `mark` is a random text that every process of
the platform's functions carries in its environment, beside the directory that it was made for. `objects.db`,
`autoscaler.json`, `bundles`, `logs` and sockets are their owners'.

A lock ends with its process, however that ends. Who gets it knows that the last platform is gone, and ends what
still carries its mark: the function host, replicas, and whatever those have started, daemons included.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from upwell.functions.errors import InvalidSettings, Unavailable
from upwell.runtime.host.orphans import end_carriers

FORMAT: Final = 1
MARK: Final = "UPWELL_PLATFORM"
"""The variable that the processes of a platform's functions carry."""

_BEGINNINGS: Final = frozenset({"lock", "mark"})
"""What a directory holds whose making was cut off."""
_MARK_TEXT: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")
_log = logging.getLogger("upwell.platform")


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A data directory that is locked by this process. `ended` are the processes of a dead platform that were
    found and ended."""

    path: Path
    mark: str
    ended: tuple[int, ...] = ()

    @property
    def objects(self) -> Path:
        """The file of all objects."""
        return self.path / "objects.db"

    @property
    def bundles(self) -> Path:
        """The folder of the copies of functions' sources."""
        return self.path / "bundles"

    @property
    def logs(self) -> Path:
        """The folder of what functions print."""
        return self.path / "logs"

    @property
    def autoscaler(self) -> Path:
        """The file of what the autoscaler remembers over a restart."""
        return self.path / "autoscaler.json"

    @property
    def environment(self) -> Mapping[str, str]:
        """What every process of the platform's functions has in its environment."""
        return {MARK: self.mark}

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[DataDirectory]:
        """Lock the directory, made if it is not there, and end what a dead platform left running.

        Raises InvalidSettings when it is someone else's, not a data directory or of a newer version; Unavailable
        while another platform uses it, when it cannot be written and when orphans do not end.
        """
        path = path.absolute()
        with contextlib.ExitStack() as stack:
            try:
                _make(path)
                stack.callback(os.close, _lock(path))
                mark = _mark(path)
                _check(path)
                for folder in ("bundles", "logs"):
                    (path / folder).mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise Unavailable(f"cannot be used: {error.strerror}", where=str(path), hint=_ANOTHER) from error
            yield cls(path, mark, end_marked(mark))


_ANOTHER: Final = "Give another directory with --data."


class Contents(Protocol):
    """A store whose objects can be looked through."""

    def contents(self) -> Iterable[bytes]:
        """Every object, as JSON."""
        ...


def sweep_bundles(store: Contents, directory: DataDirectory) -> int:
    """Remove the copies of sources that no object names, and those whose making was cut off. How many.

    Only for a start, before anything is applied: a copy is made before the object that names it.
    """
    unused = {path.name: path for path in directory.bundles.iterdir()}
    for data in store.contents():
        if not unused:
            break
        for digest in _DIGEST.findall(data):
            unused.pop(digest.decode(), None)
    for path in unused.values():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    return len(unused)


def sweep_logs(services: Iterable[tuple[str, str]], directory: DataDirectory) -> int:
    """Remove what revisions of Services printed that are not among `services`, by namespace and name. How many
    folders. Only for a start, before anything runs."""
    kept = {directory.logs / namespace / name for namespace, name in services}
    unused = [path for path in directory.logs.glob("*/*") if path not in kept]
    for path in unused:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    for namespace in directory.logs.iterdir():
        with contextlib.suppress(OSError):  # not empty
            namespace.rmdir()
    return len(unused)


def end_marked(mark: str) -> tuple[int, ...]:
    """End every process of a platform with this mark, see `end_carriers`."""
    ended = end_carriers(MARK, mark)
    if ended:
        _log.warning("ended what an earlier platform left running", extra={"pids": list(ended)})
    return ended


def _make(path: Path) -> None:
    """A directory of this user that nobody else may enter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not path.is_dir():
        raise InvalidSettings("is not a directory", where=str(path), hint=_ANOTHER)
    if path.stat().st_uid != os.getuid():
        raise InvalidSettings("belongs to another user", where=str(path), hint=_ANOTHER)
    if not (path / "version").exists() and not _is_new(path):
        hint = f"It is not empty and holds no data of upwell. {_ANOTHER}"
        raise InvalidSettings("is not a data directory", where=str(path), hint=hint)
    path.chmod(0o700)


def _is_new(path: Path) -> bool:
    return all(name in _BEGINNINGS or name.endswith(".partial") for name in os.listdir(path))


def _lock(path: Path) -> int:
    """The descriptor that holds the lock."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "?"
        os.close(lock)
        what = f"another upwell uses this directory: process {holder}"
        raise Unavailable(what, where=str(path), hint=f"End that one. To run both: {_ANOTHER}") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _check(path: Path) -> None:
    """The format is known; a new directory gets ours, last of all, so that one without is known to be new."""
    version = path / "version"
    if not version.exists():
        _write(version, f"{FORMAT}\n")
    text = version.read_text().strip()
    if not text.isdecimal():
        raise InvalidSettings(f"its version is {text!r}, which is no number", where=str(version), hint=_ANOTHER)
    if int(text) > FORMAT:
        what = f"was written by a newer upwell: its format is {text}, this one knows {FORMAT}"
        raise InvalidSettings(what, where=str(path), hint=f"Use that version. Or: {_ANOTHER}")


def _mark(path: Path) -> str:
    """The directory's own; a new one in the place of one that is damaged, or that came with a copy of a directory:
    whoever carries that belongs to another platform, which may be running."""
    file, place = path / "mark", f"{path.stat().st_dev}:{path.stat().st_ino}"
    if file.exists():
        mark, _, written = file.read_text(errors="replace").strip().partition(" ")
        if _MARK_TEXT.fullmatch(mark) and written == place:
            return mark
    mark = secrets.token_hex(16)
    _write(file, f"{mark} {place}\n")
    return mark


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also when the machine loses its power."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)

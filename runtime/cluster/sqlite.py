"""Objects in an SQLite file: every acknowledged write is there after a crash of the process.

The file is read once, when it is opened; afterwards it is only written, by one thread, so that a slow disk never
holds up the event loop. Commits go to a write-ahead log without waiting for the disk (`synchronous=NORMAL`): a
killed process loses nothing, a machine that loses power may lose the latest writes, never the order among them.
The file is locked for as long as it is open, and no shared memory is mapped that a full disk could take away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from upwell.functions.errors import Unavailable, UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import ObjectKey
from upwell.runtime.cluster.journaled import Group, JournaledStore

APPLICATION_ID: Final = 0x55505745
"""Stands in the file's header and tells ours from any other SQLite file."""
FORMAT: Final = 1
CLOSE_SECONDS: Final = 10.0
"""For the last commit and the log's return into the file; a disk that takes longer is given up."""
NO_ROOM_BYTES: Final = 1 << 20
LOG_BYTES: Final = 8 << 20
"""What the write-ahead log is cut back to when it has been larger."""

_SCHEMA: Final = (
    "CREATE TABLE objects (kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY (kind, namespace, name)) WITHOUT ROWID",
    "CREATE TABLE latest (version INTEGER NOT NULL)",
    "INSERT INTO latest VALUES (0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)
_PUT: Final = "INSERT OR REPLACE INTO objects (kind, namespace, name, data) VALUES (?, ?, ?, ?)"
_REMOVE: Final = "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?"

_log = logging.getLogger("upwell.cluster")


class UnusableStore(UpwellError):
    """An objects' file that is damaged, in use, not ours or of a newer version; it was left as it is."""


class SqliteJournal:
    """The file at `path`, made if it is not there. Raises UnusableStore.

    `contents` and `version` are for the one who opens it; from the first `commit` on it is the thread's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opening(path):
            self._connection = _connect(path)
            try:
                _prepare(self._connection, path)
            except BaseException:
                self._connection.close()
                raise
        self._thread = ThreadPoolExecutor(1, "upwell-objects")

    def __repr__(self) -> str:
        return f"<SqliteJournal {self._path}>"

    @property
    def version(self) -> int:
        """The latest resource version that was given out."""
        with _opening(self._path):
            row = self._connection.execute("SELECT version FROM latest").fetchone()
        return int(row[0])

    def contents(self) -> Iterator[tuple[ObjectKey, bytes]]:
        """The objects."""
        with _opening(self._path):
            rows = self._connection.execute("SELECT kind, namespace, name, data FROM objects")
            for kind, namespace, name, data in rows:
                yield ObjectKey(kind, namespace, name), data

    def commit(self, group: Group, done: Callable[[UpwellError | None], None]) -> None:
        """See `Journal`."""

        def tell(written: asyncio.Future[None]) -> None:
            error = asyncio.CancelledError() if written.cancelled() else written.exception()
            done(None if error is None else self._explain(error))

        try:
            written = asyncio.get_running_loop().run_in_executor(self._thread, self._write, group)
        except RuntimeError as error:  # no thread can be started
            done(self._explain(error))
        else:
            written.add_done_callback(tell)

    async def aclose(self) -> None:
        """See `Journal`."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._thread, self.close)
        except TimeoutError:
            _log.warning("the objects' file could not be closed in time", extra={"file": str(self._path)})
        self._thread.shutdown(wait=False)

    def close(self) -> None:
        """Let go of the file; what was committed is in it, or in the log beside it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _write(self, group: Group) -> None:
        connection = self._connection
        kept = [(*key, data) for key, data in group.contents.items() if data is not None]
        gone = [key for key, data in group.contents.items() if data is None]
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_PUT, kept)
            connection.executemany(_REMOVE, gone)
            connection.execute("UPDATE latest SET version = ?", (group.version,))
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise

    def _explain(self, error: BaseException) -> UpwellError:
        folder = self._path.parent
        if _is_full(error, folder):
            what, hint = f"the disk of {folder} is full", "Make room there and try again; nothing was changed."
        else:
            what, hint = f"the objects' file cannot be written: {error}", "Nothing was changed."
        told = Unavailable(what, where=str(self._path), hint=hint)
        told.__cause__ = error
        return told


class SqliteStore(JournaledStore):
    """An `ObjectStore` in the file at `path`; close it with `aclose`. Raises UnusableStore, naming the file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        journal = SqliteJournal(path)
        try:
            super().__init__(clock, journal, journal.contents(), journal.version)
        except (ValueError, LookupError, TypeError) as error:
            journal.close()
            raise UnusableStore("an object in it is damaged", where=str(path), hint=_MENDING) from error
        except BaseException:
            journal.close()
            raise


_MENDING: Final = "Move it away, with the files beside it, and apply the manifests again."


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = error.sqlite_errorcode & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise UnusableStore("another process has it open", where=str(path), hint="End that one.") from error
        if _is_full(error, path.parent):
            raise Unavailable(f"the disk of {path.parent} is full", where=str(path), hint="Make room.") from error
        if code == sqlite3.SQLITE_NOTADB:
            raise UnusableStore("is no file of objects", where=str(path), hint=_MENDING) from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise UnusableStore(f"is damaged: {error}", where=str(path), hint=_MENDING) from error
        raise UnusableStore(f"cannot be opened: {error}", where=str(path)) from error
    except OSError as error:
        raise UnusableStore(f"cannot be opened: {error.strerror}", where=str(path)) from error


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that it is ours before anything is written to it; make what is missing in a new one."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (format,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    is_new = (application, format, tables) == (0, 0, 0)
    if not is_new and application != APPLICATION_ID:
        raise UnusableStore("belongs to another program", where=str(path), hint=_MENDING)
    if format > FORMAT:
        what = f"was written by a newer upwell: its format is {format}, this one knows {FORMAT}"
        raise UnusableStore(what, where=str(path), hint="Use that version, or another data directory.")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    if is_new:
        connection.execute("BEGIN EXCLUSIVE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")


def _is_full(error: BaseException, folder: Path) -> bool:
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return True
    # A quota shows as an I/O error on some file systems.
    return code == sqlite3.SQLITE_IOERR and shutil.disk_usage(folder).free < NO_ROOM_BYTES

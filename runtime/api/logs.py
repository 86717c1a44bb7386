"""Reads what revisions printed, from the files that the host keeps of it.

A file that has grown too large is copied to `<name>.1` and truncated, while the program writes on. A reader
notices by the file's size or its first bytes, takes the rest from the copy, and goes on at the file's beginning.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any, BinaryIO, Final

from upwell.runtime.api.shapes import LINE_LIMIT

PIECE: Final = 256 * 1024
"""Bytes read at once: what one reader can hold in memory."""
MARK: Final = 64
"""The first bytes of a file tell it from what is written in its place."""
POLL_SECONDS: Final = 0.2
"""A person does not notice, and a look costs one stat a file."""


class LogReader:
    """What was read of one revision's log so far. Its calls wait for the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old = path.with_name(f"{path.name}.1")
        self._in_old = self._old.exists()
        self._offset = 0
        self._mark = b""
        self._partial = b""

    def skip_to_tail(self, lines: int) -> None:
        """Go on with the last `lines` lines of what is there now."""
        found, offset = _tail(self._path, lines)
        self._in_old = found < lines and self._old.exists()
        if self._in_old:
            _, offset = _tail(self._old, lines - found)
        self._offset = offset
        self._mark = _head(self._old if self._in_old else self._path)[: min(MARK, offset)]

    def lines(self) -> list[bytes]:
        """Lines that came since, without their ends; empty when none is complete. Call it again for more."""
        while data := self._read():
            *complete, self._partial = (self._partial + data).split(b"\n")
            if len(self._partial) >= LINE_LIMIT:
                complete.append(self._partial)
                self._partial = b""
            if complete:
                return [piece for line in complete for piece in _pieces(line)]
        return []

    def rest(self) -> list[bytes]:
        """The beginning of a line whose end has not been written."""
        rest, self._partial = self._partial, b""
        return [rest] if rest else []

    def _read(self) -> bytes:
        if self._in_old:
            if data := self._piece(self._old):
                return data
            self._begin_anew()
        if self._was_truncated():
            self._in_old = True
            return self._read()
        return self._piece(self._path)

    def _begin_anew(self) -> None:
        self._in_old, self._offset, self._mark = False, 0, b""

    def _was_truncated(self) -> bool:
        try:
            with self._path.open("rb") as file:
                return file.seek(0, 2) < self._offset or not self._is_same(file)
        except OSError:
            return False

    def _is_same(self, file: BinaryIO) -> bool:
        file.seek(0)
        return file.read(len(self._mark)) == self._mark

    def _piece(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                if not self._is_same(file):
                    return b""
                file.seek(self._offset)
                data = file.read(PIECE)
        except OSError:
            return b""
        if self._offset == 0:
            self._mark = data[:MARK]
        self._offset += len(data)
        return data


def _pieces(line: bytes) -> list[bytes]:
    return [line[at : at + LINE_LIMIT] for at in range(0, len(line), LINE_LIMIT)] or [b""]


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MARK)
    except OSError:
        return b""


def _tail(path: Path, lines: int) -> tuple[int, int]:
    """How many of the last `lines` lines the file has, and where they begin."""
    try:
        with path.open("rb") as file:
            return _tail_of(file, lines)
    except OSError:
        return 0, 0


def _tail_of(file: BinaryIO, lines: int) -> tuple[int, int]:
    at = end = file.seek(0, 2)
    if lines == 0:
        return 0, end
    found = 0
    while at > 0:
        begin = max(0, at - PIECE)
        file.seek(begin)
        block = file.read(at - begin)
        # The newline at the very end closes the last line and begins none.
        at_newline = len(block) - 1 if at == end and block.endswith(b"\n") else len(block)
        while (at_newline := block.rfind(b"\n", 0, at_newline)) >= 0:
            found += 1
            if found == lines:
                return found, begin + at_newline + 1
        at = begin
    return (found + 1 if end else 0), 0


class ServiceLogs:
    """The logs of a Service's revisions, or of one of them."""

    def __init__(self, folder: Path, revision: str | None, tail: int | None) -> None:
        self._folder = folder
        self._revision = revision
        self._tail = tail
        self._readers: dict[str, LogReader] = {}
        self._looked = False

    def look(self) -> None:
        """Find the logs that are there; those that come later are read from their beginning."""
        for path in sorted(self._folder.glob("*.log")):
            if path.stem not in self._readers and self._revision in (None, path.stem):
                self._readers[path.stem] = reader = LogReader(path)
                if not self._looked and self._tail is not None:
                    reader.skip_to_tail(self._tail)
        self._looked = True

    def read(self) -> bytes:
        """Some lines as they travel, of each revision in turn; empty when there is nothing new."""
        self.look()
        return b"".join(_encode(name, each.lines()) for name, each in self._readers.items())

    def read_rest(self) -> bytes:
        """The lines that have no end."""
        return b"".join(_encode(name, each.rest()) for name, each in self._readers.items())


def _encode(revision: str, lines: list[bytes]) -> bytes:
    told = ({"revision": revision, "line": line.decode("utf-8", "replace")} for line in lines)
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in told)


async def log_lines(
    logs: ServiceLogs, follow: bool, is_there: Callable[[], Coroutine[Any, Any, bool]]
) -> AsyncGenerator[bytes]:
    """What is there, in pieces of whole lines; with `follow` also what comes, until `is_there` says no."""
    while True:
        if data := await asyncio.to_thread(logs.read):
            yield data
        elif follow and await is_there():
            await asyncio.sleep(POLL_SECONDS)
        else:
            break
    yield logs.read_rest()

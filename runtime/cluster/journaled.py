"""Objects in memory over a journal that keeps them: the store itself, whatever the journal is.

Objects are held as JSON bytes: a hundredth of the memory of a tree of dicts, and what is handed out is always
the caller's own copy.

Writes are committed in groups, one group at a time. While one is on its way to the journal, further writes wait;
then they are decided in the order in which they came, each on what is committed and what those before it leave,
and handed to the journal together. Readers and watchers see a group when it is committed, and so do the writers in
it: when the journal fails, each of them is told so and nothing has changed. A write whose caller was cancelled
before it was decided is dropped, one that was decided stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from upwell.functions.errors import Unavailable, UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.index import ObjectIndex, kind_term, label_term, terms_of
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, Synced
from upwell.runtime.cluster.transaction import Staged, Transaction
from upwell.runtime.cluster.watching import Watch, Watches, decode

T = TypeVar("T")

MOST_WAITING: Final = 20_000
"""Writes that wait for the one under way; a disk that lets more of them pile up is as good as none."""
MOST_TOGETHER: Final = 512
"""Objects after which a group is closed, so that the first writer does not wait for all the others."""


@dataclass(frozen=True, slots=True)
class Group:
    """Writes that become durable together or not at all."""

    contents: Mapping[ObjectKey, bytes | None]
    """Each changed object as it is to be; None when it goes."""
    version: int
    """The latest resource version that was given out."""


class Journal(Protocol):
    """Keeps groups of writes, in order."""

    def commit(self, group: Group, done: Callable[[UpwellError | None], None]) -> None:
        """Keep `group` and call `done` in the event loop, at once or later, with what prevented it if it was not
        kept. The next group comes after that."""
        ...

    async def aclose(self) -> None:
        """Let go of what holds the groups."""
        ...


class _Write(NamedTuple):
    change: Callable[[Transaction], Any]
    written: asyncio.Future[Any]


class _Answer(NamedTuple):
    written: asyncio.Future[Any]
    result: Any
    error: Exception | None


_Answers = list[_Answer]


class JournaledStore:
    """An `ObjectStore` over a journal. `contents` are the objects that the journal holds, `version` its latest."""

    def __init__(
        self, clock: Clock, journal: Journal, contents: Iterable[tuple[ObjectKey, bytes]] = (), version: int = 0
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._objects: dict[ObjectKey, bytes] = {}
        self._index = ObjectIndex()
        self._version = version
        self._watches = Watches()
        self._waiting: deque[_Write] = deque()
        self._committing = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        for key, data in contents:
            self._objects[key] = data
            self._index.move(key, frozenset(), terms_of(key, decode(data)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._objects)} objects, {len(self._watches)} watches>"

    def contents(self) -> Iterator[bytes]:
        """Every object as JSON, in no order. Nothing may be written while it is read."""
        return iter(self._objects.values())

    # Reading

    async def get(self, key: ObjectKey) -> Manifest | None:
        data = self._objects.get(key)
        return None if data is None else decode(data)

    async def list(
        self, kind: str, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        terms = [kind_term(kind), *(label_term(name, value) for name, value in (labels or {}).items())]
        keys = self._index.find(terms)
        return [decode(self._objects[key]) for key in keys if namespace in (None, key.namespace)]

    async def watch(
        self, *kinds: str, namespace: str | None = None, name: str | None = None
    ) -> AsyncGenerator[ObjectChange | Synced]:
        watch = Watch(frozenset(kinds), namespace, name)
        watch.begin((key, self._objects[key]) for key in self._watched(watch))
        self._watches.add(watch)
        try:
            async with contextlib.aclosing(watch.changes()) as changes:
                async for change in changes:
                    yield change
        finally:
            self._watches.remove(watch)

    def _watched(self, watch: Watch) -> Sequence[ObjectKey]:
        if watch.namespace is not None and watch.name is not None:
            keys = (ObjectKey(kind, watch.namespace, watch.name) for kind in sorted(watch.kinds))
            return [key for key in keys if key in self._objects]
        found = sorted(key for kind in watch.kinds for key in self._index.find([kind_term(kind)]))
        return [key for key in found if watch.covers(key)]

    # Writing

    async def create(self, manifest: Manifest) -> Manifest:
        return await self._write(lambda transaction: transaction.create(manifest))

    async def update(self, manifest: Manifest) -> Manifest:
        return await self._write(lambda transaction: transaction.update(manifest))

    async def update_status(self, manifest: Manifest) -> Manifest:
        return await self._write(lambda transaction: transaction.update_status(manifest))

    async def apply_all(self, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        return await self._write(lambda transaction: [transaction.apply(manifest) for manifest in manifests])

    async def delete(self, key: ObjectKey) -> None:
        await self._write(lambda transaction: transaction.delete(key))

    async def aclose(self) -> None:
        """Commit what waits, then close the journal; further writes raise Unavailable."""
        self._closed = True
        await self._idle.wait()
        await self._journal.aclose()

    async def _write(self, change: Callable[[Transaction], T]) -> T:
        if self._closed:
            raise Unavailable("the objects' store is closed")
        if len(self._waiting) >= MOST_WAITING:
            raise Unavailable("too many writes wait for the disk")
        written: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Write(change, written))
        self._idle.clear()
        self._commit_waiting()
        return await written

    def _commit_waiting(self) -> None:
        while self._waiting and not self._committing:
            batch, answers = self._decide()
            if batch:
                self._committing = True
                group = Group({key: staged.data for key, staged in batch.items()}, self._version)
                self._journal.commit(group, functools.partial(self._committed, batch, answers))
            else:
                _give(answers)
        if not self._committing:
            self._idle.set()

    def _decide(self) -> tuple[dict[ObjectKey, Staged], _Answers]:
        """Take as many waiting writes as go together."""
        batch: dict[ObjectKey, Staged] = {}
        answers: _Answers = []
        now = self._clock.now()
        while self._waiting and len(batch) < MOST_TOGETHER:
            change, written = self._waiting.popleft()
            if written.done():
                continue
            transaction = Transaction(self._objects, self._index, batch, self._next_version, now)
            try:
                answers.append(_Answer(written, change(transaction), None))
            except Exception as error:  # its caller's to handle
                answers.append(_Answer(written, None, error))
            else:
                batch.update(transaction.staged)
        return batch, answers

    def _next_version(self) -> int:
        # One whose write then fails is not given out again.
        self._version += 1
        return self._version

    def _committed(self, batch: Mapping[ObjectKey, Staged], answers: _Answers, error: UpwellError | None) -> None:
        self._committing = False
        if error is None:
            for key, staged in batch.items():
                self._take(key, staged)
            _give(answers)
        else:
            # Even what was refused, or changed nothing, was decided on what is not there now.
            _give([answer._replace(error=_copy(error)) for answer in answers])
        self._commit_waiting()

    def _take(self, key: ObjectKey, staged: Staged) -> None:
        self._index.move(key, staged.before, staged.after)
        if staged.data is not None:
            self._objects[key] = staged.data
        elif self._objects.pop(key, None) is None:
            return  # came and went within the group
        self._watches.tell(key, staged.data)


def _give(answers: _Answers) -> None:
    for written, result, error in answers:
        if written.done():
            continue
        if error is None:
            written.set_result(result)
        else:
            written.set_exception(error)


def _copy(error: UpwellError) -> UpwellError:
    """An error is raised once: each raise adds to its traceback."""
    copy = type(error)(error.what, where=error.where, hint=error.hint)
    copy.__cause__ = error.__cause__
    return copy

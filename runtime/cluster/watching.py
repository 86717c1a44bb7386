"""Watches over a store: what each watcher has yet to see.

A watcher holds at most one pending change an object, so a slow one costs no more than the objects themselves and
always sees the latest state. A watch lives until its iterator is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable

from upwell.runtime.cluster.interface import SYNCED, Manifest, ObjectChange, ObjectKey, Synced


def encode(manifest: Manifest) -> bytes:
    """The stored form of a manifest."""
    return json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Manifest:
    """The manifest of a stored form."""
    manifest: Manifest = json.loads(data.decode())  # told the encoding, it need not be guessed
    return manifest


class Watch:
    """What one watcher has yet to see: the latest of each object, in order of first change."""

    __slots__ = ("kinds", "name", "namespace", "pending", "ready")

    def __init__(self, kinds: frozenset[str], namespace: str | None, name: str | None) -> None:
        self.kinds = kinds
        self.namespace = namespace
        self.name = name
        self.pending: OrderedDict[ObjectKey | Synced, bytes | None] = OrderedDict()
        self.ready = asyncio.Event()

    def covers(self, key: ObjectKey) -> bool:
        """Whether it is about the object of `key`, whose kind is one of its own."""
        return self.name in (None, key.name) and self.namespace in (None, key.namespace)

    def begin(self, objects: Iterable[tuple[ObjectKey, bytes]]) -> None:
        """Tell first of what is there, then that this was all."""
        self.pending.update(objects)
        self.pending[SYNCED] = None
        self.ready.set()

    def tell(self, key: ObjectKey, data: bytes | None) -> None:
        """The object of `key` is `data` now."""
        if self.covers(key):
            self.pending[key] = data
            self.ready.set()

    async def changes(self) -> AsyncGenerator[ObjectChange | Synced]:
        """What is pending, and what will be, until closed."""
        while True:
            await self.ready.wait()
            while self.pending:
                key, data = self.pending.popitem(last=False)
                if isinstance(key, Synced):
                    yield key
                else:
                    yield ObjectChange(key, None if data is None else decode(data))
            self.ready.clear()


class Watches:
    """The open watches of a store, by the kinds that they are about."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[Watch]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, watch: Watch) -> None:
        """Tell this one too."""
        self._count += 1
        for kind in watch.kinds:
            self._by_kind.setdefault(kind, []).append(watch)

    def remove(self, watch: Watch) -> None:
        """It is closed."""
        self._count -= 1
        for kind in watch.kinds:
            self._by_kind[kind].remove(watch)

    def tell(self, key: ObjectKey, data: bytes | None) -> None:
        """The object of `key` is `data` now."""
        for watch in self._by_kind.get(key.kind, ()):
            watch.tell(key, data)

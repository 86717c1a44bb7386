"""Objects in memory, with Kubernetes' rules: resource versions, generations, owners, watches.

Objects are held as JSON bytes: a hundredth of the memory of a tree of dicts, and what is handed out is always
the caller's own copy. A watcher holds at most one pending change an object, so a slow one costs no more than
the objects themselves and always sees the latest state.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import UTC, datetime

from upwell.functions.errors import Conflict, NotFound
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey


def encode(manifest: Manifest) -> bytes:
    """The stored form of a manifest."""
    return json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Manifest:
    """The manifest of a stored form."""
    manifest: Manifest = json.loads(data)
    return manifest


class _Watch:
    """Changes that one watcher has yet to see, the latest of each object, in order of first change."""

    __slots__ = ("kinds", "pending", "ready")

    def __init__(self, kinds: frozenset[str], pending: dict[ObjectKey, bytes | None]) -> None:
        self.kinds = kinds
        self.pending = pending
        self.ready = asyncio.Event()
        if pending:
            self.ready.set()

    def tell(self, key: ObjectKey, data: bytes | None) -> None:
        if key.kind in self.kinds:
            self.pending[key] = data
            self.ready.set()

    async def changes(self) -> AsyncIterator[ObjectChange]:
        while True:
            await self.ready.wait()
            while self.pending:
                key = next(iter(self.pending))
                data = self.pending.pop(key)
                yield ObjectChange(key, None if data is None else decode(data))
            self.ready.clear()


class MemoryStore:
    """An `ObjectStore` that lives as long as the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._objects: dict[ObjectKey, bytes] = {}
        self._version = 0
        self._watches: list[_Watch] = []

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._objects)} objects, {len(self._watches)} watches>"

    async def get(self, key: ObjectKey) -> Manifest | None:
        data = self._objects.get(key)
        return None if data is None else decode(data)

    async def list(self, kind: str, namespace: str | None = None) -> list[Manifest]:
        keys = (k for k in self._objects if k.kind == kind and namespace in (None, k.namespace))
        return [decode(self._objects[key]) for key in sorted(keys)]

    async def create(self, manifest: Manifest) -> Manifest:
        key = ObjectKey.of(manifest)
        if key in self._objects:
            raise Conflict(f"{key} exists already", where=str(key))
        created = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = manifest["metadata"] | {
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": created,
        }
        return self._put(key, manifest | {"metadata": metadata})

    async def update(self, manifest: Manifest) -> Manifest:
        key = ObjectKey.of(manifest)
        stored = self._current(key, manifest)
        kept = {name: stored["metadata"][name] for name in ("uid", "creationTimestamp")}
        generation = stored["metadata"]["generation"] + (stored.get("spec") != manifest.get("spec"))
        replaced = manifest | {"metadata": manifest["metadata"] | kept | {"generation": generation}}
        replaced.pop("status", None)
        if "status" in stored:
            replaced["status"] = stored["status"]
        return self._put_if_changed(key, stored, replaced)

    async def update_status(self, manifest: Manifest) -> Manifest:
        key = ObjectKey.of(manifest)
        stored = self._current(key, manifest)
        return self._put_if_changed(key, stored, stored | {"status": manifest.get("status", {})})

    async def delete(self, key: ObjectKey) -> None:
        if key not in self._objects:
            raise NotFound(f"{key} does not exist", where=str(key))
        uid = decode(self._objects[key])["metadata"]["uid"]
        self._remove(key)
        for owned in self._owned_by(uid):
            await self.delete(owned)

    async def watch(self, *kinds: str) -> AsyncGenerator[ObjectChange]:
        wanted = frozenset(kinds)
        watch = _Watch(wanted, {k: d for k, d in sorted(self._objects.items()) if k.kind in wanted})
        self._watches.append(watch)
        try:
            async for change in watch.changes():
                yield change
        finally:
            self._watches.remove(watch)

    def _current(self, key: ObjectKey, manifest: Manifest) -> Manifest:
        data = self._objects.get(key)
        if data is None:
            raise NotFound(f"{key} does not exist", where=str(key))
        stored = decode(data)
        expected = manifest["metadata"].get("resourceVersion")
        if expected is not None and expected != stored["metadata"]["resourceVersion"]:
            raise Conflict(f"{key} was changed since it was read", where=str(key), hint="read it again")
        return stored

    def _put_if_changed(self, key: ObjectKey, stored: Manifest, replaced: Manifest) -> Manifest:
        replaced["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
        return stored if replaced == stored else self._put(key, replaced)

    def _put(self, key: ObjectKey, manifest: Manifest) -> Manifest:
        self._version += 1
        manifest["metadata"]["resourceVersion"] = str(self._version)
        data = encode(manifest)
        self._objects[key] = data
        self._tell(key, data)
        return decode(data)

    def _remove(self, key: ObjectKey) -> None:
        self._version += 1
        del self._objects[key]
        self._tell(key, None)

    def _tell(self, key: ObjectKey, data: bytes | None) -> None:
        for watch in self._watches:
            watch.tell(key, data)

    def _owned_by(self, uid: str) -> Iterable[ObjectKey]:
        def owners(data: bytes) -> list[Manifest]:
            references: list[Manifest] = decode(data)["metadata"].get("ownerReferences", [])
            return references

        return [
            key
            for key, data in self._objects.items()
            if uid.encode() in data and any(o["uid"] == uid and o.get("controller") for o in owners(data))
        ]

"""Objects in memory, with Kubernetes' rules: resource versions, generations, owners, watches.

Objects are held as JSON bytes: a hundredth of the memory of a tree of dicts, and what is handed out is always
the caller's own copy. An index by type, label and owner makes lists and cascades cost what they find. A watcher
holds at most one pending change an object, so a slow one costs no more than the objects themselves and always sees
the latest state.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from upwell.functions.errors import Conflict, NotFound
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import SYNCED, Manifest, ObjectChange, ObjectKey, Synced


def encode(manifest: Manifest) -> bytes:
    """The stored form of a manifest."""
    return json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Manifest:
    """The manifest of a stored form."""
    manifest: Manifest = json.loads(data)
    return manifest


class _Term(NamedTuple):
    """Something that objects are found by: a label, or (without a name) a type or the uid of an owner."""

    name: str
    value: str


def _label(name: str, value: str) -> _Term:
    return _Term(sys.intern(name), value)


def _kind(kind: str) -> _Term:
    return _Term("", kind)


def _owner(uid: str) -> _Term:
    return _Term("", uid)


class _Index:
    """Keys of objects by what they are found by."""

    def __init__(self) -> None:
        self._keys: dict[_Term, set[ObjectKey]] = {}

    def move(self, key: ObjectKey, before: Manifest | None, after: Manifest | None) -> None:
        """The object of `key` is `after` now and was `before`."""
        old = set() if before is None else set(_terms(key, before))
        new = set() if after is None else set(_terms(key, after))
        for term in new - old:
            self._keys.setdefault(term, set()).add(key)
        for term in old - new:
            keys = self._keys[term]
            keys.discard(key)
            if not keys:
                del self._keys[term]

    def find(self, terms: list[_Term]) -> list[ObjectKey]:
        """The keys that are found by all of at least one term, in order."""
        sets = sorted((self._keys.get(term, _NONE) for term in terms), key=len)
        smallest, *others = sets
        return sorted(key for key in smallest if all(key in keys for keys in others))


_NONE: set[ObjectKey] = set()


def _terms(key: ObjectKey, manifest: Manifest) -> Iterator[_Term]:
    metadata = manifest["metadata"]
    yield _kind(key.kind)
    for name, value in (metadata.get("labels") or {}).items():
        yield _label(name, value)
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            yield _owner(reference["uid"])


class _Watch:
    """What one watcher has yet to see: the latest of each object, in order of first change."""

    __slots__ = ("kinds", "pending", "ready")

    def __init__(self, kinds: frozenset[str], objects: Mapping[ObjectKey, bytes]) -> None:
        self.kinds = kinds
        self.pending: OrderedDict[ObjectKey | Synced, bytes | None] = OrderedDict()
        for key, data in objects.items():
            self.pending[key] = data
        self.pending[SYNCED] = None
        self.ready = asyncio.Event()
        self.ready.set()

    def tell(self, key: ObjectKey, data: bytes | None) -> None:
        if key.kind in self.kinds:
            self.pending[key] = data
            self.ready.set()

    async def changes(self) -> AsyncGenerator[ObjectChange | Synced]:
        while True:
            await self.ready.wait()
            while self.pending:
                key, data = self.pending.popitem(last=False)
                if isinstance(key, Synced):
                    yield key
                else:
                    yield ObjectChange(key, None if data is None else decode(data))
            self.ready.clear()


class MemoryStore:
    """An `ObjectStore` that lives as long as the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._objects: dict[ObjectKey, bytes] = {}
        self._index = _Index()
        self._version = 0
        self._watches: list[_Watch] = []

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._objects)} objects, {len(self._watches)} watches>"

    async def get(self, key: ObjectKey) -> Manifest | None:
        data = self._objects.get(key)
        return None if data is None else decode(data)

    async def list(
        self, kind: str, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        terms = [_kind(kind), *(_label(name, value) for name, value in (labels or {}).items())]
        keys = self._index.find(terms)
        return [decode(self._objects[key]) for key in keys if namespace in (None, key.namespace)]

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
        return self._put(key, None, manifest | {"metadata": metadata})

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
        replaced = stored | {"metadata": dict(stored["metadata"]), "status": manifest.get("status", {})}
        return self._put_if_changed(key, stored, replaced)

    async def delete(self, key: ObjectKey) -> None:
        if key not in self._objects:
            raise NotFound(f"{key} does not exist", where=str(key))
        going = [key]
        while going:
            each = going.pop()
            data = self._objects.pop(each, None)
            if data is not None:
                removed = decode(data)
                self._version += 1
                self._index.move(each, removed, None)
                self._tell(each, None)
                going += self._index.find([_owner(removed["metadata"]["uid"])])

    async def watch(self, *kinds: str) -> AsyncGenerator[ObjectChange | Synced]:
        found = sorted(key for kind in set(kinds) for key in self._index.find([_kind(kind)]))
        watch = _Watch(frozenset(kinds), {key: self._objects[key] for key in found})
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
        return stored if replaced == stored else self._put(key, stored, replaced)

    def _put(self, key: ObjectKey, before: Manifest | None, after: Manifest) -> Manifest:
        self._version += 1
        after["metadata"]["resourceVersion"] = str(self._version)
        data = encode(after)
        self._objects[key] = data
        self._index.move(key, before, after)
        self._tell(key, data)
        return decode(data)

    def _tell(self, key: ObjectKey, data: bytes | None) -> None:
        for watch in self._watches:
            watch.tell(key, data)

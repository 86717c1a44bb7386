"""One write as it sees the store: what is committed, under what the writes before it in the same commit leave.

The rules are Kubernetes': resource versions, generations, owners. A transaction changes nothing but its own
`staged`; the store takes that over when the write has succeeded, and makes it visible when it is durable.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from upwell.functions.errors import Conflict, NotFound
from upwell.runtime.cluster.index import ObjectIndex, owner_term, terms_of
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import type_of
from upwell.runtime.cluster.watching import decode, encode

_NOTHING: frozenset[str] = frozenset()


class Staged(NamedTuple):
    """An object as it will be: its content, None when it goes, and what it was and will be found by."""

    data: bytes | None
    before: frozenset[str]
    after: frozenset[str]


class Transaction:
    """`version` gives the next resource version; `now` is Unix seconds."""

    def __init__(
        self,
        objects: Mapping[ObjectKey, bytes],
        index: ObjectIndex,
        batch: Mapping[ObjectKey, Staged],
        version: Callable[[], int],
        now: float,
    ) -> None:
        self.staged: dict[ObjectKey, Staged] = {}
        self._objects = objects
        self._index = index
        self._batch = batch
        self._version = version
        self._now = now

    def create(self, manifest: Manifest) -> Manifest:
        """See `ObjectStore.create`."""
        self._check_controller(ObjectKey.of(manifest), manifest)
        return self._create(manifest)

    def _create(self, manifest: Manifest) -> Manifest:
        key = ObjectKey.of(manifest)
        if self._exists(key):
            raise Conflict(f"{key} exists already", where=str(key))
        created = datetime.fromtimestamp(self._now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        identity = {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": created}
        return self._put(key, None, manifest | {"metadata": manifest["metadata"] | identity})

    def update(self, manifest: Manifest) -> Manifest:
        """See `ObjectStore.update`."""
        key = ObjectKey.of(manifest)
        stored = self._current(key, manifest)
        kept = {name: stored["metadata"][name] for name in ("uid", "creationTimestamp")}
        generation = stored["metadata"]["generation"] + (stored.get("spec") != manifest.get("spec"))
        replaced = manifest | {"metadata": manifest["metadata"] | kept | {"generation": generation}}
        replaced.pop("status", None)
        if "status" in stored:
            replaced["status"] = stored["status"]
        return self._put_if_changed(key, stored, replaced)

    def update_status(self, manifest: Manifest) -> Manifest:
        """See `ObjectStore.update_status`."""
        key = ObjectKey.of(manifest)
        stored = self._current(key, manifest)
        replaced = stored | {"metadata": dict(stored["metadata"]), "status": manifest.get("status", {})}
        return self._put_if_changed(key, stored, replaced)

    def apply(self, manifest: Manifest) -> Manifest:
        """Create the object, or update it if it exists; of whom it says that he controls it is not asked."""
        return self.update(manifest) if self._exists(ObjectKey.of(manifest)) else self._create(manifest)

    def delete(self, key: ObjectKey) -> None:
        """See `ObjectStore.delete`."""
        if not self._exists(key):
            raise NotFound(f"{key} does not exist", where=str(key))
        going = [key]
        while going:
            each = going.pop()
            removed = self._read(each)
            if removed is not None:
                self._version()
                self.staged[each] = Staged(None, self._before(each, removed), _NOTHING)
                going += self._controlled_by(removed["metadata"]["uid"])

    def _find_staged(self, key: ObjectKey) -> Staged | None:
        return self.staged.get(key) or self._batch.get(key)

    def _exists(self, key: ObjectKey) -> bool:
        staged = self._find_staged(key)
        return key in self._objects if staged is None else staged.data is not None

    def _read(self, key: ObjectKey) -> Manifest | None:
        staged = self._find_staged(key)
        data = self._objects.get(key) if staged is None else staged.data
        return None if data is None else decode(data)

    def _before(self, key: ObjectKey, stored: Manifest | None) -> frozenset[str]:
        """What the object is found by as it is committed; `stored` is how this write found it."""
        staged = self._find_staged(key)
        if staged is not None:
            return staged.before
        return _NOTHING if stored is None else terms_of(key, stored)

    def _controlled_by(self, uid: str) -> Iterator[ObjectKey]:
        term = owner_term(uid)
        staged = {**self._batch, **self.staged}
        yield from (key for key in self._index.find([term]) if key not in staged)
        yield from (key for key, each in staged.items() if term in each.after)

    def _check_controller(self, key: ObjectKey, manifest: Manifest) -> None:
        """Who makes it read its owner before; if that is deleted by now, nothing would ever delete this."""
        for reference in manifest["metadata"].get("ownerReferences", ()):
            if reference.get("controller"):
                owner = ObjectKey(type_of(reference), key.namespace, reference["name"])
                found = self._read(owner)
                if found is None or found["metadata"]["uid"] != reference["uid"]:
                    raise NotFound(f"{owner}, which is to control it, does not exist", where=str(key))

    def _current(self, key: ObjectKey, manifest: Manifest) -> Manifest:
        stored = self._read(key)
        if stored is None:
            raise NotFound(f"{key} does not exist", where=str(key))
        expected = manifest["metadata"].get("resourceVersion")
        if expected is not None and expected != stored["metadata"]["resourceVersion"]:
            raise Conflict(f"{key} was changed since it was read", where=str(key), hint="Read it again.")
        return stored

    def _put_if_changed(self, key: ObjectKey, stored: Manifest, replaced: Manifest) -> Manifest:
        replaced["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
        return stored if replaced == stored else self._put(key, stored, replaced)

    def _put(self, key: ObjectKey, stored: Manifest | None, manifest: Manifest) -> Manifest:
        manifest["metadata"]["resourceVersion"] = str(self._version())
        data = encode(manifest)
        self.staged[key] = Staged(data, self._before(key, stored), terms_of(key, manifest))
        return decode(data)

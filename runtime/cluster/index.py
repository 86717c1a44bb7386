"""Finds stored objects by type, label and controlling owner, at the cost of what is found.

A term is what objects are found by, written as one string. Most terms lead to a single object (its own name in a
label, its owner), and so that object's key stands there by itself: a set for each would cost more than the object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from upwell.runtime.cluster.interface import Manifest, ObjectKey


def kind_term(kind: str) -> str:
    """Finds the objects of a type."""
    return f"kind {kind}"


def label_term(name: str, value: str) -> str:
    """Finds the objects that carry a label."""
    return f"label {name}={value}"


def owner_term(uid: str) -> str:
    """Finds the objects that the object of this uid controls."""
    return f"owner {uid}"


def terms_of(key: ObjectKey, manifest: Manifest) -> frozenset[str]:
    """All that an object is found by."""
    return frozenset(_terms(key, manifest["metadata"]))


def _terms(key: ObjectKey, metadata: Mapping[str, object]) -> Iterator[str]:
    yield kind_term(key.kind)
    labels = metadata.get("labels")
    if isinstance(labels, Mapping):
        for name, value in labels.items():
            yield label_term(name, value)
    references = metadata.get("ownerReferences")
    if isinstance(references, Sequence):
        for reference in references:
            if reference.get("controller"):
                yield owner_term(reference["uid"])


class ObjectIndex:
    """Keys of objects by term."""

    def __init__(self) -> None:
        self._keys: dict[str, ObjectKey | set[ObjectKey]] = {}

    def __repr__(self) -> str:
        return f"<ObjectIndex {len(self._keys)} terms>"

    def move(self, key: ObjectKey, before: frozenset[str], after: frozenset[str]) -> None:
        """The object of `key` is found by `after` now and was found by `before`."""
        for term in after - before:
            self._add(term, key)
        for term in before - after:
            self._discard(term, key)

    def find(self, terms: Sequence[str]) -> list[ObjectKey]:
        """The keys that are found by all of at least one term, in order."""
        smallest, *others = sorted((self._found(term) for term in terms), key=len)
        return sorted(key for key in smallest if all(key in keys for keys in others))

    def _found(self, term: str) -> set[ObjectKey]:
        keys = self._keys.get(term)
        if keys is None:
            return set()
        return keys if isinstance(keys, set) else {keys}

    def _add(self, term: str, key: ObjectKey) -> None:
        keys = self._keys.get(term)
        if keys is None:
            self._keys[term] = key
        elif isinstance(keys, set):
            keys.add(key)
        elif keys != key:
            self._keys[term] = {keys, key}

    def _discard(self, term: str, key: ObjectKey) -> None:
        keys = self._keys.get(term)
        if isinstance(keys, set):
            keys.discard(key)
            if len(keys) == 1:
                self._keys[term] = keys.pop()
        elif keys == key:
            del self._keys[term]

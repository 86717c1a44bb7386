"""Which families hear of a change, besides the one that an object belongs to.

A Route may refer to configurations and revisions of other families, and leaves a note on them. Both are remembered
here as the watch tells of them: who refers to an object is looked at again when that changes, and the notes of a
Route that is gone are found, so that they can be taken off. Holds an entry for each such reference, and none for
those within a family.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import CONFIGURATION, INGRESS, REVISION, ROUTE, SERVICE
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL, SERVICE_LABEL
from upwell.runtime.control.routing_state import referring_routes
from upwell.runtime.control.traffic import targets_of

FAMILY_KINDS: Final = (SERVICE, CONFIGURATION, ROUTE)


def family_of(manifest: Manifest, key: ObjectKey) -> ObjectKey:
    """The Service, or the Configuration or Route that stands by itself, which a Service, Configuration or Route
    belongs to."""
    if key.kind != SERVICE:
        for reference in manifest["metadata"].get("ownerReferences") or ():
            if reference.get("controller") and reference["kind"] == "Service":
                return ObjectKey(SERVICE, key.namespace, reference["name"])
    return key


class Links:
    """Links from objects to others, followed in both directions."""

    def __init__(self) -> None:
        self._forward: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self._backward: dict[ObjectKey, set[ObjectKey]] = {}

    def set(self, key: ObjectKey, targets: Iterable[ObjectKey]) -> None:
        """`key` is linked to `targets` and nothing else; with none it is forgotten."""
        before, after = self._forward.pop(key, frozenset()), frozenset(targets)
        if after:
            self._forward[key] = after
        for target in before - after:
            linked = self._backward[target]
            linked.discard(key)
            if not linked:
                del self._backward[target]
        for target in after - before:
            self._backward.setdefault(target, set()).add(key)

    def to(self, target: ObjectKey) -> list[ObjectKey]:
        """What is linked to `target`, in order."""
        return sorted(self._backward.get(target, ()))

    def targets(self) -> list[ObjectKey]:
        """All that anything is linked to, in order."""
        return sorted(self._backward)


class References:
    """What each object belongs to, and what routes refer to outside of their own family."""

    def __init__(self) -> None:
        self._referring = Links()
        self._noted = Links()
        self._families: dict[ObjectKey, ObjectKey] = {}

    def changed(self, key: ObjectKey, manifest: Manifest | None) -> ObjectKey | None:
        """An object of any of the kinds is as given, or gone. Returns its family, None when it has none."""
        family = self._families.pop(key, None) if manifest is None else self._family(key, manifest)
        if manifest is not None and family is not None:
            self._families[key] = family
        own_route = ObjectKey(ROUTE, key.namespace, family.name) if family is not None else None
        if key.kind == ROUTE:
            targets = targets_of(manifest) if manifest is not None else []
            own = self._own_configuration(family)
            self._referring.set(key, (target for target in targets if target != own))
        elif key.kind in (CONFIGURATION, REVISION):
            routes = referring_routes(manifest) if manifest is not None else ()
            noting = (ObjectKey(ROUTE, key.namespace, name) for name in routes)
            is_of_service = family is not None and family.kind == SERVICE
            self._noted.set(key, (route for route in noting if not is_of_service or route != own_route))
        return family

    def _family(self, key: ObjectKey, manifest: Manifest) -> ObjectKey | None:
        labels = manifest["metadata"].get("labels") or {}
        if key.kind in FAMILY_KINDS:
            return family_of(manifest, key)
        if key.kind == INGRESS:
            owner = ObjectKey(ROUTE, key.namespace, key.name)
            return self._families.get(owner) or ObjectKey(SERVICE, key.namespace, key.name)
        name = labels.get(CONFIGURATION_LABEL)
        if not name:
            return None
        owner = ObjectKey(CONFIGURATION, key.namespace, name)
        return self._families.get(owner) or ObjectKey(SERVICE, key.namespace, labels.get(SERVICE_LABEL, name))

    def _own_configuration(self, family: ObjectKey | None) -> ObjectKey | None:
        is_of_service = family is not None and family.kind == SERVICE
        return ObjectKey(CONFIGURATION, family.namespace, family.name) if family and is_of_service else None

    def referring(self, key: ObjectKey) -> list[ObjectKey]:
        """The families whose Route refers to a Configuration or Revision of another."""
        return [self._families.get(route, route) for route in self._referring.to(key)]

    def noted(self, route: ObjectKey) -> list[ObjectKey]:
        """What of other families carries the note of a Route."""
        return self._noted.to(route)

    def noting(self) -> list[ObjectKey]:
        """The routes, there or gone, whose notes other families carry."""
        return self._noted.targets()

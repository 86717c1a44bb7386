"""Objects as a person names them: `ksvc hello`, `ksvc/hello`, `revisions.serving.knative.dev hello-00001`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final, NamedTuple

from upwell.functions.errors import InvalidInput, NotFound
from upwell.runtime.api.resources import RESOURCES, Resource, resource_called
from upwell.runtime.cluster.kinds import REVISION, SERVICE

DEFAULT_NAMESPACE: Final = "default"


class Named(NamedTuple):
    """One object; its namespace is empty when its kind has none."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        return self.resource.told(self.name)

    def missing(self) -> NotFound:
        """What to raise where it is not there."""
        return self.resource.missing(self.namespace, self.name)


def find_resource(kind: str) -> Resource:
    """The kind that a person means. Raises InvalidInput, which says what there is."""
    found = resource_called(kind)
    if found is None:
        known = sorted({name for each in RESOURCES for name in each.names})
        alike = difflib.get_close_matches(kind.lower(), known, n=1)
        there_are = ", ".join("/".join((*each.short[:1], each.plural)) for each in RESOURCES)
        hint = f"Did you mean {alike[0]}?" if alike else f"There are: {there_are}."
        raise InvalidInput(f"there is no kind {kind!r}", where="KIND", hint=hint)
    return found


def service_name(text: str) -> str:
    """The Service of `hello` or `ksvc/hello`. Raises InvalidInput for another kind."""
    kind, slash, name = text.rpartition("/")
    if slash and find_resource(kind).type != SERVICE:
        raise InvalidInput(f"{kind} is no service", where=text, hint="Write the name of a service.")
    if not name:
        raise InvalidInput("a name is missing", where="NAME")
    return name


def scaled_object(text: str) -> tuple[str | None, str]:
    """The kind, None where it is not said, and the name of `hello`, `ksvc/hello` or `rev/hello-00001`.

    Raises InvalidInput for another kind.
    """
    kind, slash, name = text.rpartition("/")
    if not name:
        raise InvalidInput("a name is missing", where="NAME")
    if not slash:
        return None, name
    type = find_resource(kind).type
    if type not in (SERVICE, REVISION):
        hint = "Write the name of a service or of a revision."
        raise InvalidInput(f"{kind} has no replicas of its own", where=text, hint=hint)
    return type, name


def named_objects(kind: str, names: Sequence[str], namespace: str | None) -> list[Named]:
    """The objects of `KIND NAME...` or `KIND/NAME`. Raises InvalidInput, also when no name is given."""
    kind, slash, name = kind.partition("/")
    if slash and names:
        raise InvalidInput("a name stands already behind the slash", where=f"{kind}/{name}")
    chosen = [name] if slash else [*names]
    if not all(chosen) or not chosen:
        raise InvalidInput("a name is missing", where=kind, hint=f"Write {kind} NAME.")
    resource = find_resource(kind)
    where = (namespace or DEFAULT_NAMESPACE) if resource.has_namespace else ""
    return [Named(resource, where, each) for each in chosen]

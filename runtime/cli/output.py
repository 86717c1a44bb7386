"""Objects as YAML and JSON, in a form that can be applied again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

_ORDER: Final = ("apiVersion", "kind", "metadata", "spec", "data", "status")
_NOISE: Final = frozenset({"uid", "resourceVersion", "generation", "managedFields", "selfLink"})
"""What is the store's own: nobody writes it, and it says nothing about what the object declares."""


def as_yaml(manifests: Sequence[Mapping[str, Any]]) -> str:
    """A document for each object, without what is the store's own."""
    import yaml  # half of a command's time to start, and only here

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    documents = [
        yaml.dump(_clean(each), Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)
        for each in manifests
    ]
    return "---\n".join(documents)


def _clean(manifest: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = _ordered(manifest)
    kept["metadata"] = {name: value for name, value in manifest["metadata"].items() if name not in _NOISE}
    return kept


def _ordered(value: Any) -> Any:
    """The same, with the fields of objects and templates in the order in which people write them."""
    if not isinstance(value, Mapping):
        return value
    names = [*(name for name in _ORDER if name in value), *(name for name in value if name not in _ORDER)]
    return {name: _ordered(value[name]) for name in names}


def as_json(manifests: Sequence[Mapping[str, Any]], *, one: bool) -> str:
    """The object, or a List of all, as they are stored."""
    shown = manifests[0] if one else {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"

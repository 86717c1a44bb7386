"""Label selectors, as far as they are equalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from upwell.functions.errors import InvalidInput


def parse_labels(given: Sequence[str]) -> dict[str, str]:
    """`a=b,c=d`, any number of them, as a mapping. Raises InvalidInput."""
    labels: dict[str, str] = {}
    for term in (each for text in given for each in text.split(",") if each):
        name, equals, value = term.partition("=")
        if not equals or not name or name.endswith("!"):
            hint = "Write LABEL=VALUE; several are joined by commas."
            raise InvalidInput(f"{term!r} selects nothing that is known here", where="--selector", hint=hint)
        labels[name.strip()] = value.removeprefix("=").strip()
    return labels


def carries(manifest: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether the object has all of `labels`."""
    own = manifest["metadata"].get("labels") or {}
    return all(own.get(name) == value for name, value in labels.items())

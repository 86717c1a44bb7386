"""What the kinds of policies share: names as their group spells them, fields that stand in the wrong place.

`lift` is called with a manifest before it is validated and puts what stands in a well-known wrong place where it
belongs; each move is a warning that names the right place.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict

from upwell.functions.api.meta import DottedObjectMeta, Model


class SnakeModel(Model):
    """A part of a policy whose fields are written as they are named here."""

    model_config = ConfigDict(alias_generator=None, extra="forbid", strict=True)


class PolicyResource(Model):
    """A policy as an object: `spec` is each kind's own."""

    VERSIONS: ClassVar[tuple[str, ...]]
    """Of `apiVersion`, all with one schema."""
    KIND: ClassVar[str]

    api_version: str
    kind: str
    metadata: DottedObjectMeta
    status: dict[str, Any] | None = None

    @classmethod
    def lift(cls, manifest: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The manifest with every field in its place, a new one where something moved, and what to warn of."""
        return manifest, []

    def warnings(self) -> list[str]:
        """What is taken and works otherwise than one may expect: deprecated fields, fields without an effect."""
        return []

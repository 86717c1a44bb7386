"""Which source a revision runs: an annotation that travels from its Service to whatever starts its replicas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from upwell.functions.errors import InvalidFunction

SOURCE_ANNOTATION: Final = "upwell.dev/source"
"""JSON of a `SourceReference` or a `CommandReference`: what runs the revision here."""


@dataclass(frozen=True, slots=True)
class SourceReference:
    """A function's source, fixed when it was deployed."""

    bundle: str
    """Digest of the content-addressed copy."""
    module: str
    attribute: str | None = None
    origin: str | None = None
    """Where the source stood, for tracebacks."""

    def annotation(self) -> str:
        """The value of SOURCE_ANNOTATION."""
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class CommandReference:
    """A program that listens on $PORT, in the place of a container's image and its entry point."""

    command: tuple[str, ...]
    directory: str | None = None
    """Its working directory, unless the container names one."""

    def annotation(self) -> str:
        """The value of SOURCE_ANNOTATION."""
        return json.dumps(asdict(self), separators=(",", ":"))


Reference: TypeAlias = SourceReference | CommandReference


def read_reference(annotations: Mapping[str, str], where: str) -> Reference:
    """From an object's annotations. Raises InvalidFunction when there is none or it is malformed."""
    text = annotations.get(SOURCE_ANNOTATION)
    if text is None:
        hint = "Map it when you apply: --image NAME=PATH or --image NAME=cmd:COMMAND."
        raise InvalidFunction("no source is known for its image", where=where, hint=hint)
    try:
        return _reference(json.loads(text))
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidFunction(f"annotation {SOURCE_ANNOTATION} is malformed", where=where) from error


def _reference(values: dict[str, Any]) -> Reference:
    if "command" not in values:
        return SourceReference(**values)
    command = values["command"]
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise ValueError("the command is no list of words")
    return CommandReference(**{**values, "command": tuple(command)})

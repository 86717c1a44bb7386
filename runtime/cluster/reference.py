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
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that it brings along, in pairs of name and value; a container's own come before them."""

    def annotation(self) -> str:
        """The value of SOURCE_ANNOTATION."""
        told = asdict(self)
        if not self.environment:
            del told["environment"]
        return json.dumps(told, separators=(",", ":"))


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
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidFunction(f"annotation {SOURCE_ANNOTATION} is malformed", where=where) from error


def _reference(values: dict[str, Any]) -> Reference:
    environment = () if "command" in values else _pairs(values.pop("environment", []))
    for name, value in values.items():
        if name == "command":
            if not isinstance(value, list) or not value or not all(map(_is_text, value)):
                raise ValueError("the command is no list of words")
        elif not (_is_text(value) or (value is None and name not in ("bundle", "module"))):
            raise ValueError(f"{name} is no text")
    if "command" not in values:
        return SourceReference(**values, environment=environment)
    return CommandReference(**{**values, "command": tuple(values["command"])})


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if not all(isinstance(each, list) and len(each) == 2 and all(map(_is_text, each)) for each in value):
        raise ValueError("the environment is no list of pairs")
    return tuple((name, text) for name, text in value)


def _is_text(value: object) -> bool:
    """Whether it is one that a process can be given."""
    return isinstance(value, str) and "\0" not in value

"""Which source a revision runs: an annotation that travels from its Service to whatever starts its replicas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from upwell.functions.errors import InvalidFunction

SOURCE_ANNOTATION: Final = "upwell.dev/source"
"""JSON of a `SourceReference`: which bundle holds the function and where it starts."""


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

    @classmethod
    def read(cls, annotations: Mapping[str, str], where: str) -> SourceReference:
        """From an object's annotations. Raises InvalidFunction when there is none or it is malformed."""
        text = annotations.get(SOURCE_ANNOTATION)
        if text is None:
            raise InvalidFunction("no source is known for its image", where=where)
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise InvalidFunction(f"annotation {SOURCE_ANNOTATION} is malformed", where=where) from error

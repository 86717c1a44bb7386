"""What a host has to know of a revision to serve it, in the form that travels between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """One revision's code and limits."""

    revision: str
    """``namespace/name``."""
    root: Path
    """The folder that holds the source; the working directory of the function."""
    module: str
    attribute: str | None = None
    """The callable's name in the module; None takes the one that stands out."""
    origin: Path | None = None
    """The folder that messages and tracebacks show instead of `root`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the platform's own environment."""
    container_concurrency: int = 0
    """Requests that one replica runs at once; 0 means no limit."""
    timeout_seconds: float = 300.0
    response_start_timeout_seconds: float = 0.0
    """Until the first byte of a response; 0 means off."""
    idle_timeout_seconds: float = 0.0
    """Between two bytes of a response; 0 means off."""
    show_errors: bool = False
    """Send tracebacks to callers."""

    def to_wire(self) -> dict[str, Any]:
        """The source as JSON values."""
        origin = None if self.origin is None else str(self.origin)
        paths = {"root": str(self.root), "origin": origin}
        return {each.name: getattr(self, each.name) for each in fields(self)} | paths

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`."""
        origin = values["origin"]
        paths = {"root": Path(values["root"]), "origin": None if origin is None else Path(origin)}
        return cls(**{**values, **paths})

"""What a host has to know of a revision to serve it, in the form that travels between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from upwell.runtime.queue.settings import QueueSettings
from upwell.runtime.sidecar.probing import Lifecycle, Probes


@dataclass(frozen=True, slots=True)
class RevisionSource:
    """What functions and programs have in common."""

    revision: str
    """``namespace/name``."""
    _: KW_ONLY
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
    log: Path | None = None
    """The file that its standard output and error go to; None: the platform's own."""
    memory_bytes: int = 0
    """What one replica may use before it is ended; 0 means no limit."""
    probes: Probes = field(default_factory=Probes)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    def queue_settings(self) -> QueueSettings:
        """The limits that its queue layer keeps."""
        return QueueSettings(
            container_concurrency=self.container_concurrency,
            timeout_seconds=self.timeout_seconds,
            response_start_timeout_seconds=self.response_start_timeout_seconds,
            idle_timeout_seconds=self.idle_timeout_seconds,
            show_errors=self.show_errors,
        )


@dataclass(frozen=True, slots=True)
class FunctionSource(RevisionSource):
    """One revision's code and limits."""

    root: Path
    """The folder that holds the source; the working directory of the function."""
    module: str
    attribute: str | None = None
    """The callable's name in the module; None takes the one that stands out."""
    origin: Path | None = None
    """The folder that messages and tracebacks show instead of `root`."""

    @property
    def where(self) -> str:
        """Where it comes from, for messages."""
        return str(self.origin or self.root)

    @property
    def end_seconds(self) -> float:
        """What a replica that drains may take at most."""
        return self.timeout_seconds

    def to_wire(self) -> dict[str, Any]:
        """The source as JSON values."""
        return _to_wire(self) | {"kind": "function"}


@dataclass(frozen=True, slots=True)
class ProgramSource(RevisionSource):
    """One revision that is any program which listens on the port that it is given."""

    command: tuple[str, ...]
    """The program and its arguments; ``$(NAME)`` refers to its environment, PORT included."""
    directory: Path | None = None
    """Its working directory; None is the platform's own."""
    termination_seconds: float = 30.0
    """Between SIGTERM and SIGKILL: Kubernetes' default."""
    progress_seconds: float | None = None
    """Until it must be ready; None is what the host is set to."""

    @property
    def where(self) -> str:
        """Where it comes from, for messages."""
        return " ".join(self.command)

    @property
    def end_seconds(self) -> float:
        """What a replica that drains may take at most."""
        return self.timeout_seconds + self.termination_seconds

    def to_wire(self) -> dict[str, Any]:
        """The source as JSON values."""
        return _to_wire(self) | {"kind": "program"}


Source: TypeAlias = FunctionSource | ProgramSource


def source_from_wire(values: Mapping[str, Any]) -> Source:
    """The inverse of either `to_wire`."""
    given = dict(values)
    kind = given.pop("kind")
    for name in ("root", "origin", "log", "directory"):
        if given.get(name) is not None:
            given[name] = Path(given[name])
    given["probes"] = Probes.from_wire(given["probes"])
    given["lifecycle"] = Lifecycle.from_wire(given["lifecycle"])
    if kind == "function":
        return FunctionSource(**given)
    given["command"] = tuple(given["command"])
    return ProgramSource(**given)


def _to_wire(source: Source) -> dict[str, Any]:
    values = {each.name: getattr(source, each.name) for each in fields(source)}
    paths = {name: str(value) for name, value in values.items() if isinstance(value, Path)}
    environment = dict(source.environment)
    known = {
        "probes": source.probes.to_wire(),
        "lifecycle": source.lifecycle.to_wire(),
        "environment": environment,
    }
    return values | paths | known

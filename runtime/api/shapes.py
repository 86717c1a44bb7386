"""What travels between the platform and its commands. Standard library only: every command imports it.

JSON on HTTP over a Unix socket. Objects are what they are in YAML; the shapes besides them are here, each with the
way to JSON and back. A watch and a log are streams of JSON objects, one a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from upwell.functions.errors import Conflict, InvalidInput, NotFound, Unavailable, UpwellError

SOCKET: Final = "api.sock"
"""In the data directory."""
PREFIX: Final = "/v1"
BODY_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of a request: twice what a file of manifests may have, since JSON is longer than YAML."""
LINE_LIMIT: Final = 64 * 1024
"""Bytes of one line of a log; what is longer comes as several."""
JSON_LINES: Final = "application/jsonl"

SYNCED: Final = {"synced": True}
"""The line of a watch between what was there and what changes."""


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """Which platform answers, and where its gateway listens."""

    version: str
    pid: int
    directory: str
    hosts: tuple[str, ...]
    port: int
    admin_port: int
    tls_port: int | None = None
    """None without a certificate."""

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlatformInfo:
        """As it came."""
        return cls(**{**data, "hosts": tuple(data["hosts"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one manifest of a batch."""

    kind: str
    """With its group, as `Service.serving.knative.dev`."""
    namespace: str
    name: str
    action: str
    """created, configured or unchanged."""
    warnings: tuple[str, ...]
    generation: int
    """Of the object as it is stored now."""

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """As it came."""
        return cls(**{**data, "warnings": tuple(data["warnings"])})


@dataclass(frozen=True, slots=True)
class FieldFault:
    """A field at fault in one manifest of a batch."""

    index: int
    path: tuple[str | int, ...]
    message: str


class RefusedBatch(InvalidInput):
    """The platform refused a batch of manifests; nothing of it was applied."""

    def __init__(self, what: str, *, where: str, hint: str, faults: tuple[FieldFault, ...]) -> None:
        super().__init__(what, where=where, hint=hint)
        self.faults = faults


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A replica that is not gone."""

    name: str
    state: str
    pid: int | None
    started_at: float
    """Unix seconds."""
    phases: dict[str, float]
    """Milliseconds of each phase of its start."""
    locality: str = ""
    """`REGION/ZONE/SUBZONE`, or less of it; empty where nothing says so."""

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        return asdict(self)


def error_to_json(error: UpwellError, faults: tuple[FieldFault, ...] = ()) -> dict[str, Any]:
    """An error as it travels."""
    told = {"what": error.what, "where": error.where, "hint": error.hint, "exit_code": error.exit_code}
    body: dict[str, Any] = {"error": told}
    if faults:
        body["faults"] = [asdict(fault) for fault in faults]
    return body


def error_from_json(body: object, status: int) -> UpwellError:
    """The error that an answer with `status` tells of: the class fits the status, so that exit codes travel."""
    told = body.get("error") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(told, dict):
        return UpwellError(f"the platform answered {status} and did not say why")
    what, where, hint = (str(told.get(name, "")) for name in ("what", "where", "hint"))
    if body.get("faults"):
        faults = tuple(FieldFault(each["index"], tuple(each["path"]), each["message"]) for each in body["faults"])
        return RefusedBatch(what, where=where, hint=hint, faults=faults)
    kind = _KINDS.get(status, InvalidInput if told.get("exit_code") == 2 else UpwellError)
    return kind(what, where=where, hint=hint)


_KINDS: Final[Mapping[int, type[UpwellError]]] = {404: NotFound, 409: Conflict, 503: Unavailable}

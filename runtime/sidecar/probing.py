"""What a container declares of its probes and its lifecycle, and what the answers to probes mean.

Everything here is decided from values that are given: declarations are read from a container as Kubernetes writes
them, a `Tally` counts answers in a row, and `pause` says when to ask again. Defaults and rules are the kubelet's,
but for one: until a replica is ready for the first time it is asked far more often, as Knative's queue-proxy does,
since a request may be waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, Final, Self, TypeAlias

from upwell.functions.errors import InvalidFunction

EAGER_SECONDS: Final = 1.0
EAGER_PAUSE: Final = 0.025
"""Knative's: every 25 ms, which we keep up for a second."""
EAGER_GROWTH: Final = 0.1
"""Then the pause is a tenth of the time that has passed, until it is the declared period."""
DEFAULT_PERIOD: Final = 10.0


@dataclass(frozen=True, slots=True)
class HttpGet:
    """A GET that is to be answered with 200 to 399. Without a port it goes to the container's own."""

    path: str = "/"
    port: int | None = None
    host: str = ""
    secure: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"GET {self.path}"


@dataclass(frozen=True, slots=True)
class TcpConnect:
    """A connection that is to be taken."""

    port: int | None = None
    host: str = ""

    def __str__(self) -> str:
        return "a connection"


@dataclass(frozen=True, slots=True)
class Exec:
    """A command that is to end with 0."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"the command {self.command[0]}"


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """A call of gRPC's health protocol that is to be answered with SERVING."""

    port: int | None = None
    service: str = ""

    def __str__(self) -> str:
        return "a gRPC health check"


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause; only a lifecycle has use for one."""

    seconds: float

    def __str__(self) -> str:
        return f"a pause of {self.seconds:g} s"


Action: TypeAlias = HttpGet | TcpConnect | Exec | GrpcCheck | Sleep

_ACTIONS: Final[dict[str, type[Any]]] = {
    "httpGet": HttpGet,
    "tcpSocket": TcpConnect,
    "exec": Exec,
    "grpc": GrpcCheck,
    "sleep": Sleep,
}


@dataclass(frozen=True, slots=True)
class Probe:
    """An action that is repeated, and how many answers in a row count. Times in seconds."""

    action: Action
    initial_delay: float = 0.0
    period: float = DEFAULT_PERIOD
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3

    @classmethod
    def read(cls, declared: Mapping[str, Any], own_port: int | None, where: str) -> Self:
        """From a container's manifest; `own_port` is the declared port of the container itself.

        A probe that names no action connects, as in Knative. Raises InvalidFunction.
        """
        given = {
            field: declared[name]
            for name, field in (
                ("initialDelaySeconds", "initial_delay"),
                ("periodSeconds", "period"),
                ("timeoutSeconds", "timeout"),
                ("successThreshold", "success_threshold"),
                ("failureThreshold", "failure_threshold"),
            )
            if declared.get(name)
        }
        return cls(read_action(declared, own_port, where) or TcpConnect(), **given)


def read_action(declared: Mapping[str, Any], own_port: int | None, where: str) -> Action | None:
    """The action of a probe or of a lifecycle handler; None when none is named. Raises InvalidFunction."""
    for name in _ACTIONS:
        values = declared.get(name)
        if values is not None:
            try:
                return _read(name, values, own_port)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise InvalidFunction(f"its {name} cannot be read: {values!r}", where=where) from error
    return None


def _read(name: str, values: Mapping[str, Any], own_port: int | None) -> Action:
    port = _port(values.get("port"), own_port)
    host = values.get("host") or ""
    if name == "httpGet":
        path = values.get("path") or "/"
        headers = tuple((each["name"], each.get("value", "")) for each in values.get("httpHeaders") or ())
        secure = values.get("scheme") == "HTTPS"
        return HttpGet(path if path.startswith("/") else f"/{path}", port, host, secure, headers)
    if name == "tcpSocket":
        return TcpConnect(port, host)
    if name == "grpc":
        return GrpcCheck(port, values.get("service") or "")
    if name == "sleep":
        return Sleep(float(values["seconds"]))
    command = tuple(map(str, values.get("command") or ()))
    if not command:
        raise ValueError("no command")
    return Exec(command)


def _port(port: int | str | None, own_port: int | None) -> int | None:
    """A port as a number; None for the container's own, which is chosen anew for each replica here."""
    if port in (None, 0, "", own_port):
        return None
    if isinstance(port, str) and not port.isdigit():
        return None  # a name: only the container's own port has one
    number = int(port)
    return None if number == own_port else number


@dataclass(frozen=True, slots=True)
class Probes:
    """A container's probes. Without a readiness probe the replica's own rule holds."""

    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None

    @property
    def any(self) -> bool:
        """Whether there is something to do."""
        return any((self.readiness, self.liveness, self.startup))

    def to_wire(self) -> dict[str, Any]:
        """The probes as JSON values."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _probe_to_wire(probe) for name, probe in given.items() if probe is not None}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`."""
        return cls(**{name: Probe(**{**v, "action": action_from_wire(v["action"])}) for name, v in values.items()})


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What is done right after a container has started, and before it is told to end."""

    post_start: Action | None = None
    pre_stop: Action | None = None

    def to_wire(self) -> dict[str, Any]:
        """The lifecycle as JSON values."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: action_to_wire(action) for name, action in given.items() if action is not None}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`."""
        return cls(**{name: action_from_wire(action) for name, action in values.items()})


def action_to_wire(action: Action) -> dict[str, Any]:
    """An action as JSON values."""
    name = next(name for name, kind in _ACTIONS.items() if isinstance(action, kind))
    return {name: asdict(action)}


def action_from_wire(values: Mapping[str, Any]) -> Action:
    """The inverse of `action_to_wire`."""
    ((name, given),) = values.items()
    given = {key: _frozen(value) for key, value in given.items()}
    action: Action = _ACTIONS[name](**given)
    return action


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _probe_to_wire(probe: Probe) -> dict[str, Any]:
    return {each.name: getattr(probe, each.name) for each in fields(probe)} | {
        "action": action_to_wire(probe.action)
    }


class Verdict(Enum):
    """What answers in a row amount to."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of the same kind in a row: never both counts are above 0."""

    successes: int = 0
    failures: int = 0

    def after(self, passed: bool) -> Tally:
        """The tally with one more answer."""
        return Tally(successes=self.successes + 1) if passed else Tally(failures=self.failures + 1)

    def verdict(self, probe: Probe) -> Verdict:
        """What it amounts to by a probe's thresholds."""
        if self.successes >= probe.success_threshold:
            return Verdict.PASSED
        if self.failures >= probe.failure_threshold:
            return Verdict.FAILED
        return Verdict.UNDECIDED


def pause(elapsed: float, period: float) -> float:
    """Seconds until a replica that is starting is asked again, `elapsed` seconds after the first time."""
    if elapsed < EAGER_SECONDS:
        return min(EAGER_PAUSE, period)
    return min(max(EAGER_PAUSE, elapsed * EAGER_GROWTH), period)


def startup_seconds(probe: Probe) -> float:
    """How long a startup probe may go on failing: asked more often than declared, it is not to fail sooner."""
    return probe.initial_delay + probe.failure_threshold * probe.period

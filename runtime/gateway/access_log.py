"""One line a request: which revision answered, with what, how long it took and what refused it.

Lines are put together by hand: a logging record and a JSON encoder would cost more than the forwarding itself
(18 µs a line against 2).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from upwell.runtime.clock import Clock
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.lines import LineWriter

if TYPE_CHECKING:
    from upwell.runtime.gateway.call import Call

_PLAIN: Final = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\')
_TO_DELETE: Final = bytes(_PLAIN)


class AccessLog(Protocol):
    """Takes each request once it is over."""

    def call(self, call: Call, status: int, seconds: float) -> None:
        """A request that was routed to a revision."""
        ...

    def refused(self, exchange: Exchange, status: int, reason: str, seconds: float) -> None:
        """A request that no route or revision took."""
        ...

    def unreadable(self, client: str, status: int, reason: str) -> None:
        """What came was no request that can be taken."""
        ...

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        ...


class NoAccessLog:
    """Keeps nothing."""

    dropped = 0

    def call(self, call: Call, status: int, seconds: float) -> None:
        """Drop it."""

    def refused(self, exchange: Exchange, status: int, reason: str, seconds: float) -> None:
        """Drop it."""

    def unreadable(self, client: str, status: int, reason: str) -> None:
        """Drop it."""


def quoted(value: bytes) -> str:
    """A JSON string of latin-1 bytes. The usual case, nothing to escape, costs one C call."""
    text = value.decode("latin-1")
    return f'"{text}"' if not value.translate(None, _TO_DELETE) else json.dumps(text)


class JsonAccessLog:
    """A JSON object a line."""

    def __init__(self, clock: Clock, writer: LineWriter) -> None:
        self._clock = clock
        self._writer = writer
        self._second = -1
        self._stamp = ""

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._writer.dropped

    def call(self, call: Call, status: int, seconds: float) -> None:
        """A line with the revision, the replica, the wait for it, and of a rejection the reason, Envoy's response
        flag and the policy."""
        replica = call.replica_name
        waited = max(0.0, call.dispatched_at - call.exchange.received_at) if call.dispatched_at else seconds
        policy = f',"policy":{json.dumps(call.policy)}' if call.policy else ""
        self._write(
            call.exchange,
            status,
            seconds,
            f'"revision":"{call.path.target.revision}","replica":"{replica}","wait_ms":{waited * 1000:.2f},'
            f'"cold":{"true" if call.cold else "false"},"reason":"{call.reason}","flag":"{call.flag}"{policy}',
        )

    def refused(self, exchange: Exchange, status: int, reason: str, seconds: float) -> None:
        """A line with the reason alone."""
        self._write(exchange, status, seconds, f'"reason":"{reason}"')

    def unreadable(self, client: str, status: int, reason: str) -> None:
        """A line without a request."""
        said = quoted(reason.encode("latin-1", "replace"))
        self._writer.write(
            f'{{"time":"{self._now()}","access":"","status":{status},"client":"{client}","reason":{said}}}\n'
        )

    def _write(self, exchange: Exchange, status: int, seconds: float, rest: str) -> None:
        request = exchange.request
        self._writer.write(
            f'{{"time":"{self._now()}","access":{quoted(request.method)},"host":{quoted(request.host)},'
            f'"path":{quoted(request.target)},"status":{status},"duration_ms":{seconds * 1000:.2f},'
            f'"bytes_received":{exchange.bytes_received},"bytes_sent":{exchange.bytes_sent},'
            f'"client":"{exchange.client}",{rest}}}\n'
        )

    def _now(self) -> str:
        now = self._clock.now()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._stamp}.{int((now - second) * 1000):03d}Z"


class TerminalAccessLog:
    """A short line for a person, as uvicorn prints them."""

    def __init__(self, writer: LineWriter, *, colour: bool = False) -> None:
        self._writer = writer
        self._colour = colour

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._writer.dropped

    def call(self, call: Call, status: int, seconds: float) -> None:
        """Method, path, status, time, and what is worth telling besides."""
        cold = " (from zero)" if call.cold else ""
        note = call.reason or f"{call.path.target.revision}{cold}"
        self._write(call.exchange, status, seconds, f"{note}  {call.policy}" if call.policy else note)

    def refused(self, exchange: Exchange, status: int, reason: str, seconds: float) -> None:
        """The same with the reason and the host that nobody has."""
        self._write(exchange, status, seconds, f"{reason}  host {quoted(exchange.request.host)[1:-1]}")

    def unreadable(self, client: str, status: int, reason: str) -> None:
        """Why what came was not taken."""
        self._line(f"(no request) {self._shown(status)}  {quoted(reason.encode('latin-1', 'replace'))[1:-1]}")

    def _write(self, exchange: Exchange, status: int, seconds: float, note: str) -> None:
        method, target = quoted(exchange.request.method)[1:-1], quoted(exchange.request.target)[1:-1]
        self._line(f"{method} {target} {self._shown(status)} {seconds * 1000:.1f} ms  {note}")
        if status >= 500:
            self._writer.flush()  # beside what the function says of it

    def _shown(self, status: int) -> str:
        if not self._colour:
            return str(status)
        return f"\033[{32 if status < 400 else 33 if status < 500 else 31}m{status}\033[0m"

    def _line(self, line: str) -> None:
        self._writer.write(f"{line}\n")

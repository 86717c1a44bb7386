"""Replicas that play a part, and what is to be said of a gateway once everything is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.gateway import Stage
from support.http import OK, Peer, eventually, settle
from support.policies import policy, status
from support.torture import Message, requests_in
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.virtual_service import VirtualService
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.call import Call
from upwell.runtime.gateway.routes import PathRule, RouteTable, RouteTarget, VirtualHost
from upwell.runtime.http.exchange import Exchange

BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"


def service(*http: dict[str, Any], name: str = "httpbin", **spec: Any) -> PolicyResource:
    """A VirtualService for the route."""
    return VirtualService.model_validate(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"hosts": ["httpbin"], "http": list(http), **spec},
        }
    )


def to_httpbin(**rule: Any) -> dict[str, Any]:
    """A rule that leads to the route itself."""
    return {"route": [{"destination": {"host": "httpbin"}}], **rule}


def rule(**parts: Any) -> PolicyResource:
    """A DestinationRule for the service, with this trafficPolicy."""
    return policy(
        str(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "DestinationRule",
                "metadata": {"name": "httpbin", "namespace": "default"},
                "spec": {"host": "httpbin", "trafficPolicy": parts},
            }
        )
    )


async def with_other_route(on: Stage, player: Player) -> None:
    """Another route, `default/other`, beside httpbin's."""
    target = RouteTarget("default/other-00001", 100)
    other = VirtualHost("default/other", ("other.default", "other.default.svc"), (PathRule(b"/", (), (target,)),))
    on.gateway.set_routes(RouteTable([*on.gateway.routes.vhosts, other]))
    on.gateway.set_revision(target.revision, RevisionLimits(), {"serving.knative.dev/service": "other"})
    await on.replica(player, "other", revision=target.revision)


Step = bytes | float | str
"""Bytes are sent, numbers are waited for, "close" and "reset" end the connection."""


@dataclass
class Player:
    """A replica that answers each whole request with what stands next in its list, then as `otherwise` says."""

    steps: list[Sequence[Step]] = field(default_factory=list)
    otherwise: Sequence[Step] = (OK,)
    seen: list[Message] = field(default_factory=list)

    def __call__(self, peer: Peer) -> None:
        messages = requests_in(bytes(peer.received))
        for message in messages[peer.handled :]:
            if not message.complete:
                return
            peer.handled += 1
            self.seen.append(message)
            self._play(peer, list(self.steps.pop(0) if self.steps else self.otherwise))

    def _play(self, peer: Peer, steps: list[Step]) -> None:
        while steps and not peer.closed:
            step = steps.pop(0)
            if isinstance(step, bytes):
                peer.send(step)
            elif isinstance(step, str):
                peer.close() if step == "close" else peer.transport.abort()
            else:
                asyncio.get_running_loop().call_later(step, self._play, peer, steps)
                return

    @property
    def only(self) -> Message:
        """The one request that it has seen."""
        assert len(self.seen) == 1
        return self.seen[0]


def fields(message: Message, name: str) -> list[str]:
    """The values of a header field of a request as it arrived."""
    return [value.decode("latin-1") for field, value in message.headers if field.lower() == name.encode()]


def answer_fields(answer: bytes, name: str) -> list[str]:
    """The values of a header field of an answer as it came."""
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [value.strip() for line in lines for key, _, value in [line.partition(":")] if key.lower() == name]


async def head(on: Stage, data: bytes) -> bytes:
    """What a new client has received once the head of its answer is there and all is quiet."""
    client = await on.client(data)
    await eventually(lambda: b"\r\n\r\n" in client.received or client.closed)
    await settle()
    client.close()
    await settle()
    return bytes(client.received)


async def ask(on: Stage, data: bytes) -> int:
    """The status of the answer to a request."""
    return status(await head(on, data))


@contextlib.contextmanager
def no_errors_logged() -> Iterator[None]:
    """Nothing may be logged as an error meanwhile: that is where what should not have happened is told."""
    records: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keeper = Keeper(logging.ERROR)
    logging.getLogger().addHandler(keeper)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(keeper)
    assert [record.getMessage() for record in records] == []


@dataclass
class Log:
    """Keeps what the gateway says of each request at its end."""

    lines: list[tuple[int, str, str, str]] = field(default_factory=list)
    """Status, reason, flag and policy."""
    dropped: int = 0

    def call(self, call: Call, status: int, seconds: float) -> None:
        self.lines.append((status, call.reason, call.flag, call.policy))

    def refused(self, exchange: Exchange, status: int, reason: str, seconds: float) -> None:
        self.lines.append((status, reason, "", ""))

    def unreadable(self, client: str, status: int, reason: str) -> None:
        self.lines.append((status, reason, "", ""))


def logged(on: Stage) -> list[tuple[int, str, str, str]]:
    """What is logged from now on."""
    log = Log()
    on.gateway.access_log = log
    return log.lines


async def is_over(on: Stage, condition: Callable[[], bool] = lambda: True) -> None:
    """Nothing is left of any request: no slot, no load, nobody who waits, no timer but those that run out."""
    await eventually(lambda: on.served.server.statistics().active == 0)
    await asyncio.sleep(60.0)
    assert condition()
    for entry in on.gateway.revisions.values():
        assert entry.stats.in_flight == 0
        assert entry.activator.in_flight == 0
        assert not entry.activator.waiting
        assert not entry.activator.retrying
        assert all(backend.in_flight == 0 for backend in entry.activator.backends)
        assert entry.counters.total == sum(entry.counters.outcomes.values())
    assert on.gateway.prompt_timers.statistics().pending == 0

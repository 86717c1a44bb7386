"""Clients and replicas that do anything at any time, in front of a whole gateway and behind it.

Whatever comes: nothing crashes, nothing hangs, nothing is left over; a function sees no request twice unless that
was harmless, and no client takes a broken answer for a whole one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from support.gateway import HOST, Stage, stage
from support.http import Peer, settle
from support.policed import no_errors_logged
from support.torture import Message, requests_in
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.testing.loop import run_fake

HARMLESS = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"})
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"

# What a replica does with a request: bytes are sent, "close" and "reset" end the connection, numbers are waits.
Step = bytes | str | float
WHOLE: list[tuple[Step, ...]] = [
    (OK,),
    (1.5, OK),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbo", 0.3, b"dy"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n", 0.2, b"2\r\ndy\r\n0\r\n\r\n"),
    (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", OK),
    (b"HTTP/1.1 100 Continue\r\n\r\n", OK),
    (b"HTTP/1.1 204 No Content\r\n\r\n",),
    (b"HTTP/1.1 500 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody", "close"),
]
BROKEN: list[tuple[Step, ...]] = [
    ("close",),
    ("reset",),
    (0.2, "close"),
    (b"HTTP/1.1 200 OK\r\ncontent-le", "close"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbody", "close"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n", "reset"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nbody",),
    (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",),
    (b"\0\0\0nonsense\r\n\r\n",),
    (OK + OK,),
    (b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 4\r\n\r\nbody",),
    (1e9,),
]


@dataclass
class Replica:
    """Does with each request what stands next in its list."""

    scripts: list[tuple[Step, ...]]
    seen: list[Message] = field(default_factory=list)

    def script(self, peer: Peer) -> None:
        messages = requests_in(bytes(peer.received))
        for message in messages[peer.handled :]:
            if not message.complete:
                return
            peer.handled += 1
            self.seen.append(message)
            steps = self.scripts.pop(0) if self.scripts else (OK,)
            self.play(peer, message, list(steps))

    def play(self, peer: Peer, message: Message, steps: list[Step]) -> None:
        while steps and not peer.closed:
            step = steps.pop(0)
            if isinstance(step, bytes):
                if message.method == b"HEAD":
                    step = step.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                peer.send(step)
            elif step == "close":
                peer.close()
            elif step == "reset":
                peer.transport.abort()
            elif isinstance(step, float):
                if step < 1e6:
                    asyncio.get_running_loop().call_later(step, self.play, peer, message, steps)
                return


@dataclass(frozen=True)
class Sent:
    """A request of a client: how its body is framed, how it is cut, and what follows if it is the last."""

    method: bytes
    body: bytes | None
    chunked: bool
    cut: int
    pause: float
    leaves: bool
    garbage: bytes

    def encoded(self, name: str) -> bytes:
        head = b"%b /%b HTTP/1.1\r\nHost: %b\r\n" % (self.method, name.encode(), HOST)
        if self.body is None:
            return head + b"\r\n"
        if not self.chunked:
            return head + b"Content-Length: %d\r\n\r\n%b" % (len(self.body), self.body)
        chunk = b"%x\r\n%b\r\n" % (len(self.body), self.body) if self.body else b""
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"


METHODS = [b"GET", b"GET", b"POST", b"POST", b"HEAD", b"PUT", b"PATCH", b"DELETE"]
GARBAGE = [b"", b"", b"", b"", b"\r\n", b"GET", b"\0", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
SENT = st.builds(
    Sent,
    method=st.sampled_from(METHODS),
    body=st.none() | st.binary(max_size=300) | st.just(b"x" * 100_000),
    chunked=st.booleans(),
    cut=st.integers(0, 500),
    pause=st.sampled_from([0.0, 0.0, 0.05, 2.0]),
    leaves=st.sampled_from([False, False, False, True]),
    garbage=st.sampled_from(GARBAGE),
)
SCRIPTS = st.lists(st.sampled_from([*WHOLE, *WHOLE, *BROKEN]), max_size=12)
LIMITS = RevisionLimits(container_concurrency=2, timeout_seconds=20.0)


async def converse(on: Stage, requests: list[Sent], name: str) -> Peer:
    """One client's requests, one after another, each in two pieces."""
    client = await on.client(b"")
    for number, sent in enumerate(requests):
        data = sent.encoded(f"{name}-{number}")
        if number == len(requests) - 1:
            data += sent.garbage
        for piece in (data[: sent.cut], data[sent.cut :]):
            if client.closed:
                return client
            client.send(piece)
            await asyncio.sleep(sent.pause)
        if sent.leaves:
            client.transport.abort()
            await settle()
            return client
    return client


def check_answers(client: Peer, requests: list[Sent]) -> None:
    """Every answer but the last is whole; the last is whole or its connection has ended within it."""
    data = bytes(client.received)
    for method in [*(sent.method for sent in requests), *[b"GET"] * 10]:
        if not data:
            return
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
        reader.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(data)
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                assert client.closed
                return
            assert not isinstance(event, h11.ConnectionClosed)
        data = reader.trailing_data[0]
    assert not data


def play(clients: list[list[Sent]], scripts: list[tuple[Step, ...]]) -> list[Message]:
    async def scenario() -> list[Message]:
        short = HttpSettings(head_timeout=5.0, body_timeout=5.0, keep_alive=10.0, upstream_idle=5.0)
        async with stage(LIMITS, GatewaySettings(), short) as on:
            replica = Replica(list(scripts))
            await on.replica(replica.script)
            talking = [converse(on, requests, str(number)) for number, requests in enumerate(clients)]
            peers = await asyncio.gather(*talking)
            await asyncio.sleep(300)
            server = on.served.server.statistics()
            assert (server.active, server.connections) == (0, 0), "everyone was answered or let go"
            assert on.entry.stats.in_flight == 0
            assert on.activator.statistics().in_flight == 0
            assert not on.activator.waiting
            for peer, requests in zip(peers, clients, strict=True):
                check_answers(peer, requests)
            return replica.seen

    with no_errors_logged():
        return run_fake(scenario())


@settings(max_examples=80)
@given(st.lists(st.lists(SENT, min_size=1, max_size=4), min_size=1, max_size=4), SCRIPTS)
def test_nothing_hangs_leaks_or_is_seen_twice(clients: list[list[Sent]], scripts: list[tuple[Step, ...]]) -> None:
    seen = play(clients, scripts)
    bodies = {f"/{n}-{m}".encode(): sent for n, requests in enumerate(clients) for m, sent in enumerate(requests)}
    for target, count in Counter(message.target for message in seen).items():
        sent = bodies[target]
        assert count == 1 or (sent.method in HARMLESS and count == 2)
    for message in seen:
        assert message.method == bodies[message.target].method
        assert message.body == (bodies[message.target].body or b"")


@settings(max_examples=80)
@given(
    st.lists(st.binary(max_size=200) | st.sampled_from([b"\r\n", b"GET / HTTP/1.1\r\nHost: " + HOST]), max_size=8)
)
def test_bytes_that_mean_nothing_end_the_connection_and_nothing_else(pieces: list[bytes]) -> None:
    async def scenario() -> None:
        async with stage(LIMITS, GatewaySettings(), HttpSettings(head_timeout=5.0, keep_alive=10.0)) as on:
            replica = Replica([])
            await on.replica(replica.script)
            client = await on.client(b"")
            for piece in pieces:
                if not client.closed:
                    client.send(piece)
                    await settle(3)
            await asyncio.sleep(60)
            assert client.closed
            assert on.served.server.statistics().active == 0
            assert b" 200 " in await on.ask(ending=b"body")

    with no_errors_logged():
        run_fake(scenario())


@settings(max_examples=80)
@given(st.lists(st.binary(max_size=100) | st.sampled_from([OK, OK[:20], b"HTTP/1.1 1", b"\r\n\r\n"]), max_size=6))
def test_a_replica_that_says_anything_never_makes_the_next_answer_wrong(said: list[bytes]) -> None:
    async def scenario() -> None:
        async with stage(LIMITS, GatewaySettings(), HttpSettings(upstream_idle=5.0)) as on:
            replica = Replica([tuple(said)])
            await on.replica(replica.script)
            client = await on.client()
            await asyncio.sleep(60)
            assert client.closed or b"\r\n\r\n" in client.received
            answer = await on.ask(ending=b"body")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.count(b"HTTP/1.1") == 1
            assert on.entry.stats.in_flight == 0

    with no_errors_logged():
        run_fake(scenario())

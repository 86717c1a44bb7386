"""An upgraded connection holds its slot and is counted until it ends, and it ends cleanly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from support.gateway import request, stage
from support.http import Backend, Peer, eventually
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.gateway.access_log import JsonAccessLog
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.lines import LineWriter
from upwell.runtime.testing.loop import run_fake

UPGRADE = request(fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def agreeing(peer: Peer) -> None:
    """Switches, then sends back what it gets; answers what asks for no switch."""
    while (end := peer.received.find(b"\r\n\r\n", peer.handled)) >= 0:
        head = bytes(peer.received[peer.handled : end])
        peer.handled = end + 4
        peer.send(SWITCHING if b"upgrade:" in head else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    if b"upgrade:" in peer.received and len(peer.received) > peer.handled:
        peer.send(bytes(peer.received[peer.handled :]))
        peer.handled = len(peer.received)


async def talk(client: Peer, words: bytes) -> None:
    client.received.clear()
    client.send(words)
    await client.answer(words)


def test_it_keeps_its_slot_and_is_counted_until_it_ends() -> None:
    async def scenario() -> None:
        async with stage(RevisionLimits(container_concurrency=1, burst_threshold=1)) as on:
            await on.replica(agreeing)
            upgraded = await on.client(UPGRADE)
            assert (await upgraded.answer(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            waiting = await on.client()
            await eventually(lambda: len(on.activator.waiting) == 1)
            await asyncio.sleep(100)
            await talk(upgraded, b"hello")
            assert on.activator.statistics().in_flight == 1
            assert on.entry.stats.in_flight == 2
            on.gateway.report_load()
            assert on.told.reports[-1].average_concurrency > 1.9
            upgraded.close()
            assert b"200 OK" in await waiting.answer(b"ok")
            assert on.entry.counters.statuses == {101: 1, 200: 1}
            assert on.entry.counters.reasons == {}
            assert on.activator.statistics().in_flight == on.entry.stats.in_flight == 0

    run_fake(scenario())


def test_it_waits_for_a_first_replica_and_loses_nothing_it_sent_ahead() -> None:
    async def scenario() -> None:
        async with stage() as on:
            client = await on.client(UPGRADE + b"ahead")
            await eventually(lambda: len(on.activator.waiting) == 1)
            _, made = await on.replica(agreeing)
            answer = await client.answer(b"ahead")
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert b"server-timing: queue;dur=" in answer
            assert b"connection: Upgrade\r\nupgrade: websocket\r\n" in made.seen

    run_fake(scenario())


def test_it_has_its_replicas_time_to_drain_and_then_ends_cleanly() -> None:
    async def scenario() -> None:
        async with stage(settings=GatewaySettings(gone_seconds=0.5)) as on:
            replica, made = await on.replica(agreeing)
            client = await on.client(UPGRADE)
            await client.answer(b"\r\n\r\n")
            on.move(replica, ReplicaState.DRAINING)
            await asyncio.sleep(50)
            await talk(client, b"still here")
            server = ended_by(made)
            server.send(b"closing")
            server.close()
            await client.to_the_end()
            assert client.received.endswith(b"closing")
            assert not client.reset
            await eventually(lambda: on.entry.counters.statuses == {101: 1})
            assert on.entry.counters.reasons == {}

    run_fake(scenario())


def ended_by(made: Backend) -> Peer:
    (server,) = made.peers
    return server


def test_one_that_outlives_its_replica_is_closed_and_the_reason_told() -> None:
    async def scenario() -> None:
        async with stage(settings=GatewaySettings(gone_seconds=0.5)) as on:
            replica, _ = await on.replica(agreeing)
            client = await on.client(UPGRADE)
            await client.answer(b"\r\n\r\n")
            on.move(replica, ReplicaState.GONE)
            await client.to_the_end()
            assert not client.reset
            assert on.entry.counters.reasons == {"lost_during_response": 1}

    run_fake(scenario())


def test_it_ends_with_the_time_of_a_request_and_no_replica_is_blamed() -> None:
    async def scenario() -> None:
        limits = RevisionLimits(timeout_seconds=10)
        async with stage(limits, GatewaySettings(replica_margin_seconds=5)) as on:
            _, made = await on.replica(agreeing)
            started = on.clock.monotonic()
            client = await on.client(UPGRADE)
            await client.answer(b"\r\n\r\n")
            await client.to_the_end()
            assert 15.0 <= on.clock.monotonic() - started < 15.2
            assert not client.reset
            assert on.told.replaced == []
            assert on.entry.counters.statuses == {101: 1}
            assert on.entry.counters.reasons == {"timeout_replica": 1}
            await made.peers[0].to_the_end()

    run_fake(scenario())


def test_the_access_log_tells_of_it_once_at_its_end_with_what_passed(tmp_path: Path) -> None:
    path = tmp_path / "log"

    async def scenario() -> None:
        async with stage() as on:
            with path.open("wb", buffering=0) as file:
                writer = LineWriter(file.fileno())
                on.gateway.access_log = JsonAccessLog(on.clock, writer)
                await on.replica(agreeing)
                client = await on.client(UPGRADE)
                await client.answer(b"\r\n\r\n")
                await talk(client, b"12345")
                await asyncio.sleep(60)
                assert path.read_text() == ""
                client.close()
                await eventually(lambda: on.entry.stats.in_flight == 0)
                writer.close()

    run_fake(scenario())
    (line,) = path.read_text().splitlines()
    told = json.loads(line)
    assert (told["status"], told["bytes_received"], told["bytes_sent"], told["reason"]) == (101, 5, 5, "")
    assert told["duration_ms"] >= 60_000

"""Objects as they change, told to clients that come, leave, do not read, and outlive the server."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.api import PATIENCE, Served, served, service, until
from upwell.functions.errors import Unavailable
from upwell.runtime.api.client import Client
from upwell.runtime.api.shapes import SOCKET
from upwell.runtime.cli.following import Change, follow
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.interface import ObjectKey
from upwell.runtime.cluster.kinds import SERVICE


@pytest.fixture
def interface(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        yield running


def told(line: dict[str, Any]) -> str:
    """In short: what a line of a watch says."""
    if "object" in line:
        return f"{line['object']['metadata']['name']} {line['object']['metadata']['generation']}"
    return f"{line['deleted']['name']} gone" if "deleted" in line else "synced"


def test_what_is_there_comes_first_and_then_what_changes(interface: Served) -> None:
    client = interface.client
    client.apply([service("a"), service("b")])
    lines = map(told, client.watch(SERVICE))
    assert [next(lines) for _ in range(3)] == ["a 1", "b 1", "synced"]
    client.apply([service("a", image="other"), service("c")])
    assert [next(lines) for _ in range(2)] == ["a 2", "c 1"]
    client.delete(SERVICE, "default", "b")
    assert next(lines) == "b gone"


def test_a_watch_may_be_narrowed_to_a_namespace_and_a_name(interface: Served) -> None:
    client = interface.client
    other = service("a")
    other["metadata"]["namespace"] = "team"
    client.apply([service("a"), service("b"), other])
    assert told(next(client.watch(SERVICE, "team"))) == "a 1"
    lines = map(told, client.watch(SERVICE, "default", "b"))
    assert [next(lines) for _ in range(2)] == ["b 1", "synced"]
    client.apply([service("a", image="other"), service("b", image="other")])
    assert next(lines) == "b 2"


def test_silence_ends_a_watch_that_waits_for_so_long_alone(interface: Served) -> None:
    lines = interface.client.watch(SERVICE, remaining=lambda: 0.05)
    assert told(next(lines)) == "synced"
    with pytest.raises(TimeoutError):
        next(lines)


def test_a_client_that_does_not_read_costs_the_latest_of_each_object_alone(interface: Served) -> None:
    note = "x" * 100_000
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(interface.directory / SOCKET))
        connection.sendall(f"GET /v1/watch/{SERVICE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        for number in range(200):  # 20 MB
            changed = service("a", image=f"i{number}")
            changed["metadata"]["annotations"] = {"note": note}
            interface.client.apply([changed])
        connection.settimeout(0.5)
        seen = 0
        last = b""
        try:
            while data := connection.recv(1 << 20):
                seen += len(data)
                last = (last + data)[-200_000:]
        except TimeoutError:
            pass
        assert seen < 4_000_000
        assert b'"image":"i199"' in last, "and it gets the last state when it reads on"


def test_what_was_told_is_not_told_again_after_a_restart(tmp_path: Path) -> None:
    client = Client(tmp_path, PATIENCE)
    changes = follow(client, SERVICE, None, None, SystemClock())
    with served(tmp_path) as first:
        client.apply([service("kept"), service("removed"), service("changed")])
        assert [each.name for each in next(changes)] == ["changed", "kept", "removed"]
        store = first.platform.objects
    later: list[Change] = []
    reader = threading.Thread(target=lambda: later.extend(next(changes)))
    reader.start()
    second = Served(tmp_path)
    second.platform.objects = store
    second_started = threading.Event()

    async def change() -> None:
        await store.delete(ObjectKey(SERVICE, "default", "removed"))
        manifest = await store.get(ObjectKey(SERVICE, "default", "changed"))
        assert manifest is not None
        await store.update_status(manifest | {"status": {"url": "http://new"}})
        second_started.set()

    asyncio.run(change())
    second.start()
    try:
        reader.join(PATIENCE)
        assert [(each.name, each.manifest is None) for each in later] == [("changed", False), ("removed", True)]
    finally:
        second.stop()


def test_a_platform_that_stays_away_ends_the_following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.runtime.cli.following.RESUME_SECONDS", 0.0)
    with served(tmp_path) as interface:
        changes = follow(interface.client, SERVICE, None, None, SystemClock())
        assert next(changes) == []
    with pytest.raises(Unavailable):
        next(changes)


def test_many_watches_end_with_their_clients(interface: Served) -> None:
    watches = [interface.client.watch(SERVICE) for _ in range(50)]
    for lines in watches:
        assert told(next(lines)) == "synced"
    assert interface.watches() == 50
    for lines in watches:
        lines.close()  # type: ignore[attr-defined]  # it is a generator
    until(lambda: interface.watches() == 0, "all watches are closed")

"""The fake loop and clock: time that jumps, sockets that do not."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from upwell.runtime.clock import Clock
from upwell.runtime.testing import loop as fake
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import FakeTimeLoop, run_fake


def test_an_hour_passes_at_once_and_to_the_second() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(asyncio.sleep(3_600), asyncio.sleep(60))
        assert isinstance(loop, FakeTimeLoop)
        assert loop.jumps >= 2
        return loop.time() - started

    before = time.monotonic()
    assert run_fake(main()) == pytest.approx(3_600)
    assert time.monotonic() - before < 5


def test_timers_fire_in_their_order() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for delay in (30, 10, 20):
            loop.call_later(delay, order.append, delay)
        await asyncio.sleep(31)
        return order

    assert run_fake(main()) == [10, 20, 30]


def test_what_is_ready_on_a_socket_comes_before_any_jump() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        _, other = await asyncio.open_connection(sock=right)
        started = loop.time()
        other.write(b"x" * 100_000)
        async with asyncio.timeout(1):
            assert len(await reader.readexactly(100_000)) == 100_000
        for end in (writer, other):
            end.close()
            await end.wait_closed()
        return loop.time() - started

    assert run_fake(main()) == 0


def test_the_loop_waits_in_real_time_for_a_job_in_a_thread() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.timeout(1):
            await loop.run_in_executor(None, time.sleep, 0.05)
        return loop.time() - started

    assert run_fake(main()) < 1


def test_a_deadlock_is_an_error_and_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "STUCK_AFTER", 0.05)

    async def main() -> None:
        await asyncio.Event().wait()

    loop = FakeTimeLoop()
    task = loop.create_task(main())
    with pytest.raises(RuntimeError, match="deadlock"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def test_a_clock_by_itself_moves_only_when_told() -> None:
    clock = FakeClock(unix=100.0)
    reader: Clock = clock
    assert (reader.now(), reader.monotonic()) == (100.0, 0.0)
    clock.advance(2.5)
    assert (reader.now(), reader.monotonic()) == (102.5, 2.5)
    clock.set_unix(50.0)
    assert (reader.now(), reader.monotonic()) == (50.0, 2.5)
    assert repr(clock) == "<FakeClock now 50.000, monotonic 2.500>"
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


def test_a_clock_bound_to_the_loop_moves_with_it() -> None:
    async def main() -> None:
        clock = FakeClock(unix=100.0, loop=asyncio.get_running_loop())
        started = clock.monotonic()
        await asyncio.sleep(10)
        assert clock.monotonic() - started == pytest.approx(10)
        assert clock.now() == pytest.approx(110)
        assert clock.monotonic() == asyncio.get_running_loop().time()

    run_fake(main())

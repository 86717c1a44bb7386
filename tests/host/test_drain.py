from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from support.host import DEADLINE, HELLO, Running, hosting, reached, read_answer, request_bytes, run

SLOW = """
    import asyncio
    async def main():
        await asyncio.sleep(0.3)
        return "done"
"""

STREAMING = """
    import asyncio
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b"ended"})
"""


async def under_way(running: Running) -> None:
    await reached(lambda: any(report.request_count for report in running.recorder.reports), "a request under way")


def test_a_request_under_way_is_finished_and_its_connection_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(SLOW)
            request = asyncio.create_task(running.get())
            await under_way(running)
            running.process.drain()
            answer = await request
            assert (answer.status, answer.body) == (200, b"done")
            assert answer.headers["connection"] == "close"
            assert (await running.recorder.exit()).code == 0

    run(main())


def test_a_response_that_has_begun_is_sent_to_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(STREAMING)
            request = asyncio.create_task(running.get())
            await under_way(running)
            running.process.drain()
            assert (await request).body == b"begun ended"
            assert (await running.recorder.exit()).code == 0

    run(main())


def test_connections_that_wait_in_the_backlog_are_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve("import time\nasync def main():\n    time.sleep(0.2)\n    return 'done'")
            # The first blocks the replica's loop, so that the others are accepted by nobody before the drain.
            requests = [asyncio.create_task(running.get()) for _ in range(10)]
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))
            running.process.drain()
            answers = await asyncio.gather(*requests)
            assert [answer.body for answer in answers] == [b"done"] * 10
            assert (await running.recorder.exit()).code == 0

    run(main())


def test_an_idle_connection_may_still_be_used_for_a_while_and_then_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(HELLO)
            reader, writer = await asyncio.open_unix_connection(running.path)
            writer.write(request_bytes())
            assert (await read_answer(reader)).headers.get("connection") is None
            running.process.drain()
            # The probe tells that the drain has been heard.
            probe = request_bytes("/", "User-Agent: kube-probe/1", "K-Network-Probe: queue")
            writer.write(probe)
            while (answer := await read_answer(reader)).status == 200:
                writer.write(probe)
            assert (answer.status, answer.body) == (503, b"shutting down\n")
            assert answer.headers["connection"] == "close"
            assert await reader.read() == b""
            writer.close()
            assert (await running.recorder.exit()).code == 0

    run(main())


def test_a_connection_whose_peer_never_closes_it_does_not_hold_the_replica(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(HELLO)
            reader, writer = await asyncio.open_unix_connection(running.path)
            writer.write(request_bytes())
            await read_answer(reader)
            loop = asyncio.get_running_loop()
            before = loop.time()
            running.process.drain()
            assert await reader.read() == b""
            assert loop.time() - before >= 1.9  # an idle connection is left to its peer for 2 s
            assert (await running.recorder.exit()).code == 0
            writer.close()

    run(main())


def test_what_takes_longer_than_the_grace_is_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve("import asyncio\nasync def main(): await asyncio.sleep(1000)")
            request = asyncio.create_task(running.get())
            await under_way(running)
            running.process.drain(0.1)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await request
            assert (await running.recorder.exit()).code == 0

    run(main())


async def client(path: str, ending: asyncio.Event, answered: list[bytes], tried_again: list[OSError]) -> None:
    """A pool of one, as careful as the gateway's: a write that fails at once has reached nobody."""
    while not ending.is_set():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        with connection:
            try:
                await asyncio.get_running_loop().sock_connect(connection, path)
            except (ConnectionRefusedError, FileNotFoundError) as error:
                tried_again.append(error)
                return
            if not await use(connection, ending, answered, tried_again):
                return


async def use(
    connection: socket.socket, ending: asyncio.Event, answered: list[bytes], tried_again: list[OSError]
) -> bool:
    loop = asyncio.get_running_loop()
    while not ending.is_set():
        try:
            connection.send(request_bytes())
        except (BrokenPipeError, ConnectionResetError) as error:
            tried_again.append(error)
            return False
        received = b""
        async with asyncio.timeout(DEADLINE):
            while b"hello" not in received:
                piece = await loop.sock_recv(connection, 4096)
                assert piece, "an accepted request was lost"
                received += piece
        answered.append(received)
        if b"connection: close" in received:
            return True
    return False


@pytest.mark.parametrize("how", ["drain", "SIGTERM"])
def test_nothing_that_was_accepted_is_lost_under_load(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load(HELLO)
            for _ in range(2):
                running = host.start(template)
                await running.recorder.became_ready()
                answered: list[bytes] = []
                tried_again: list[OSError] = []
                clients = [
                    asyncio.create_task(client(running.path, asyncio.Event(), answered, tried_again))
                    for _ in range(16)
                ]
                await reached(lambda answered=answered: len(answered) >= 200)  # type: ignore[misc]  # a default argument
                if how == "drain":
                    running.process.drain()
                else:
                    os.kill(running.pid, signal.SIGTERM)
                await asyncio.gather(*clients)
                assert (await running.recorder.exit()).code == 0
                # Every client went on until its replica refused it, and none saw a connection end unanswered.
                assert len(tried_again) == 16

    run(main())

"""After a load everything is as it was: connections, tasks, timers, descriptors."""

from __future__ import annotations

import asyncio

from support.http import GET, OK, Peer, Proxy, answering, eventually, open_files, proxying, run, settle
from upwell.runtime.http.forward import OutcomeKind

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def answer_gets(peer: Peer) -> None:
    if b"POST" not in peer.received:
        answering()(peer)


async def visit(proxy: Proxy, number: int) -> None:
    """One client: answered, refused, or leaving in the middle, in turn."""
    kind = number % 4
    if kind == 0:
        assert await proxy.ask(GET) == OK
    elif kind == 1:
        client = await proxy.client(GET * 5)
        await client.until(lambda: client.received.count(b"ok") == 5)
        client.close()
    elif kind == 2:
        await proxy.ask(b"GET / HTTP/1.1\r\n\r\n", b"never")
    else:
        client = await proxy.client(GET + POST[:-2])
        await client.answer(b"ok")
        await eventually(lambda: any(peer.received.endswith(POST[-5:-2]) for peer in proxy.backend.peers))
        client.transport.abort()


async def load() -> None:
    async with proxying(answer_gets) as proxy:
        for _ in range(5):
            await asyncio.gather(*(visit(proxy, number) for number in range(40)))
        server = proxy.served.server
        await eventually(lambda: server.statistics().connections == 0)
        assert server.statistics().active == 0
        assert server.statistics().exchanges_total == 5 * 10 * (1 + 5 + 2)
        assert server.statistics().refused_total == 5 * 10
        assert server.wheel.statistics().pending == 0
        await eventually(lambda: proxy.pool.statistics().active == 0)
        assert proxy.pool.statistics().waiting == 0
        assert proxy.kinds.count(OutcomeKind.COMPLETE) == 5 * 10 * (1 + 5 + 1)
        assert proxy.kinds.count(OutcomeKind.CLIENT_GONE) == 5 * 10
    await settle()


def test_a_load_leaves_no_connection_task_or_descriptor_behind(loop: str) -> None:
    async def main() -> None:
        await load()
        before, tasks = open_files(), len(asyncio.all_tasks())
        await load()
        assert len(asyncio.all_tasks()) == tasks
        await eventually(lambda: open_files() <= before)

    run(main(), loop)

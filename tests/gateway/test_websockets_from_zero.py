"""WebSockets of a real application: from zero through gateway and replica, and to a drain's end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support.platform import Function, deploy, function, platform, run, until

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute


async def echo(socket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


async def hello(request):
    return PlainTextResponse(request.method)


app = Starlette(
    routes=[
        WebSocketRoute("/echo", echo),
        Route("/", hello, methods=["GET", "BREW"]),
    ]
)
"""

FASTAPI = """
from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text((await socket.receive_text()).upper())
"""


def websocket(on: Function) -> connect:
    """A connection to the function's host through the gateway's port."""
    host = f"{on.name}.default.localhost"
    return connect(f"ws://{host}/echo", host="127.0.0.1", port=on.platform.port)


async def talk(client: ClientConnection, words: str) -> None:
    await client.send(words)
    assert await client.recv() == words.upper()


def test_a_websocket_raises_a_function_from_zero_and_keeps_it_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, STARLETTE) as on:
            await on.scale(0)
            async with websocket(on) as client:
                await talk(client, "hello")
                await talk(client, "x" * 300_000)
                entry = on.platform.gateway.revisions[on.revision]
                assert entry.stats.in_flight == 1
                assert (await on.ask("/")).text == "GET"
                assert (await on.ask("/", method="BREW")).text == "BREW"
            await until(lambda: entry.stats.in_flight == 0)
            assert entry.counters.statuses[101] == 1

    run(scenario())


def test_many_websockets_of_a_fastapi_application_talk_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, FASTAPI) as on:

            async def visit(number: int) -> None:
                async with websocket(on) as client:
                    for turn in range(5):
                        await talk(client, f"client {number} turn {turn}")

            await asyncio.gather(*(visit(number) for number in range(20)))

    run(scenario())


def test_an_open_websocket_hears_1012_when_its_replica_has_drained(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            deployed = await deploy(on, STARLETTE, timeoutSeconds=4)
            opened = asyncio.get_running_loop().time()
            async with websocket(deployed) as client:
                await talk(client, "hello")
                on.cluster.scale(deployed.revision, 0, reason="a test")
                slow = asyncio.get_running_loop().time() - opened > 0.5  # its own time is up first, at last
                await talk(client, "still here")
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012 or (slow and closed.value.rcvd.code == 1001)

    run(scenario())

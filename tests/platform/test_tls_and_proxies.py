"""A platform that listens in TLS, behind proxies that it trusts and others that it does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from support.platform import deploy, read_answer, run
from upwell.functions.errors import InvalidSettings
from upwell.runtime.clock import SystemClock
from upwell.runtime.gateway.access_log import NoAccessLog
from upwell.runtime.roles.up import Platform, PlatformState
from upwell.runtime.roles.up_settings import UpSettings

CERTIFICATES = Path(__file__).parent.parent / "http" / "certificates"
FIRST = CERTIFICATES / "first.pem"
SOURCE = """
import json


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"].upper()})
    elif scope["type"] == "http":
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(headers).encode()})
"""
HOST = "hello.default.example.com"


@contextlib.asynccontextmanager
async def platform(directory: Path, **more: Any) -> AsyncIterator[Platform]:
    directory.mkdir(exist_ok=True)
    settings = UpSettings(port=0, admin_port=0, tls_port=0, drain_seconds=1.0, **more)
    built = Platform(settings, PlatformState(directory), SystemClock(), access_log=NoAccessLog())
    await built.start()
    try:
        yield built
    finally:
        await built.stop()


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(FIRST))


async def ask(port: int, host: str = HOST, fields: str = "", tls: ssl.SSLContext | None = None) -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname=host if tls is not None else None
    )
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n".encode())
        answer = await asyncio.wait_for(read_answer(reader), 10)
        return answer.status, json.loads(answer.body) if answer.status == 200 else answer.body
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def test_requests_and_websockets_pass_in_tls_and_functions_are_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, tls_certificate=str(FIRST)) as on:
            await deploy(on, SOURCE)
            port = on.forwarded.https_port
            assert port is not None
            status, seen = await ask(port, tls=trusting())
            assert status == 200
            assert seen["x-forwarded-proto"] == "https"
            assert seen["forwarded"] == "for=127.0.0.1;proto=https"
            assert (await ask(on.port))[1]["x-forwarded-proto"] == "http"
            async with connect(f"wss://{HOST}/", host="127.0.0.1", port=port, ssl=trusting()) as socket:
                await socket.send("hello")
                assert await socket.recv() == "HELLO"

    run(scenario())


def test_only_a_trusted_proxy_is_believed_and_names_inside_answer_nobody_it_stands_for(tmp_path: Path) -> None:
    forwarded = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"

    async def scenario() -> None:
        async with platform(tmp_path / "one") as on:
            await deploy(on, SOURCE)
            assert on.forwarded.https_port is None
            _, seen = await ask(on.port, fields=forwarded)
            assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("127.0.0.1", "http")
            assert (await ask(on.port, "hello.default"))[0] == 200
            assert (await ask(on.port, "hello.default", forwarded))[0] == 404
        async with platform(
            tmp_path / "two", trusted_proxies=("127.0.0.0/8",), private_from=("10.0.0.0/8",)
        ) as on:
            await deploy(on, SOURCE)
            _, seen = await ask(on.port, fields=forwarded)
            assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("203.0.113.7, 127.0.0.1", "https")
            assert (await ask(on.port, "hello.default", forwarded))[0] == 404
            assert (await ask(on.port, "hello.default", "X-Forwarded-For: 10.1.2.3\r\n"))[0] == 200

    run(scenario())


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"tls_certificate": "/nowhere.pem"}, "--tls-certificate /nowhere.pem"),
        ({"trusted_proxies": ("10.0.0.0/99",)}, "--trusted-proxies"),
        ({"private_from": ("here",)}, "--private-from"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_their_flag(
    more: dict[str, Any], where: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        with pytest.raises(InvalidSettings) as raised:
            async with platform(tmp_path, **more):
                pass
        assert raised.value.where == where
        assert list(tmp_path.iterdir()) == [], "nothing is left behind"

    run(scenario())

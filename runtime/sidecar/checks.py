"""Carrying out the actions of probes and lifecycles: connections, GETs, commands, gRPC health calls.

Each has a deadline, holds at most what its answer needs, and tells a failure in words instead of raising. Servers
are asked with the kubelet's user agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from upwell.runtime.sidecar.probing import Action, Exec, GrpcCheck, HttpGet, Sleep, TcpConnect

USER_AGENT: Final = "kube-probe/1.34"
LOOPBACK: Final = "127.0.0.1"
HEAD_BYTES: Final = 16_384
"""Of an answer's head; the body is not looked at."""
OUTPUT_BYTES: Final = 1024
"""Of a failed command's output, for the reason."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?:[ \r]|$)")


class Check(NamedTuple):
    """The outcome of one action; `reason` says why it failed."""

    passed: bool
    reason: str = ""


PASSED: Final = Check(True)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container's actions go: its own port, and what its commands run with."""

    port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None


async def carry_out(action: Action, target: Target, timeout: float) -> Check:
    """Do it, within `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            return await _carry_out(action, target)
    except TimeoutError:
        return Check(False, f"{action} took longer than {timeout:g} s")
    except ssl.SSLError as error:
        return Check(False, f"{action}: TLS failed: {error.reason}")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        return Check(False, f"{action}: {_words(error)}")


async def _carry_out(action: Action, target: Target) -> Check:
    match action:
        case TcpConnect():
            _, writer = await _open(action.host, action.port, target)
            await _close(writer)
            return PASSED
        case HttpGet():
            return await _get(action, target)
        case Exec():
            return await _run(action, target)
        case GrpcCheck():
            return await _ask_grpc(action, target)
        case Sleep():
            await asyncio.sleep(action.seconds)
            return PASSED


def _words(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "the connection closed before it was answered"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


async def _open(
    host: str, port: int | None, target: Target, *, secure: bool = False, limit: int = HEAD_BYTES
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    number = target.port if port is None else port
    if number is None:
        raise ValueError("it has no port of its own")
    context = None
    if secure:  # the kubelet does not look at certificates either
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host or LOOPBACK, number, ssl=context, limit=limit)
    if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
        # Nobody listens, and the kernel chose the very port as the near end's: it is connected to itself.
        await _close(writer)
        raise ConnectionRefusedError(111, "nobody listens")
    return reader, writer


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _get(action: HttpGet, target: Target) -> Check:
    reader, writer = await _open(action.host, action.port, target, secure=action.secure)
    try:
        writer.write(request(action, target))
        line = await reader.readuntil(b"\r\n")
    finally:
        await _close(writer)
    found = _STATUS.match(line)
    if found is None:
        return Check(False, f"{action} was answered with what is not HTTP/1.1")
    return judge(action, int(found[1]))


def judge(action: HttpGet, status: int) -> Check:
    """200 to 399 is well, as for the kubelet."""
    return PASSED if 200 <= status < 400 else Check(False, f"{action} was answered with {status}")


def request(action: HttpGet, target: Target) -> bytes:
    """The request on the wire."""
    given = {name.lower() for name, _ in action.headers}
    port = target.port if action.port is None else action.port
    host = f"[{action.host}]" if ":" in action.host else action.host or LOOPBACK
    lines = [f"GET {action.path} HTTP/1.1", *(f"{name}: {value}" for name, value in action.headers)]
    defaults = {"Host": f"{host}:{port}", "User-Agent": USER_AGENT, "Accept": "*/*"}
    lines += [f"{name}: {value}" for name, value in defaults.items() if name.lower() not in given]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace")


async def _run(action: Exec, target: Target) -> Check:
    try:
        process = await asyncio.create_subprocess_exec(
            *action.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(target.environment) or None,
            cwd=target.directory,
            start_new_session=True,
        )
    except OSError as error:
        return Check(False, f"{action} cannot be run: {_words(error)}")
    assert process.stdout is not None
    output = b""
    try:
        while piece := await process.stdout.read(4096):
            output = (output + piece)[-OUTPUT_BYTES:]
        code = await process.wait()
    finally:
        # What it left behind as well: a probe that runs each second must not gather processes.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code == 0:
        return PASSED
    text = output.decode(errors="replace").strip()
    return Check(False, f"{action} ended with {code}" + (f": {text}" if text else ""))


async def _ask_grpc(action: GrpcCheck, target: Target) -> Check:
    from upwell.runtime.sidecar.grpc_health import ask

    reader, writer = await _open("", action.port, target)
    try:
        answer = await ask(reader, writer, action.service, USER_AGENT)
    finally:
        await _close(writer)
    return PASSED if answer == "SERVING" else Check(False, f"{action} was answered with {answer}")

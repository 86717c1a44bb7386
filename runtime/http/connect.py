"""Opening a connection to an endpoint, the one way it is done.

A Unix socket whose backlog is full refuses at once with EAGAIN, where TCP would wait; and asyncio takes that
EAGAIN for a connection in progress and reports it as made. So the socket is connected here, and a full backlog is
met with short growing pauses until the deadline.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from upwell.functions.errors import Unavailable

P = TypeVar("P", bound=asyncio.BaseProtocol)

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


class ConnectFailed(Unavailable):
    """No connection to the endpoint; `what` is the cause. `definite` when trying again at once would not help."""

    def __init__(self, what: str, *, where: str, definite: bool) -> None:
        super().__init__(what, where=where)
        self.definite = definite


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens: a Unix socket's `path`, or `host` and `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.host):
            raise ValueError("an endpoint is either a path or a host with a port")

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def connect(endpoint: Endpoint, protocol: Callable[[], P], timeout: float) -> P:
    """A connected protocol, within `timeout` seconds. Raises ConnectFailed."""
    loop = asyncio.get_running_loop()
    where = str(endpoint)
    try:
        async with asyncio.timeout(timeout):
            # From here on the transport owns the socket, also when this is cancelled.
            if endpoint.path:
                sock = await _connect_unix(endpoint.path)
                _, made = await loop.create_unix_connection(protocol, sock=sock)
            else:
                sock = await _connect_tcp(loop, endpoint)
                _, made = await loop.create_connection(protocol, sock=sock)
            return made
    except TimeoutError as error:
        raise ConnectFailed(f"no connection within {timeout:g} s", where=where, definite=False) from error
    except OSError as error:
        raise ConnectFailed(_reason(error), where=where, definite=True) from error


def _reason(error: OSError) -> str:
    """The system's words; asyncio puts the address in their place."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)


async def _connect_unix(path: str) -> socket.socket:
    pause = _FIRST_PAUSE
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            return sock
        except BlockingIOError:
            sock.close()
        except BaseException:
            sock.close()
            raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _connect_tcp(loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> socket.socket:
    failure: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    for family, address in await _addresses(loop, endpoint):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


async def _addresses(
    loop: asyncio.AbstractEventLoop, endpoint: Endpoint
) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        version = ipaddress.ip_address(endpoint.host).version
    except ValueError:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        return [(family, (str(address[0]), endpoint.port)) for family, _, _, _, address in found]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return [(family, (endpoint.host, endpoint.port))]

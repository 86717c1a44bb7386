"""Where requests go, and the opening of connections to it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from upwell.functions.errors import Unavailable
from upwell.runtime.load.connection import LoadConnection

Address = tuple[socket.AddressFamily, tuple[str, int]]

LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Place:
    """A server's name or address and port; with `tls` that is spoken to it, under the name."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class DialFailed(Exception):
    """No connection; the text is a short cause, one of not many."""


async def addresses(place: Place) -> Sequence[Address]:
    """The addresses of a place. Names below localhost are this machine (RFC 6761), which resolvers seldom know.

    Raises Unavailable for a name that has none.
    """
    hosts = LOOPBACK if _is_local(place.host) else (place.host,)
    try:
        return [(_family(host), (host, place.port)) for host in hosts]
    except ValueError:
        pass
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable("the name has no address", where=place.host) from error
    return [(family, (str(address[0]), place.port)) for family, _, _, _, address in found]


def _is_local(host: str) -> bool:
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET if ipaddress.ip_address(host).version == 4 else socket.AF_INET6


async def dial(
    place: Place, address: Address, protocol: Callable[[], LoadConnection], timeout: float
) -> LoadConnection:
    """A connection to one of the place's addresses, within `timeout` seconds. Raises DialFailed."""
    loop = asyncio.get_running_loop()
    family, where = address
    try:
        async with asyncio.timeout(timeout):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(sock, where)
            except BaseException:
                sock.close()
                raise
            name = place.host if place.tls else None
            _, made = await loop.create_connection(protocol, sock=sock, ssl=place.tls, server_hostname=name)
            return made
    except TimeoutError as error:
        raise DialFailed("timeout of the connection") from error
    except ssl.SSLCertVerificationError as error:
        raise DialFailed(f"certificate: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise DialFailed("TLS failed") from error
    except OSError as error:
        raise DialFailed(os.strerror(error.errno).lower() if error.errno else "no connection") from error

"""Listening sockets, made before anything serves on them."""

from __future__ import annotations

import errno
import socket
from typing import Final

from upwell.functions.errors import AddressInUse, InvalidSettings

BACKLOG: Final = 4096
"""A burst of connections that waits for the loop's next turn; the kernel may hold fewer."""


def bind(hosts: tuple[str, ...], port: int, flag: str) -> list[socket.socket]:
    """Listening sockets on the same port of every host. IPv6 that the machine lacks is passed over.

    Raises AddressInUse, whose hint names `flag`, and InvalidSettings for an address that is not this machine's.
    """
    listeners: list[socket.socket] = []
    host = ""
    try:
        for host in hosts:
            try:
                listeners.append(_bind_one(host, listeners[0].getsockname()[1] if listeners else port))
            except OSError as error:
                if not (":" in host and listeners and error.errno in _NO_IPV6):
                    raise
    except OSError as error:
        for listener in listeners:
            listener.close()
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            hint = f"Choose another with {flag}."
            raise AddressInUse(f"port {port} is used by another process", where=where, hint=hint) from error
        if error.errno == errno.EACCES:
            raise AddressInUse(
                f"port {port} may not be used", where=where, hint=f"Choose another with {flag}."
            ) from error
        hint = "Give addresses of this machine, such as 127.0.0.1 or 0.0.0.0."
        raise InvalidSettings("cannot listen there", where=f"--host {host}", hint=hint) from error
    return listeners


_NO_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def _bind_one(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener

"""What commands that send requests need: where a service answers, how the gateway is dialled, and the body.

The gateway is dialled by its address and told the service's host, since names below localhost resolve in browsers
and curl but not everywhere.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from upwell.functions.errors import InvalidInput, Unavailable
from upwell.runtime.api.client import Client
from upwell.runtime.cluster.kinds import SERVICE

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def service_host(client: Client, namespace: str, name: str) -> str:
    """The host of a Service's URL, with the port if that names one. Raises Unavailable as long as it has none."""
    url = client.get(SERVICE, namespace, name).get("status", {}).get("url")
    if not url:
        hint = f"See upwell describe ksvc {name}."
        raise Unavailable("it has no URL yet", where=f"service {namespace}/{name}", hint=hint)
    return str(urlsplit(url).netloc)


def gateway_address(client: Client) -> tuple[str, int]:
    """An address of this machine where the gateway listens, and its port."""
    info = client.platform()
    hosts = sorted((_LOOPBACK.get(each, each) for each in info.hosts), key=lambda each: each != "127.0.0.1")
    return hosts[0], info.port


def read_body(given: str) -> bytes:
    """Of `TEXT`, `@FILE` or `-`, standard input. Raises InvalidInput when it cannot be read."""
    try:
        if given == "-":
            return sys.stdin.buffer.read()
        return Path(given[1:]).read_bytes() if given.startswith("@") else os.fsencode(given)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=f"--data {given}") from error

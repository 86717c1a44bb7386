"""The shapes of an ASGI 3 application, named once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

GONE = "upwell.gone"
"""Key of a scope: what the server calls when the connection is lost before the response is complete."""

DEADLINE = "upwell.deadline"
"""Key of a scope: a pair of the server's `Clock` and the monotonic second at which the request's time is up."""


class Clock(Protocol):
    """What a server reads the time from."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

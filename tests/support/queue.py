"""A queue layer around a handler, driven by messages alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from upwell.autoscaler.stats import RequestStats
from upwell.functions.asgi import Application, Message, Scope
from upwell.runtime.queue.layer import QueueLayer
from upwell.runtime.queue.settings import QueueSettings
from upwell.runtime.timers import TimerWheel


class LoopClock:
    """Both clocks are the running loop's, so that a loop whose time jumps moves them."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    monotonic = now


@dataclass
class Told:
    """What a layer told its owner."""

    woke: int = 0
    stuck: int = 0


@dataclass
class Response:
    """What a layer sent for one request, message by message."""

    messages: list[Message] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        self.times.append(asyncio.get_running_loop().time())

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def is_whole(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)


class Layer:
    """A queue layer under test. Made in a running loop."""

    def __init__(self, app: Application, *, abandoned: Callable[[], int] = lambda: 0, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        self.told = Told()
        self.extensions: dict[str, Any] = {"websocket.http.response": {}}
        self.scopes: list[Scope] = []
        self.stats = RequestStats(loop.time())
        self.wheel = TimerWheel(loop)
        self.layer = QueueLayer(
            app,
            QueueSettings(**settings),
            self.stats,
            self.wheel,
            LoopClock(),
            abandoned=abandoned,
            woke=self._woke,
            stuck=self._stuck,
        )

    def _woke(self) -> None:
        self.told.woke += 1

    def _stuck(self) -> None:
        self.told.stuck += 1

    async def request(self, headers: Mapping[str, str] | None = None, kind: str = "http") -> Response:
        """Serve one request to its end; raises what the layer raises."""
        response = Response()
        await self.serve(response, headers, kind)
        return response

    async def serve(
        self, response: Response, headers: Mapping[str, str] | None = None, kind: str = "http"
    ) -> None:
        """The same into a response that can be looked at meanwhile."""
        pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope: Scope = {"type": kind, "headers": pairs, "extensions": self.extensions}
        self.scopes.append(scope)
        await self.layer(scope, _receive, response.send)


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}

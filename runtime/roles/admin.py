"""The admin page: metrics and health, on a port of its own that is not the gateway's.

A starlette application on uvicorn inside the platform's loop; it is read a few times a minute. Of ten thousand
revisions a page takes seconds to make, so it is put together family by family, with room for requests in between,
and written in a thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from upwell.runtime.clock import Clock
from upwell.runtime.http.asgi import ServeSettings, serve

STOP_SECONDS: Final = 1.0


class AdminPage:
    """Serves the metrics of `collectors`, and health, until `stop`."""

    def __init__(self, collectors: Iterable[Collector], clock: Clock) -> None:
        self._clock = clock
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, listener: socket.socket) -> None:
        """Serve on `listener`, which is closed in `stop`."""
        self.port = int(listener.getsockname()[1])
        app = Starlette(routes=[Route("/metrics", self._metrics), Route("/healthz", self._health)])
        self._task = asyncio.create_task(
            serve(app, listener, self._stopping, settings=ServeSettings(), clock=self._clock, grace=STOP_SECONDS),
            name="admin",
        )

    async def stop(self) -> None:
        """Stop serving."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _metrics(self, request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        collected = _Collected()
        for family in self._registry.collect():
            collected.families.append(family)
            await asyncio.sleep(0)
        page = await asyncio.to_thread(encoder, collected)
        return Response(page, headers={"content-type": content_type})

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})


class _Collected(CollectorRegistry):
    """Families that were collected before, for an encoder."""

    def __init__(self) -> None:
        super().__init__(auto_describe=False)
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        return self.families

"""The platform's interface: what its commands ask for, over a Unix socket that only its user may open.

A Starlette application on uvicorn's protocol inside the platform's loop. Errors that upwell raises on purpose
travel with their exit code; anything else is logged and told as an internal error. `ApiServer` is built, started
with the socket that `bind_socket` made, and stopped before the platform is: that ends its streams first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from upwell.functions.errors import NotFound, Unavailable
from upwell.runtime.api.explain import Explaining, Replicas, explain
from upwell.runtime.api.logs import ServiceLogs, log_lines
from upwell.runtime.api.place import short_path
from upwell.runtime.api.requests import (
    guarded,
    no_such_route,
    read_batch,
    read_flag,
    read_kind,
    read_labels,
    read_name,
    read_one_of,
    read_seconds,
    read_tail,
)
from upwell.runtime.api.resources import missing
from upwell.runtime.api.shapes import PREFIX, SOCKET, SYNCED, Outcome, PlatformInfo, ReplicaInfo
from upwell.runtime.api.streams import LineStream
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, ObjectStore, Replica
from upwell.runtime.cluster.kinds import REVISION, SERVICE
from upwell.runtime.cluster.labels import SERVICE_LABEL
from upwell.runtime.gateway.topology import Record, Watched, read_topology, to_line
from upwell.runtime.http.asgi import ServeSettings, serve

STOP_SECONDS: Final = 1.0
SERVE: Final = ServeSettings(keep_alive_seconds=5, drain_idle_seconds=0.1, drain_accept_seconds=0.1, backlog=1024)
"""Every command has a connection of its own, and one that comes while the platform ends is told so by its end."""
ITEMS_AT_ONCE: Final = 50
"""Objects of a list encoded in one go, about a millisecond; requests of the gateway are served in between."""
RECORDS_AT_ONCE: Final = 16
"""Routes and revisions with their counts, which are read besides: as long."""


class Applied(Protocol):
    """What became of a manifest."""

    @property
    def key(self) -> ObjectKey:
        """Its object."""
        ...

    @property
    def action(self) -> str:
        """created, configured or unchanged."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What was taken and will not be heeded."""
        ...

    @property
    def manifest(self) -> Manifest:
        """As it is stored now."""
        ...


class ApiPlatform(Protocol):
    """What the interface asks of a platform."""

    @property
    def directory(self) -> Path:
        """Its data directory."""
        ...

    @property
    def objects(self) -> ObjectStore:
        """Its objects."""
        ...

    @property
    def cluster(self) -> Replicas:
        """Its replicas."""
        ...

    @property
    def autoscaler(self) -> Explaining:
        """Who decides how many replicas there are."""
        ...

    @property
    def gateway(self) -> Watched:
        """What requests go through."""
        ...

    async def apply(
        self, manifests: Sequence[Manifest], *, images: Mapping[str, str], dry_run: bool
    ) -> Sequence[Applied]:
        """Admit all, then write all. Raises Refused."""
        ...

    async def delete(self, key: ObjectKey) -> None:
        """Remove the object and what belongs to it. Raises NotFound."""
        ...


def bind_socket(directory: Path) -> socket.socket:
    """The listening socket of the platform that holds `directory`, mode 0600; a dead platform's is removed.

    Raises Unavailable when something else stands in its place.
    """
    path = directory / SOCKET
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot be replaced by a socket: {error.strerror}", where=str(path)) from error
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short_path(path) as short:
            listener.bind(short)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.setblocking(False)
    listener.listen(SERVE.backlog)
    return listener


class ApiServer:
    """Serves the interface of `platform` until `stop`. `info` says which platform it is."""

    def __init__(self, platform: ApiPlatform, info: PlatformInfo, clock: Clock) -> None:
        self._platform = platform
        self._info = info
        self._clock = clock
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, listener: socket.socket) -> None:
        """Serve on `listener`, which is closed in `stop`."""
        served = serve(
            self._application(), listener, self._ending, settings=SERVE, clock=self._clock, grace=STOP_SECONDS
        )
        self._task = asyncio.create_task(served, name="api")

    async def wait(self) -> None:
        """Until it ends; raises what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """End the streams, answer what is under way, remove the socket."""
        self._ending.set()
        if self._task is not None:
            await self._task
        (self._platform.directory / SOCKET).unlink(missing_ok=True)

    def _application(self) -> Starlette:
        routes = (
            ("GET", "/platform", self._tell_platform),
            ("POST", "/apply", self._apply),
            ("GET", "/objects/{kind}", self._list),
            ("GET", "/objects/{kind}/{name}", self._get),
            ("DELETE", "/objects/{kind}/{name}", self._delete),
            ("GET", "/watch/{kind}", self._watch),
            ("GET", "/replicas/{namespace}/{revision}", self._replicas),
            ("GET", "/explain/{namespace}/{name}", self._explain),
            ("GET", "/topology", self._topology),
            ("GET", "/logs/{namespace}/{service}", self._logs),
        )
        application = Starlette(
            routes=[Route(f"{PREFIX}{path}", guarded(each), methods=[method]) for method, path, each in routes],
            exception_handlers={HTTPException: no_such_route},
        )
        application.router.redirect_slashes = False
        return application

    async def _tell_platform(self, request: Request) -> Response:
        return JSONResponse(self._info.to_json())

    async def _apply(self, request: Request) -> Response:
        batch = await read_batch(request)
        applied = await self._platform.apply(batch.manifests, images=batch.images, dry_run=batch.dry_run)
        return JSONResponse({"applied": [_outcome(each).to_json() for each in applied]})

    async def _list(self, request: Request) -> ASGIApp:
        namespace = request.query_params.get("namespace")
        found = await self._platform.objects.list(read_kind(request), namespace, labels=read_labels(request))
        return LineStream(_encoded_list(found), self._ending)

    async def _get(self, request: Request) -> Response:
        return JSONResponse(await self._object(_key(request)))

    async def _delete(self, request: Request) -> Response:
        await self._platform.delete(_key(request))
        return JSONResponse({})

    async def _watch(self, request: Request) -> ASGIApp:
        query = request.query_params
        changes = self._platform.objects.watch(
            read_kind(request), namespace=query.get("namespace"), name=query.get("name")
        )
        return LineStream(_encoded_changes(changes), self._ending)

    async def _replicas(self, request: Request) -> Response:
        given = request.path_params
        found = self._platform.cluster.replicas(f"{given['namespace']}/{given['revision']}")
        return JSONResponse({"items": [_replica(each).to_json() for each in found]})

    async def _explain(self, request: Request) -> Response:
        given = request.path_params
        kind, since = read_one_of(request, "kind", (SERVICE, REVISION)), read_seconds(request, "since")
        found = await explain(self._platform, given["namespace"], given["name"], kind, self._clock.now(), since)
        return JSONResponse(found.to_json())

    async def _topology(self, request: Request) -> ASGIApp:
        return LineStream(_encoded_records(read_topology(self._platform.gateway, self._clock)), self._ending)

    async def _logs(self, request: Request) -> ASGIApp:
        given = request.path_params
        namespace, name = read_name(given["namespace"], "namespace"), read_name(given["service"], "service")
        key = ObjectKey(SERVICE, namespace, name)
        await self._object(key)
        revision = request.query_params.get("revision")
        if revision is not None:
            await self._check_revision(namespace, name, revision)
        logs = ServiceLogs(self._platform.directory / "logs" / namespace / name, revision, read_tail(request))

        async def is_there() -> bool:
            return await self._platform.objects.get(key) is not None

        return LineStream(log_lines(logs, read_flag(request, "follow"), is_there), self._ending)

    async def _check_revision(self, namespace: str, service: str, revision: str) -> None:
        manifest = await self._object(ObjectKey(REVISION, namespace, revision))
        if manifest["metadata"].get("labels", {}).get(SERVICE_LABEL) != service:
            raise NotFound(f"the Service {namespace}/{service} has no revision {revision}")

    async def _object(self, key: ObjectKey) -> Manifest:
        manifest = await self._platform.objects.get(key)
        if manifest is None:
            raise missing(key.kind, key.namespace, key.name)
        return manifest


def _key(request: Request) -> ObjectKey:
    return ObjectKey(read_kind(request), request.query_params.get("namespace", ""), request.path_params["name"])


def _outcome(applied: Applied) -> Outcome:
    generation = applied.manifest["metadata"].get("generation", 0)
    return Outcome(*applied.key, applied.action, tuple(applied.warnings), generation)


def _replica(replica: Replica) -> ReplicaInfo:
    state, phases = replica.state.value, dict(replica.phases)
    return ReplicaInfo(replica.name, state, replica.pid, replica.started_at, phases, replica.locality)


def _encode(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


async def _encoded_list(found: list[Manifest]) -> AsyncGenerator[bytes]:
    for at in range(0, len(found), ITEMS_AT_ONCE):
        yield b"".join(_encode({"object": each}) for each in found[at : at + ITEMS_AT_ONCE])
        await asyncio.sleep(0)
    yield _encode(SYNCED)


async def _encoded_records(records: Iterator[Record]) -> AsyncGenerator[bytes]:
    while found := [*islice(records, RECORDS_AT_ONCE)]:
        yield b"".join(_encode(to_line(each)) for each in found)
        await asyncio.sleep(0)
    yield _encode(SYNCED)


async def _encoded_changes(changes: AsyncGenerator[Any]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(changes):
        async for change in changes:
            if not isinstance(change, ObjectChange):
                yield _encode(SYNCED)
            elif change.manifest is None:
                yield _encode({"deleted": change.key._asdict()})
            else:
                yield _encode({"object": change.manifest})

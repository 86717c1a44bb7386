"""The whole platform in one process: what `upwell up` and `upwell run` start.

One event loop holds the gateway, the reconcilers, the autoscaler and the local cluster; replicas are processes
under the host. `Platform` is the wiring and nothing else: build, `start`, `apply`, `stop`, in that order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upwell.autoscaler.decision import Decision
from upwell.autoscaler.spec import AutoscalerConfig
from upwell.functions.errors import AddressInUse, InvalidFunction
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey
from upwell.runtime.cluster.local import LocalCluster, LocalClusterSettings
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.cluster.metrics import ReplicaCollector
from upwell.runtime.control.autoscaler import AutoscalerLoop, burst_threshold
from upwell.runtime.control.conditions import READY, find_for_generation
from upwell.runtime.control.follow import Follower
from upwell.runtime.control.metrics import AutoscalerCollector
from upwell.runtime.control.serving import Addresses, ServingController
from upwell.runtime.descriptors import raise_descriptor_limit
from upwell.runtime.gateway.access_log import AccessLog
from upwell.runtime.gateway.gateway import Gateway
from upwell.runtime.gateway.metrics import GatewayCollector
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.host.launcher import HostLauncher
from upwell.runtime.host.settings import HostSettings
from upwell.runtime.http.listen import bind
from upwell.runtime.http.server import HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.roles.admin import AdminPage
from upwell.runtime.roles.scratch import socket_folder
from upwell.runtime.settings import setting

LOCAL_DEFAULTS: Final = {"allow-zero-initial-scale": "true", "initial-scale": "0"}
"""A template that has imported the function proves more than a first replica, so none is started for it."""
LEAST_STOP_SECONDS: Final = 0.5
"""For replicas to run their shutdown when requests have used up the drain's time."""
LOOPBACK: Final = ("127.0.0.1", "::1")
FALLBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
"""What a function that is alone on the platform answers to besides its own hosts."""

_log = logging.getLogger("upwell.platform")


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What an operator of a laptop platform may choose."""

    port: int = setting(8080, "Port of the gateway; 0 takes a free one.", least=0, most=65535)
    host: tuple[str, ...] = setting(LOOPBACK, "Addresses to listen on; by default this machine alone reaches it.")
    admin_port: int = setting(
        9090, "Port of metrics and health on 127.0.0.1; 0 takes a free one.", least=0, most=65535
    )
    domains: tuple[str, ...] = setting(
        ("localhost", "example.com"), "A function answers on NAME.NAMESPACE. of each; the first makes its URL."
    )
    templates: int = setting(
        32, "Imported functions kept ready to fork, about 10 MB of private memory each.", least=1
    )
    drain_seconds: float = setting(10.0, "What requests under way get when the platform stops.", least=0)
    show_errors: bool = setting(False, "Answer an exception with its traceback, which every caller then sees.")


class Platform:
    """Everything that one machine needs, until `stop`."""

    def __init__(
        self,
        settings: UpSettings,
        directory: Path,
        clock: Clock,
        *,
        access_log: AccessLog,
        autoscaler: Mapping[str, str],
        host: HostSettings = HostSettings(),
        gateway: GatewaySettings = GatewaySettings(),
        decided: Callable[[Decision], None] = lambda decision: None,
        any_admin_port: bool = False,
    ) -> None:
        self.settings = settings
        self.directory = directory
        self._cleanup = contextlib.ExitStack()
        sockets = self._cleanup.enter_context(socket_folder(directory))
        self.objects = MemoryStore(clock)
        self.launcher = HostLauncher(host, clock)
        self.cluster = LocalCluster(
            self.objects,
            self.launcher,
            bundles=directory / "bundles",
            sockets=sockets,
            clock=clock,
            reports=lambda report: self.autoscaler.report(report),
            settings=LocalClusterSettings(templates=settings.templates, show_errors=settings.show_errors),
        )
        config = AutoscalerConfig.from_config_map({**LOCAL_DEFAULTS, **autoscaler})
        self.autoscaler = AutoscalerLoop(config, self.cluster, clock, decided=decided)
        self.gateway = Gateway(
            name=f"gateway-{os.getpid()}",
            clock=clock,
            autoscaling=self.autoscaler,
            access_log=access_log,
            http=HttpSettings(),
            cluster=self.cluster,
            settings=gateway,
        )
        self.cluster.observe(self.gateway)
        self.cluster.observe(self.autoscaler)
        self.server = HttpServer(self.gateway.handle, HttpSettings(), clock, refused=self.gateway.unreadable)
        collectors = (
            GatewayCollector(self.gateway),
            ReplicaCollector(self.cluster),
            AutoscalerCollector(self.autoscaler.engine),
        )
        self.admin = AdminPage(collectors, clock)
        self._any_admin_port = any_admin_port
        self._clock = clock
        self._listeners: list[socket.socket] = []
        self._port = settings.port
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The gateway's port, once started."""
        return self._port

    async def start(self) -> None:
        """Listen, start the host and the loops. Raises AddressInUse; nothing is left behind then."""
        raise_descriptor_limit()
        try:
            self._listeners = bind(self.settings.host, self.settings.port, "--port")
            self._port = int(self._listeners[0].getsockname()[1])
            await self.admin.start(self._bind_admin())
            await self.launcher.start()
        except BaseException:
            await self.stop()
            raise
        serving = ServingController(self.objects, self._clock, Addresses(self.settings.domains, self.port))
        follower = Follower(
            self.objects,
            self.gateway,
            self.autoscaler,
            self._clock,
            burst_threshold=functools.partial(burst_threshold, self.autoscaler.config),
            fallback_hosts=FALLBACK_HOSTS,
        )
        loops = {
            "cluster": self.cluster.run(),
            "gateway": self.gateway.run(),
            "autoscaler": self.autoscaler.run(),
            "serving-watch": serving.watch(),
            "serving": serving.work(),
            "follow": follower.run(),
        }
        self._tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
        await self.server.start(self._listeners)
        _log.info("listening", extra={"hosts": list(self.settings.host), "port": self.port})

    def _bind_admin(self) -> socket.socket:
        try:
            return bind(LOOPBACK[:1], self.settings.admin_port, "--admin-port")[0]
        except AddressInUse:
            if not self._any_admin_port:
                raise
            return bind(LOOPBACK[:1], 0, "--admin-port")[0]

    async def wait(self) -> None:
        """Until one of the loops fails; raises what it raised. The loops are `stop`'s to end."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create the object or replace its spec."""
        if await self.objects.get(ObjectKey.of(manifest)) is None:
            return await self.objects.create(manifest)
        return await self.objects.update(manifest)

    async def wait_ready(self, key: ObjectKey, timeout: float) -> Manifest:
        """The Service once its present generation is ready. Raises InvalidFunction with its condition's message
        when that fails or `timeout` seconds were not enough."""
        message = "it was not ready in time"
        try:
            async with asyncio.timeout(timeout), contextlib.aclosing(self.objects.watch(key.kind)) as changes:
                async for change in changes:
                    if not isinstance(change, ObjectChange) or change.key != key or change.manifest is None:
                        continue
                    ready = find_for_generation(change.manifest, READY)
                    if ready is not None and ready.status == "True":
                        return change.manifest
                    if ready is not None and ready.status == "False":
                        raise InvalidFunction(ready.message or ready.reason)
        except TimeoutError as error:
            raise InvalidFunction(message, where=str(key), hint=f"waited {timeout:.0f} s") from error
        raise InvalidFunction(message, where=str(key))

    async def stop(self) -> None:
        """Finish what is under way, end every replica, leave nothing behind, in little over the drain's time."""
        deadline = self._clock.monotonic() + self.settings.drain_seconds
        await self.server.drain(deadline)
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                _log.error("a loop of the platform failed", exc_info=result)
        await self.launcher.stop(max(LEAST_STOP_SECONDS, deadline - self._clock.monotonic()))
        await self.admin.stop()
        for listener in self._listeners:
            listener.close()
        self._cleanup.close()

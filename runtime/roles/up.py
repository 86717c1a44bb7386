"""The whole platform in one process: what `upwell up` and `upwell run` start.

One event loop holds the gateway, the reconcilers, the autoscaler and the local cluster; replicas are processes
under the host. `Platform` is the wiring and nothing else: build, `start`, `apply`, `stop`, in that order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from upwell.autoscaler.decision import Decision
from upwell.functions.errors import AddressInUse, InvalidFunction, NotFound, Unavailable
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import INGRESS
from upwell.runtime.cluster.local import LocalCluster, LocalClusterSettings
from upwell.runtime.cluster.logs import LogKeeper
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.cluster.metrics import ReplicaCollector
from upwell.runtime.cluster.usage import UsageMeter
from upwell.runtime.control.autoscaler import AutoscalerLoop, burst_threshold
from upwell.runtime.control.conditions import READY, StatusCondition, find_for_generation
from upwell.runtime.control.config import ConfigLayers, PlatformConfig, platform_config
from upwell.runtime.control.configmaps import ConfigMapFollower, stored_config_maps
from upwell.runtime.control.domains import loopback_domains
from upwell.runtime.control.follow import Follower
from upwell.runtime.control.images import read_mappings
from upwell.runtime.control.metrics import AutoscalerCollector
from upwell.runtime.control.planning import ServingSettings
from upwell.runtime.control.policies import PolicyFollower
from upwell.runtime.control.prometheus import PrometheusServer, PrometheusSource
from upwell.runtime.control.references import FAMILY_KINDS
from upwell.runtime.control.saved import StateKeeper, read_saved
from upwell.runtime.control.serving import ServingController
from upwell.runtime.control.signals import SignalBoard, SignalPoller, UsageSource
from upwell.runtime.descriptors import raise_descriptor_limit
from upwell.runtime.gateway.access_log import AccessLog
from upwell.runtime.gateway.forwarded import ForwardedFields
from upwell.runtime.gateway.gateway import Gateway
from upwell.runtime.gateway.metrics import GatewayCollector
from upwell.runtime.gateway.settings import GatewaySettings
from upwell.runtime.host.launcher import HostLauncher
from upwell.runtime.host.settings import HostSettings
from upwell.runtime.http.listen import bind
from upwell.runtime.http.server import HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.roles.admin import AdminPage
from upwell.runtime.roles.applying import Applied, Applier
from upwell.runtime.roles.scratch import socket_folder
from upwell.runtime.roles.up_settings import LOOPBACK, UpSettings

LOCAL_DEFAULTS: Final = {"allow-zero-initial-scale": "true", "initial-scale": "0"}
"""A template that has imported the function proves more than a first replica, so none is started for it."""
LEAST_STOP_SECONDS: Final = 0.5
"""For replicas to run their shutdown when requests have used up the drain's time."""
START_SECONDS: Final = 60.0
"""For all that is stored to be known: thousands of objects take about a second."""
FALLBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
"""What a function that is alone on the platform answers to besides its own hosts."""

_BECOMES_READY: Final = (*FAMILY_KINDS, INGRESS)

_log = logging.getLogger("upwell.platform")


@dataclass(frozen=True, slots=True)
class PlatformState:
    """Where a platform keeps what its functions need, and what their processes have."""

    directory: Path
    """Holds the copies of sources, and sockets."""
    objects: ObjectStore | None = None
    """Stays the giver's to close; None is a store in memory."""
    logs: Path | None = None
    """The folder of what functions print; None leaves it to the platform's own output."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of functions' processes, besides the platform's own."""
    autoscaler: Path | None = None
    """The file of what the autoscaler remembers; None forgets it with the platform."""


class Platform:
    """Everything that one machine needs, until `stop`."""

    def __init__(
        self,
        settings: UpSettings,
        state: PlatformState,
        clock: Clock,
        *,
        access_log: AccessLog,
        decided: Callable[[Decision], None] = lambda decision: None,
        gateway: GatewaySettings = GatewaySettings(),
    ) -> None:
        self.settings = settings
        self.directory = state.directory
        bundles = state.directory / "bundles"
        self._layers = ConfigLayers(settings.domains, LOCAL_DEFAULTS, settings.autoscaler)
        config = platform_config({}, self._layers)
        images = read_mappings(settings.images, "--images", os.getcwd())
        prometheus = PrometheusServer.parse(settings.prometheus, "--prometheus") if settings.prometheus else None
        self.forwarded = ForwardedFields(settings.trusted_proxies, settings.private_from)
        self._certificate = settings.certificate()
        self._cleanup = contextlib.ExitStack()
        sockets = self._cleanup.enter_context(socket_folder(state.directory))
        self.objects: ObjectStore = MemoryStore(clock) if state.objects is None else state.objects
        self.launcher = HostLauncher(HostSettings(), clock, environment=state.environment)
        self.cluster = LocalCluster(
            self.objects,
            self.launcher,
            bundles=bundles,
            sockets=sockets,
            clock=clock,
            reports=lambda report: self.autoscaler.report(report),
            settings=LocalClusterSettings(
                templates=settings.templates, show_errors=settings.show_errors, logs=state.logs
            ),
        )
        self._applier = Applier(self.objects, bundles, self._layers, images)
        self.signals = SignalBoard(clock)
        self._pollers = {
            "usage": SignalPoller(self.signals, UsageSource(self.cluster, UsageMeter().measure, clock), clock),
            "prometheus": SignalPoller(self.signals, PrometheusSource(prometheus), clock),
        }
        self._saved = state.autoscaler
        self.autoscaler = AutoscalerLoop(
            config.autoscaler,
            self.cluster,
            clock,
            decided=decided,
            signals=self.signals,
            saved=read_saved(state.autoscaler) if state.autoscaler is not None else {},
        )
        http = HttpSettings(max_body_bytes=settings.max_body_bytes)
        self.gateway = Gateway(
            name=f"gateway-{os.getpid()}",
            clock=clock,
            autoscaling=self.autoscaler,
            access_log=access_log,
            http=http,
            cluster=self.cluster,
            settings=gateway,
            mesh=settings.mesh(),
            forwarded=self.forwarded,
        )
        self.cluster.observe(self.gateway)
        self.cluster.observe(self.autoscaler)
        self.server = HttpServer(self.gateway.handle, http, clock, refused=self.gateway.unreadable)
        collectors = (
            GatewayCollector(self.gateway),
            ReplicaCollector(self.cluster),
            AutoscalerCollector(self.autoscaler.engine, self.cluster.replicas),
        )
        self.admin = AdminPage(collectors, clock)
        self._port = settings.port
        self._serving = ServingController(self.objects, clock, self._serving_settings(config))
        self._logs = state.logs
        self._clock = clock
        self._listeners: list[socket.socket] = []
        self._tls_listeners: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The gateway's port, once started."""
        return self._port

    async def start(self) -> None:
        """Listen, start the host and the loops, and answer once all that is stored is routed. Raises AddressInUse;
        nothing is left behind then."""
        raise_descriptor_limit()
        try:
            self._listeners = bind(self.settings.host, self.settings.port, "--port")
            self._port = int(self._listeners[0].getsockname()[1])
            if self._certificate is not None:
                self._tls_listeners = bind(self.settings.host, self.settings.tls_port, "--tls-port")
                self.forwarded.https_port = int(self._tls_listeners[0].getsockname()[1])
            await self.admin.start(self._bind_admin())
            host = asyncio.create_task(self.launcher.start(), name="host")
            try:  # while the host's interpreter starts, what is stored is read
                await self._start_loops()
                await host
            finally:
                host.cancel()
                await asyncio.gather(host, return_exceptions=True)
        except BaseException:
            await self.stop()
            raise
        await self.server.start(self._listeners)
        if self._certificate is not None:
            await self.server.start(self._tls_listeners, self._certificate.context)
        _log.info("listening", extra={"hosts": list(self.settings.host), "port": self.port})

    async def _start_loops(self) -> None:
        """Returns when the gateway knows all that is stored."""
        config = platform_config(await stored_config_maps(self.objects), self._layers)
        self.autoscaler.config = config.autoscaler
        self._serving.settings = self._serving_settings(config)
        follower = Follower(
            self.objects,
            self.gateway,
            self.autoscaler,
            self._clock,
            burst_threshold=lambda revision: burst_threshold(self.autoscaler.config, revision),
            fallback_hosts=FALLBACK_HOSTS,
            loopback_domains=loopback_domains(self._layers.domains),
        )
        policies = PolicyFollower(self.objects, self.gateway, self._clock)

        async def configure(changed: PlatformConfig) -> None:
            self.autoscaler.config = changed.autoscaler
            await follower.refresh()
            await self._serving.configure(self._serving_settings(changed))

        # The cluster first: it knows every Deployment when the gateway answers the first request for one.
        loops = {
            "cluster": self.cluster.run(),
            "gateway": self.gateway.run(),
            "autoscaler": self.autoscaler.run(),
            "serving-watch": self._serving.watch(),
            "serving": self._serving.work(),
            "follow": follower.run(),
            "policies": policies.run(),
            "config": ConfigMapFollower(self.objects, self._layers, config, configure).run(),
        }
        loops |= {name: poller.run() for name, poller in self._pollers.items()}
        if self._certificate is not None:
            loops["certificate"] = self._certificate.run()
        if self._logs is not None:
            loops["logs"] = LogKeeper(self._logs).run()
        if self._saved is not None:
            loops["saved"] = StateKeeper(self._saved, self._save).run()
        self._tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
        programmed = asyncio.create_task(_all_set(follower.is_programmed, policies.is_programmed))
        done, _ = await asyncio.wait(
            [programmed, *self._tasks], return_when=asyncio.FIRST_COMPLETED, timeout=START_SECONDS
        )
        programmed.cancel()
        for task in done:
            task.result()
        if not done:
            raise Unavailable(
                f"what is stored could not be read in {START_SECONDS:.0f} s", where=str(self.directory)
            )

    def _save(self) -> Iterable[tuple[str, Any]]:
        return self.autoscaler.engine.save(self._clock.now())

    def _serving_settings(self, config: PlatformConfig) -> ServingSettings:
        return ServingSettings(config.ingress, self.port, config.autoscaler, retention=config.retention)

    def _bind_admin(self) -> socket.socket:
        try:
            return bind(LOOPBACK[:1], self.settings.admin_port, "--admin-port")[0]
        except AddressInUse:
            if not self.settings.any_admin_port:
                raise
            return bind(LOOPBACK[:1], 0, "--admin-port")[0]

    async def wait(self) -> None:
        """Until one of the loops fails; raises what it raised. The loops are `stop`'s to end."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def apply(
        self,
        manifests: Sequence[Manifest],
        *,
        images: Mapping[str, str] = MappingProxyType({}),
        dry_run: bool = False,
    ) -> list[Applied]:
        """Store what the manifests declare, all of them or none; with `dry_run` only say what that would do.

        `images` says what images stand for, by name: an absolute `PATH[:callable]`, `cmd:COMMAND`, or a JSON
        object with `path`, or with `command` and `directory`. The sources are kept as they are now. An image
        without a mapping keeps the one that its Service has; one that never had one is told of in the Service's
        conditions.
        Raises Refused for the first manifest that is not taken, InvalidSettings for a mapping that cannot be read
        or that no manifest uses, InvalidFunction for a source that cannot be kept, Unavailable when the disk is
        full.
        """
        applied = await self._applier.apply(manifests, images, dry_run=dry_run)
        if not dry_run:
            await asyncio.gather(*(self._serving.heed(each.key) for each in applied if _is_relabelled(each)))
        return applied

    async def delete(self, key: ObjectKey) -> None:
        """Remove an object and all that belongs to it; a Namespace with all that is in it. Raises NotFound."""
        await self._applier.delete(key)

    async def wait_ready(self, key: ObjectKey, timeout: float) -> Manifest:
        """The object once its present generation is ready; at once where its kind is never ready.

        Raises InvalidFunction with the condition's message when the generation failed, NotFound when there is no
        such object (any more), and Unavailable with the last condition when `timeout` seconds were not enough.
        """
        ready: StatusCondition | None = None
        known: Manifest | None = None
        watched = self.objects.watch(key.kind, namespace=key.namespace, name=key.name)
        try:
            async with asyncio.timeout(timeout), contextlib.aclosing(watched) as changes:
                async for change in changes:
                    known = change.manifest if isinstance(change, ObjectChange) else known
                    if known is None:
                        break
                    ready = find_for_generation(known, READY)
                    if key.kind not in _BECOMES_READY or (ready is not None and ready.status == "True"):
                        return known
                    if ready is not None and ready.status == "False":
                        raise InvalidFunction(ready.message or ready.reason)
        except TimeoutError as error:
            said = "nothing is known of it yet" if ready is None else ready.message or f"Ready is {ready.status}"
            hint = f"waited {timeout:g} s; what holds it up: {said}"
            raise Unavailable("it was not ready in time", where=str(key), hint=hint) from error
        raise NotFound(f"{key} does not exist", where=str(key))

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
        for listener in (*self._listeners, *self._tls_listeners):
            listener.close()
        self._cleanup.close()


def _is_relabelled(applied: Applied) -> bool:
    """Whether a Service, Configuration or Route changed and no generation says so."""
    generation = applied.manifest["metadata"].get("generation")
    observed = applied.manifest.get("status", {}).get("observedGeneration")
    return applied.key.kind in FAMILY_KINDS and applied.action == "configured" and observed == generation


async def _all_set(*events: asyncio.Event) -> None:
    for event in events:
        await event.wait()

"""The queue-proxy of a pod: a revision's port, the admin port, and two pages of metrics.

It reads the variables that Knative sets for its own queue-proxy, and can stand in its place. The wiring and
nothing else: `start`, then `wait` until the signal to end, then `stop`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass
from typing import Final

from upwell.autoscaler.stats import RequestStats
from upwell.runtime.clock import Clock
from upwell.runtime.descriptors import raise_descriptor_limit
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.http.listen import bind
from upwell.runtime.http.server import HttpServer
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.queue.settings import QueueSettings
from upwell.runtime.settings import setting
from upwell.runtime.sidecar.checks import Target
from upwell.runtime.sidecar.drain import Drain
from upwell.runtime.sidecar.pages import AdminPage, RevisionPage, StatPage
from upwell.runtime.sidecar.proxy import QueueProxy
from upwell.runtime.sidecar.readiness import ContainerReadiness, read_probes
from upwell.runtime.sidecar.stat import REPORT_SECONDS, StatReporter
from upwell.runtime.timers import TimerWheel

PAGE_SECONDS: Final = 1.0
"""For pages that are being read when all is over."""
KEEP_ALIVE_SECONDS: Final = 120.0
"""An idle connection of a caller. Knative's activator keeps its own for 90 s, and is to be the one that closes."""

_log = logging.getLogger("upwell.queue_proxy")


@dataclass(frozen=True, slots=True)
class QueueProxySettings:
    """What Knative tells its queue-proxy, and where to listen."""

    container_concurrency: int = setting(
        0, "Requests run at once; 0 admits all.", least=0, variable="CONTAINER_CONCURRENCY"
    )
    revision_timeout_seconds: float = setting(
        300.0, "For a whole request, waiting included; 0 is off.", least=0, variable="REVISION_TIMEOUT_SECONDS"
    )
    revision_response_start_timeout_seconds: float = setting(
        0.0,
        "Until the container answers; 0 is off.",
        least=0,
        variable="REVISION_RESPONSE_START_TIMEOUT_SECONDS",
    )
    revision_idle_timeout_seconds: float = setting(
        0.0,
        "Between two bytes of an answer, and until the first; 0 is off.",
        least=0,
        variable="REVISION_IDLE_TIMEOUT_SECONDS",
    )
    user_port: int = setting(
        8080, "Port of the container on 127.0.0.1.", least=1, most=65535, variable="USER_PORT"
    )
    queue_serving_port: int = setting(
        8012,
        "Port for the revision's requests; 0 takes a free one.",
        least=0,
        most=65535,
        variable="QUEUE_SERVING_PORT",
    )
    admin_port: int = setting(8022, "Port of `/wait-for-drain`; 0 takes a free one.", least=0, most=65535)
    autoscaling_metrics_port: int = setting(
        9090, "Port of the page that the autoscaler scrapes; 0 takes a free one.", least=0, most=65535
    )
    user_metrics_port: int = setting(
        9091, "Port of the revision's metrics for Prometheus; 0 takes a free one.", least=0, most=65535
    )
    host: tuple[str, ...] = setting(("0.0.0.0", "::"), "Addresses to listen on; by default a pod's all.")
    serving_readiness_probe: str = setting(
        "",
        "The container's readiness probe as JSON; without one it counts as ready.",
        variable="SERVING_READINESS_PROBE",
    )
    serving_namespace: str = setting("", "Namespace of the revision, for metrics.", variable="SERVING_NAMESPACE")
    serving_service: str = setting("", "Name of its Service.", variable="SERVING_SERVICE")
    serving_configuration: str = setting("", "Name of its Configuration.", variable="SERVING_CONFIGURATION")
    serving_revision: str = setting("", "Name of the revision.", variable="SERVING_REVISION")
    serving_pod: str = setting("", "Name of the pod, by which the autoscaler counts.", variable="SERVING_POD")
    drain_quiet_seconds: float = setting(
        30.0,
        "Without a request, after the signal to end, before the port is closed: load balancers take a while.",
        least=0,
    )

    def limits(self) -> QueueSettings:
        """The revision's limits as the queue core takes them."""
        return QueueSettings(
            container_concurrency=self.container_concurrency,
            timeout_seconds=self.revision_timeout_seconds,
            response_start_timeout_seconds=self.revision_response_start_timeout_seconds,
            idle_timeout_seconds=self.revision_idle_timeout_seconds,
        )

    def labels(self) -> dict[str, str]:
        """The labels of the revision's metrics, in the spelling of Knative's export."""
        return {
            "k8s_namespace_name": self.serving_namespace,
            "kn_service_name": self.serving_service,
            "kn_configuration_name": self.serving_configuration,
            "kn_revision_name": self.serving_revision,
            "k8s_pod_name": self.serving_pod,
        }


class QueueProxyServer:
    """The proxy and its ports. Made in a running loop; `start`, then `stop` once."""

    def __init__(self, settings: QueueProxySettings, clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._clock = clock
        timers = TimerWheel(loop)
        stats = RequestStats(clock.now())
        self._readiness = self._container_readiness()
        http = _http_settings(settings)
        self.proxy = QueueProxy(
            Endpoint(host="127.0.0.1", port=settings.user_port),
            settings.limits(),
            stats,
            timers,
            clock,
            http=http,
            readiness=self._readiness,
        )
        self.drain = Drain(self.proxy, timers, clock, settings.drain_quiet_seconds)
        self._reporter = StatReporter(settings.serving_pod, stats, clock.monotonic())
        self._ticker: asyncio.TimerHandle | None = None
        self._terminating = False
        self._main = HttpServer(self.proxy.handle, http, clock)
        admin = AdminPage(self.drain, timers, lambda: self._terminating)
        self._servers = {
            "main": (self._main, settings.queue_serving_port, "--queue-serving-port"),
            "admin": (HttpServer(admin.handle, HttpSettings(), clock), settings.admin_port, "--admin-port"),
            "stat": (
                HttpServer(StatPage(self._reporter).handle, HttpSettings(), clock),
                settings.autoscaling_metrics_port,
                "--autoscaling-metrics-port",
            ),
            "metrics": (
                HttpServer(RevisionPage(self.proxy, settings.labels()).handle, HttpSettings(), clock),
                settings.user_metrics_port,
                "--user-metrics-port",
            ),
        }
        self.ended = False
        self.ports: dict[str, int] = {}
        """By name: `main`, `admin`, `stat`, `metrics`; once started."""

    async def start(self) -> None:
        """Listen on every port. Raises AddressInUse and InvalidSettings; nothing is left behind then."""
        raise_descriptor_limit()
        try:
            for name, (server, port, flag) in self._servers.items():
                listeners = bind(self._settings.host, port, flag)
                self.ports[name] = listeners[0].getsockname()[1]
                await server.start(listeners)
        except BaseException:
            for server, _, _ in self._servers.values():
                server.close()
            raise
        self._tick(asyncio.get_running_loop())
        _log.info("listening", extra={"port": self.ports["main"], "user_port": self._settings.user_port})

    async def stop(self) -> None:
        """Drain, then `close`, which finishes what is under way for as long as a request may take."""
        self._terminating = True
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.drain.begin(functools.partial(_resolve, over))
        _log.info("draining", extra={"quiet_s": self._settings.drain_quiet_seconds})
        await over  # as long as requests come, which is what the quiet time is for
        await self.close(self._settings.revision_timeout_seconds or KEEP_ALIVE_SECONDS)

    async def close(self, grace: float) -> None:
        """Close the ports, and end once what is under way is done or after `grace` seconds."""
        now = self._clock.monotonic()
        pages = [server for name, (server, _, _) in self._servers.items() if name != "main"]
        await asyncio.gather(
            self._main.drain(now + grace), *(server.drain(now + min(grace, PAGE_SECONDS)) for server in pages)
        )
        if self._ticker is not None:
            self._ticker.cancel()
        await self._readiness.aclose()
        await self.proxy.aclose()
        self.ended = True
        _log.info("ended")

    def _container_readiness(self) -> ContainerReadiness:
        settings = self._settings
        declared = settings.serving_readiness_probe
        probes = read_probes(declared, settings.user_port) if declared else ()
        return ContainerReadiness(probes, Target(settings.user_port), self._clock)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticker = loop.call_later(REPORT_SECONDS, self._report, loop)

    def _report(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reporter.report(self._clock.now(), self._clock.monotonic())
        self._tick(loop)


def _http_settings(settings: QueueProxySettings) -> HttpSettings:
    """Slow bodies are the revision's timeout's to end, not the engine's."""
    longest = max(HttpSettings().body_timeout, settings.revision_timeout_seconds)
    return HttpSettings(keep_alive=KEEP_ALIVE_SECONDS, body_timeout=longest, write_timeout=longest)


def _resolve(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


async def serve(settings: QueueProxySettings, clock: Clock, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then end with care."""
    server = QueueProxyServer(settings, clock)
    await server.start()
    await stopping.wait()
    await server.stop()

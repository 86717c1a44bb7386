"""`upwell up`: the platform, its state in a directory, until Ctrl-C."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click
import uvloop

from upwell import __version__
from upwell.runtime import collector
from upwell.runtime.api.place import data_path
from upwell.runtime.api.server import ApiServer, bind_socket
from upwell.runtime.api.shapes import SOCKET, PlatformInfo
from upwell.runtime.cli.console import Replicas, RunConsole
from upwell.runtime.cli.ending import first, stop_on_signals
from upwell.runtime.cli.flags import read_settings, settings_flags
from upwell.runtime.cli.options import data_option
from upwell.runtime.clock import Clock, SystemClock
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.cluster.sqlite import SqliteStore
from upwell.runtime.gateway.access_log import JsonAccessLog, TerminalAccessLog
from upwell.runtime.lines import LineWriter, NoLines
from upwell.runtime.logs import configure
from upwell.runtime.roles.data import DataDirectory, sweep_bundles, sweep_logs
from upwell.runtime.roles.up import Platform, PlatformState
from upwell.runtime.roles.up_settings import UpSettings

EXAMPLES = """
\b
Examples:
  upwell up
  upwell up --port 9000 --data ./state
  UPWELL_DATA=./state upwell up --json-logs
\b
Then, from another terminal: upwell deploy, apply, get, describe, explain, logs, invoke, delete.
Exit codes: 0 ended by a signal; 1 it cannot run, such as a port or a directory in use; 2 the input is wrong.
"""

_log = logging.getLogger("upwell.platform")


@click.command(epilog=EXAMPLES)
@settings_flags(UpSettings)
@data_option("--data", "--data-dir")
@click.option("--json-logs", is_flag=True, help="Log JSON lines to standard error, the access log included.")
def up(data: str | None, json_logs: bool, **flags: Any) -> None:
    """Run the platform.

    Its objects, their sources and what they print stay in its directory, and are there again when it is started
    again. Only commands of the same user reach it, through a socket in that directory.
    """
    settings = read_settings(UpSettings, flags)
    configure(level="info" if json_logs else "warning", json_lines=json_logs)
    with DataDirectory.open(data_path(data, os.environ)) as directory:
        uvloop.run(_serve(settings, directory, json_logs))


async def _serve(settings: UpSettings, directory: DataDirectory, json_logs: bool) -> None:
    clock = SystemClock()
    lines = LineWriter(sys.stderr.fileno() if json_logs else sys.stdout.fileno())
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    console = UpConsole(NoLines() if json_logs else lines, colour=colour)
    stopping = stop_on_signals()
    store = SqliteStore(directory.objects, clock)
    try:
        sweep_bundles(store, directory)
        services = [each["metadata"] for each in await store.list(SERVICE)]
        sweep_logs([(each["namespace"], each["name"]) for each in services], directory)
        platform = Platform(
            settings,
            PlatformState(directory.path, store, directory.logs, directory.environment, directory.autoscaler),
            clock,
            access_log=JsonAccessLog(clock, lines) if json_logs else TerminalAccessLog(lines, colour=colour),
            decided=console.decided,
        )
        platform.cluster.observe(console)

        async def serve() -> None:
            await platform.start()
            collector.settle()
            await _serve_interface(platform, console, clock)

        try:
            await first(serve(), stopping.wait())
            console.stopping(platform.server.statistics().active, settings.drain_seconds)
        finally:
            await platform.stop()
    finally:
        await store.aclose()
        lines.close()


async def _serve_interface(platform: Platform, console: UpConsole, clock: Clock) -> None:
    """Take commands until cancelled, or until the platform fails."""
    info = PlatformInfo(
        version=__version__,
        pid=os.getpid(),
        directory=str(platform.directory),
        hosts=platform.settings.host,
        port=platform.port,
        admin_port=platform.admin.port,
        tls_port=platform.forwarded.https_port,
    )
    interface = ApiServer(platform, info, clock)
    interface.start(bind_socket(platform.directory))
    _log.info("taking commands", extra={"socket": str(platform.directory / SOCKET)})
    try:
        console.listening(info, len(await platform.objects.list(SERVICE)), platform.cluster)
        await first(platform.wait(), interface.wait())
    finally:
        await interface.stop()


class UpConsole(RunConsole):
    """What a person sees of a platform."""

    def listening(self, info: PlatformInfo, services: int, cluster: Replicas) -> None:
        """It answers from now on; from now on replicas are told of."""
        self._cluster = cluster
        self._print("●", "green", f"upwell {info.version} (process {info.pid}), state in {info.directory}")
        hosts = [f"[{host}]" if ":" in host else host for host in info.hosts]
        urls = " ".join(f"http://{host}:{info.port}" for host in hosts)
        if info.tls_port is not None:
            urls += "".join(f" https://{host}:{info.tls_port}" for host in hosts)
        self._print(" ", None, f"gateway on {urls}; metrics on http://127.0.0.1:{info.admin_port}/metrics")
        count = "1 service" if services == 1 else f"{services} services"
        self._print(" ", None, f"{count}; Ctrl-C ends it")

"""`upwell run`: a function, or a manifest's Services, on a platform of its own, until Ctrl-C."""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from upwell.autoscaler.spec import AutoscalerConfig
from upwell.functions.errors import InvalidSettings, UpwellError
from upwell.runtime import collector
from upwell.runtime.cli.apply import image_mappings
from upwell.runtime.cli.console import RunConsole
from upwell.runtime.cli.ending import first, stop_on_signals
from upwell.runtime.cli.flags import read_settings, settings_flags
from upwell.runtime.cli.local import LocalDeployment, LocalSource, local_source
from upwell.runtime.cli.options import complete_file, pairs
from upwell.runtime.cli.reload import Reloader
from upwell.runtime.clock import SystemClock
from upwell.runtime.gateway.access_log import JsonAccessLog, TerminalAccessLog
from upwell.runtime.lines import LineWriter, NoLines
from upwell.runtime.logs import configure
from upwell.runtime.roles.scratch import scratch_directory
from upwell.runtime.roles.up import Platform, PlatformState
from upwell.runtime.roles.up_settings import UpSettings

_log = logging.getLogger("upwell.platform")

NOTICE_SECONDS: Final = 0.5
"""Of silence before a person wonders."""

EXAMPLES = """
\b
Examples:
  upwell run examples/hello                  a directory, whose main.py is found
  upwell run hello.py:greet --port 9000      one callable of a file
  upwell run hello.py --reload               what is saved is served
  upwell run service.yaml --image registry.example.com/hello:1.0=examples/hello
  upwell run hello.py --set stable-window=6s --set scale-to-zero-grace-period=1s
"""


@click.command(epilog=EXAMPLES)
@click.argument("path", metavar="PATH[:callable]", shell_complete=complete_file)
@settings_flags(
    UpSettings, only=("port", "host", "admin_port", "domains", "templates", "drain_seconds", "prometheus")
)
@click.option("--reload", is_flag=True, help="Serve what is saved as a new revision.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of Knative's config-autoscaler, as stable-window=30s.",
)
@click.option("--env", "-e", "variables", multiple=True, metavar="NAME=VALUE", help="A variable for the function.")
@click.option(
    "--image",
    "mappings",
    multiple=True,
    metavar="NAME=PATH|NAME=cmd:COMMAND",
    help="For a manifest: what runs for an image.",
)
@click.option("--json-logs", is_flag=True, help="Log JSON lines to standard error, the access log included.")
def run(
    path: str,
    reload: bool,
    assignments: tuple[str, ...],
    variables: tuple[str, ...],
    mappings: tuple[str, ...],
    json_logs: bool,
    **flags: Any,
) -> None:
    """Serve the function in PATH, a .py file or a directory, or the Services of a manifest, from zero and back to
    zero."""
    settings = dataclasses.replace(
        read_settings(UpSettings, flags),
        show_errors=True,
        # A second run beside the first takes another port for its metrics, unless one was asked for.
        name_policies=True,
        any_admin_port=flags["admin_port"] is None and "UPWELL_ADMIN_PORT" not in os.environ,
        autoscaler=_autoscaler_keys(pairs(assignments, "--set")),
    )
    source = local_source(path, pairs(variables, "--env"), image_mappings(mappings))
    configure(level="info" if json_logs else "warning", json_lines=json_logs)
    if not json_logs:
        logging.getLogger("upwell.cluster").setLevel(logging.ERROR)  # the console tells it
    with scratch_directory() as directory:
        uvloop.run(_serve(settings, source, directory, json_logs, reload))


def _autoscaler_keys(pairs: dict[str, str]) -> dict[str, str]:
    """A ConfigMap may hold keys that are not ours; on a command line one is a mistake."""
    known = {field.metadata["key"] for field in dataclasses.fields(AutoscalerConfig)}
    for key in pairs:
        if key not in known:
            alike = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
            hint = f"Did you mean {alike[0]}?" if alike else f"There are: {', '.join(sorted(known))}."
            raise InvalidSettings(f"config-autoscaler has no key {key}", where="--set", hint=hint)
    return pairs


async def _serve(
    settings: UpSettings,
    source: LocalSource,
    directory: Path,
    json_logs: bool,
    reload: bool,
) -> None:
    clock = SystemClock()
    lines = LineWriter(sys.stderr.fileno() if json_logs else sys.stdout.fileno())
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    console = RunConsole(NoLines() if json_logs else lines, colour=colour)
    access_log = JsonAccessLog(clock, lines) if json_logs else TerminalAccessLog(lines, colour=colour)
    stopping = stop_on_signals()
    platform = Platform(
        settings,
        PlatformState(directory),
        clock,
        access_log=access_log,
        decided=console.decided,
    )
    platform.cluster.observe(console)
    deploying = LocalDeployment(platform, source, directory / "bundles", console.warned)

    async def serve() -> None:
        await platform.start()
        collector.settle()
        await first(deploy(), platform.wait())

    async def deploy() -> None:
        applied = await deploying.apply()
        notice = asyncio.get_running_loop().call_later(NOTICE_SECONDS, console.importing, source.name)
        try:
            await applied.serving()
        except UpwellError as error:
            if not reload:
                raise
            console.to_be_mended(error)
        finally:
            notice.cancel()
        urls = await deploying.urls()
        console.serving(urls, platform.port, platform.admin.port, platform.cluster)
        _log.info("serving", extra={"urls": urls, "port": platform.port})
        if reload:
            await Reloader(deploying.apply, applied.directories, console, clock).run()
        await stopping.wait()

    try:
        await first(serve(), stopping.wait())
        console.stopping(platform.server.statistics().active, settings.drain_seconds)
    finally:
        await platform.stop()
        lines.close()

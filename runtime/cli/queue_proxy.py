"""`upwell queue-proxy`: the sidecar of a pod, in place of Knative's.

What it imports is what it costs in each pod, so it leaves alone what the other commands need.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import click
import uvloop

from upwell.runtime.cli.flags import read_settings, settings_flags
from upwell.runtime.clock import SystemClock
from upwell.runtime.logs import configure
from upwell.runtime.roles.queue_proxy import QueueProxySettings, serve

EXAMPLES = """
\b
Examples:
  USER_PORT=8080 CONTAINER_CONCURRENCY=10 upwell queue-proxy
  upwell queue-proxy --user-port 8080 --queue-serving-port 8012 --host 127.0.0.1
"""


@click.command(name="queue-proxy", epilog=EXAMPLES)
@settings_flags(QueueProxySettings)
def queue_proxy(**flags: Any) -> None:
    """Stand before a program as Knative's queue-proxy does: admit, queue, time out, probe, drain, count.

    It reads the variables that Knative sets for its own queue-proxy.
    """
    settings = read_settings(QueueProxySettings, flags)
    configure(level="info", json_lines=True)
    uvloop.run(_serve(settings))


async def _serve(settings: QueueProxySettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await serve(settings, SystemClock(), stopping)

"""The run of `upwell load` on an event loop of its own, and the picture of it."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path

import click

from upwell.functions.errors import InvalidInput
from upwell.runtime.charts import png
from upwell.runtime.clock import SystemClock
from upwell.runtime.descriptors import raise_descriptor_limit
from upwell.runtime.load.generator import generate
from upwell.runtime.load.plan import Load
from upwell.runtime.load.plots import charts, draw_svg
from upwell.runtime.load.precise import precise_loop
from upwell.runtime.load.report import LoadReport


def run(load: Load) -> LoadReport:
    """Run it to its end or to a signal."""

    async def until_stopped() -> LoadReport:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await generate(load, SystemClock(), stop)

    raise_descriptor_limit()
    gc.freeze()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(until_stopped())


def draw(report: LoadReport, file: Path) -> None:
    """A picture of the run. Raises InvalidInput when the file cannot be written."""
    drawn = charts(report)
    try:
        if file.suffix.lower() == ".svg":
            file.write_text(draw_svg(drawn), encoding="utf-8")
        else:
            file.write_bytes(png.draw(drawn, title=report.url))
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(file)) from error
    click.echo(f"{file} written", err=True)

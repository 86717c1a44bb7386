"""`upwell topology`: what flows from clients over the gateway to revisions, once or again and again."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from upwell.functions.errors import Unavailable
from upwell.runtime.api.client import Client
from upwell.runtime.api.topology import Edge, Topology
from upwell.runtime.api.topology import topology as flows
from upwell.runtime.cli.following import RESUME_SECONDS, RETRY_SECONDS
from upwell.runtime.cli.options import complete_file, duration, namespace_option, with_client
from upwell.runtime.cli.table import printable, table
from upwell.runtime.cli.topology_words import headings, in_reading_order, outcomes_of, rate, row, shares
from upwell.runtime.clock import SystemClock
from upwell.runtime.gateway.topology import Snapshot

EXAMPLES = """
\b
Examples:
  upwell topology
  upwell topology -w
  upwell topology --interval 30s -o json
  upwell topology -w --html topology.html
  upwell topology -o dot | dot -Tsvg > topology.svg
"""
LEAST_INTERVAL: Final = 0.1
"""Seconds; shorter ones say little about rates."""
TO_THE_TOP: Final = "\x1b[H"
TO_THE_LINES_END: Final = "\x1b[K"
TO_THE_END: Final = "\x1b[J"
CLEAR: Final = "\x1b[2J"
CUT_LINES: Final = "\x1b[?7l"
"""At the terminal's right border, until WRAP_LINES."""
WRAP_LINES: Final = "\x1b[?7h"


def _interval(context: click.Context, parameter: click.Parameter, text: str) -> float:
    seconds = duration(text)
    if seconds < LEAST_INTERVAL:
        raise click.BadParameter(f"{text!r} is shorter than {LEAST_INTERVAL:g}s")
    return seconds


@click.command(name="topology", epilog=EXAMPLES)
@click.option("--watch", "-w", is_flag=True, help="Go on, each interval anew, until Ctrl-C.")
@click.option(
    "--interval",
    callback=_interval,
    metavar="DURATION",
    default="2s",
    show_default=True,
    help="Of what time rates are told, and how long it takes to tell them.",
)
@click.option(
    "--output",
    "-o",
    type=click.Choice(["json", "dot"]),
    help="Instead of the table; with -w JSON is a line each time.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    shell_complete=complete_file,
    metavar="FILE",
    help="Write a page with the graph into FILE; with -w again each time, and a browser loads it again.",
)
@click.option(
    "--all", "-a", "everything", is_flag=True, help="Revisions too that nothing leads to and nobody asks."
)
@namespace_option
@with_client
def topology(
    client: Client,
    watch: bool,
    interval: float,
    output: str | None,
    html: Path | None,
    everything: bool,
    namespace: str | None,
) -> None:
    """Tell what flows from clients to revisions, and what becomes of it.

    A request succeeded, or was limited by a policy, met an open circuit or ejected replicas (broken), failed, was
    left by its client, or was for no route; the policies that refused are named.
    """
    screen = _Screen(watch and output is None and sys.stdout.isatty())
    for shown in _shown(client, interval, namespace, everything=everything):
        if html is not None:
            _write(html, shown, max(1, round(interval)) if watch else None)
            if not watch:
                click.echo(f"{html} written", err=True)
        if output == "json":
            click.echo(json.dumps(shown.to_json(), indent=None if watch else 2, ensure_ascii=False))
        elif output == "dot":
            from upwell.runtime.cli.topology_dot import dot

            click.echo(dot(shown), nl=False)
        elif html is None or watch:
            screen.show([*_lines(shown)])
        if not watch:
            return
        sys.stdout.flush()


def _shown(client: Client, interval: float, namespace: str | None, *, everything: bool) -> Iterator[Topology]:
    """The flows of one interval after the other."""
    before = _snapshot(client, namespace)
    while True:
        time.sleep(interval)
        after = _resumed(client, namespace)
        found = flows(before, after)
        yield found if everything else found.active()
        before = after


def _snapshot(client: Client, namespace: str | None) -> Snapshot:
    found = Snapshot.from_lines(client.topology())
    return found if namespace is None else found.within(namespace)


def _resumed(client: Client, namespace: str | None) -> Snapshot:
    """Over a platform that may be started again meanwhile. Raises Unavailable when none runs for a while."""
    clock = SystemClock()
    deadline = clock.monotonic() + RESUME_SECONDS
    while True:
        try:
            return _snapshot(client, namespace)
        except Unavailable:
            if clock.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


class _Screen:
    """Prints one picture after the other: in its place on a terminal, below it elsewhere."""

    def __init__(self, in_place: bool) -> None:
        self._in_place = in_place
        self._shown = False

    def show(self, lines: list[str]) -> None:
        """Print these lines. A terminal that is too small for them shows the first ones."""
        if self._in_place:
            kept = lines[: max(1, shutil.get_terminal_size().lines - 1)]
            begin = TO_THE_TOP if self._shown else CLEAR + TO_THE_TOP
            body = "".join(f"{line}{TO_THE_LINES_END}\n" for line in kept)
            click.echo(f"{CUT_LINES}{begin}{body}{TO_THE_END}{WRAP_LINES}", nl=False)
        else:
            if self._shown:
                click.echo()
            for line in lines:
                click.echo(line)
        self._shown = True


def _lines(shown: Topology) -> Iterator[str]:
    yield click.style(f"{rate(shown.whole.flow.rate)} requests a second, over {shown.seconds:.1f} s", bold=True)
    outcomes = outcomes_of(shown)
    source, target, *others = headings(outcomes)
    columns = [source, target, "route", "split", *others, "refused by"]
    rows = []
    for edge, node in in_reading_order(shown):
        source, target, *others = row(edge, node, outcomes)
        rows.append([source, target, node.home, shares(node, of=node.home), *others, _refusing(edge)])
    yield from table([column.upper() for column in columns], rows).split("\n")
    for out in (each for node in shown.nodes if node.record for each in node.record.ejected):
        yield click.style(printable(f"{out.replica} is out: {out.reason} ({out.policy})"), fg="yellow")


def _refusing(edge: Edge) -> str:
    return ", ".join(f"{each.policy} ({rate(each.rate)})" for each in edge.flow.refusing if each.rate > 0)


def _write(path: Path, shown: Topology, refresh: int | None) -> None:
    """Whole or not at all, since a browser may be reading. Raises Unavailable."""
    from upwell.runtime.cli.topology_page import page

    text = page(shown, refresh)
    target = path.resolve()
    part = target.with_name(f".{target.name}.part")
    try:
        if target.exists() and not target.is_file():  # a pipe, or a device
            target.write_text(text, encoding="utf-8")
            return
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise Unavailable(f"the page cannot be written: {error.strerror}", where=str(path)) from error

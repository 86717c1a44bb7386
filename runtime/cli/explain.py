"""`upwell explain`: why a service has the replicas that it has, and what would change that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from upwell.functions.errors import InvalidInput
from upwell.runtime.api.client import Client
from upwell.runtime.api.explanation import Explained, Explanation
from upwell.runtime.cli.named import DEFAULT_NAMESPACE, scaled_object
from upwell.runtime.cli.options import complete_name, duration, namespace_option, with_client
from upwell.runtime.cli.reasons import amount, changes, clock, headline, path, reason, unread
from upwell.runtime.cli.table import table

EXAMPLES = """
\b
Examples:
  upwell explain hello
  upwell explain rev/hello-00001 --since 1h
  upwell explain hello -o json
  upwell explain hello --plot hello.png
"""
INDENT: Final = "  "
MOST_ROWS: Final = 20
"""Of decisions, unless it is said since when: as many as a person reads."""
MILLISECONDS: Final = 1000.0


@click.command(epilog=EXAMPLES)
@click.argument("name", shell_complete=complete_name)
@click.option(
    "--since",
    type=duration,
    metavar="DURATION",
    help="Only what was decided in this time, such as 10m; else all that is kept, of which the last are printed.",
)
@click.option("--output", "-o", type=click.Choice(["json", "yaml"]), help="The whole record, times in UTC.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda context, parameter, given: _picture(given),
    metavar="FILE.png",
    help="Draw load, capacity, replicas, panic and starts into FILE.png; of several revisions, one file each.",
)
@namespace_option
@with_client
def explain(
    client: Client,
    name: str,
    since: float | None,
    output: str | None,
    plot: Path | None,
    namespace: str | None,
) -> None:
    """Tell why a service has the replicas that it has, and what would change that.

    NAME is a service, whose revisions with replicas or traffic are told of, or a revision.
    """
    kind, name = scaled_object(name)
    told = client.explain(namespace or DEFAULT_NAMESPACE, name, kind=kind, since=since)
    explained = Explained.from_json(told)
    if plot is not None:
        _draw(explained, plot)
    if output is not None:
        click.echo(_encoded(told, output), nl=False)
        return
    for index, each in enumerate(explained.revisions):
        if index:
            click.echo()
        for line in _lines(each, explained.now, MOST_ROWS if since is None else None):
            click.echo(line)


def _picture(file: Path | None) -> Path | None:
    if file is not None and file.suffix.lower() != ".png":
        raise click.BadParameter("a plot is a PNG: write FILE.png")
    return file


def _draw(explained: Explained, file: Path) -> None:
    """Raises InvalidInput when a file cannot be written."""
    from upwell.runtime.charts.png import draw  # what draws is imported where something is drawn
    from upwell.runtime.cli.plots import charts

    for told in explained.revisions:
        one = len(explained.revisions) == 1
        path = file if one else file.with_stem(f"{file.stem}-{told.revision}")
        try:
            path.write_bytes(draw(charts(told, explained.now), title=f"{told.namespace}/{told.revision}"))
        except OSError as error:
            raise InvalidInput(f"cannot be written: {error.strerror}", where=str(path)) from error
        click.echo(f"{path} written", err=True)


def _encoded(told: dict[str, Any], output: str) -> str:
    if output == "json":
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    import yaml  # half of a command's time to start, and only here

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(told, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _lines(told: Explanation, now: float, most: int | None) -> Iterator[str]:
    yield click.style(headline(told, now), bold=True)
    yield from (click.style(note, fg="yellow") for note in told.notes)
    yield from path(told)
    yield from _what_would_change_it(told, now)
    yield from _metrics(told)
    yield from _starts(told)
    yield from _decisions(told, now, most)


def _what_would_change_it(told: Explanation, now: float) -> Iterator[str]:
    rows = changes(told, now)
    if rows:
        width = max(len(what) for what, _ in rows)
        yield "What would change it:"
        yield from (f"{INDENT}{what:{width}}   {when}" for what, when in rows)


def _metrics(told: Explanation) -> Iterator[str]:
    signals = told.latest.signals
    if not signals:
        return
    above = {each.metric: amount(each.value) for each in (told.outlook.signals if told.outlook else ())}
    rows = [
        [
            each.metric,
            "unknown" if each.missing else amount(each.value),
            amount(each.target),
            "" if each.missing else str(each.want),
            above.get(each.metric, ""),
            "asks for the most" if each.metric == told.latest.binding else unread(each.missing),
        ]
        for each in signals
    ]
    yield "Metrics:"
    yield table(["METRIC", "IN ALL", "A REPLICA", "WANT", "MORE ABOVE", ""], rows, INDENT)


def _starts(told: Explanation) -> Iterator[str]:
    taken = sorted(each.seconds for each in told.starts)
    if taken:
        middle = taken[len(taken) // 2] * MILLISECONDS
        most = taken[-1] * MILLISECONDS
        if len(taken) == 1:
            yield f"Starts:  1 replica was started, in {most:.0f} ms"
        else:
            spread = f"{middle:.0f} ms at the median, {most:.0f} ms at most"
            yield f"Starts:  {len(taken)} replicas were started, in {spread}"


def _decisions(told: Explanation, now: float, most: int | None) -> Iterator[str]:
    latest = told.latest
    shown = [*told.history] if most is None else [*told.history[-most:]]
    earlier = len(told.history) - len(shown)
    if not shown:
        return
    of_one = latest.stable_window == 0
    loads = ["VALUE"] if of_one else [f"LOAD {each:g}s" for each in (latest.stable_window, latest.panic_window)]
    headers = ["TIME", *loads, "READY", "WANT", "SCALE", "REASON"]
    rows = [
        [
            clock(each.at, now),
            *(
                amount(value) if each.valid else "unknown"
                for value in ((each.stable_value,) if of_one else (each.stable_value, each.panic_value))
            ),
            str(each.ready),
            "" if each.desired is None else str(each.desired),
            "as is" if each.scale is None else str(each.scale),
            reason(each, told.settings, now),
        ]
        for each in shown
    ]
    yield f"Decisions ({earlier} earlier ones with --since):" if earlier else "Decisions:"
    yield table(headers, rows, INDENT)

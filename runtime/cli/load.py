"""`upwell load`: requests at a rate or on so many connections, and what came of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from upwell.runtime.api.client import Client
from upwell.runtime.cli.options import complete_file, complete_name, duration, with_client_beside_data

EXAMPLES = """
\b
Examples:
  upwell load httpbin --path /status/200 -qps 10 -c 8 -n 100
  upwell load http://127.0.0.1:8080/ -H 'Host: hello.default.example.com' -c 32 -t 10s
  upwell load hello -qps 200 --arrivals poisson -t 1m --plot hello.png --json > hello.json
  upwell load orders --event com.example.order --data @order.json -qps 50 -n 1000
  upwell load httpbin -qps 600 -t 30s --class guest:'user_type: guest' --class subscriber:'user_type: subscriber'
  upwell load hello -qps 50 -t 10s --fail-on 'failed>1%' --fail-on 'p99>250ms'
\b
Exit codes: 0 the load ran, whatever came of it; 1 a --fail-on is met, or nothing took a connection;
2 the input is wrong.
"""
MOST_CONNECTIONS: Final = 20_000
MOST_RATE: Final = 1e6
PICTURES: Final = (".png", ".svg")


@click.command(epilog=EXAMPLES)
@click.argument("target", metavar="NAME|URL", shell_complete=complete_name)
@click.option(
    "--rate",
    "--qps",
    "-qps",
    "rate",
    type=click.FloatRange(0, MOST_RATE),
    metavar="RATE",
    help="Requests a second, sent when they are due whatever the answers do (open loop); 0 sends as fast as the"
    " connections answer (closed loop).  [default: 8; 0 when -c is given]",
)
@click.option(
    "--connections",
    "-c",
    type=click.IntRange(1, MOST_CONNECTIONS),
    help="Requests under way at once, at most.  [default: 1000; 4 in a closed loop]",
)
@click.option(
    "--time",
    "-t",
    "seconds",
    type=duration,
    metavar="DURATION",
    help="For so long; 0 until Ctrl-C.  [default: 5s]",
)
@click.option(
    "--requests",
    "-n",
    "count",
    type=click.IntRange(0),
    help="Exactly so many, however long it takes; 0 goes by -t.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["constant", "poisson"]),
    default="constant",
    show_default=True,
    help="At equal distances, or each at a moment of its own.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of Poisson arrivals.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="A header of each request.")
@click.option(
    "--data", "-d", "--payload", "-payload", "body", metavar="TEXT|@FILE|-", help="The body, or an event's data."
)
@click.option("--method", "-X", help="[default: POST with a body or an event, else GET]")
@click.option("--path", default="/", show_default=True, help="Path and query on a service.")
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME:HEADER:VALUE[:SHARE]",
    help="Part of the load with this header, reported apart; shares divide rate, connections and count.",
)
@click.option("--event", metavar="TYPE", help="Send CloudEvents of this type, whose ids count up.")
@click.option(
    "--event-mode",
    type=click.Choice(["binary", "structured"]),
    default="binary",
    show_default=True,
    help="Attributes as headers, or the whole event as JSON.",
)
@click.option("--source", default="upwell-load", show_default=True, help="The events' source.")
@click.option("--id", "id_prefix", metavar="PREFIX", help="What ids begin with.  [default: a random one]")
@click.option("--extension", "extensions", multiple=True, metavar="NAME=VALUE", help="A further attribute.")
@click.option(
    "--timeout",
    "-timeout",
    type=duration,
    default="15s",
    show_default=True,
    help="For a connection, and for an answer from when its request was sent.",
)
@click.option("--no-keepalive", is_flag=True, help="A connection of its own for each request.")
@click.option("--insecure", "-k", is_flag=True, help="Take any certificate.")
@click.option("--cacert", metavar="FILE", shell_complete=complete_file, help="Whose certificates to take, as PEM.")
@click.option(
    "--fail-on",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if it is met: [CLASS:]succeeded, limited, broken, failed, unsent or late, as a number or"
    " with %; mean, p50 to p99.9 or max, with ms or s; or rate; then < or > and the limit.",
)
@click.option("--output", "-o", type=click.Choice(["json"]), help="Print the whole report as JSON.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda context, parameter, given: _picture(given),
    metavar="FILE.png|FILE.svg",
    help="Draw rates by outcome and durations over time.",
)
@click.option("--namespace", metavar="NAME", help="Of the service.  [default: default]")
@with_client_beside_data
def load(
    client: Client, conditions: tuple[str, ...], output: str | None, as_json: bool, plot: Path | None, **given: Any
) -> None:
    """Send requests to a service or a URL at a rate or on so many connections, and tell what came of them.

    Durations count from when a request was due. Ctrl-C ends the run and prints what there is.
    """
    # Imported here, since what sends is more than what explains itself.
    from upwell.runtime.cli.load_lines import lines
    from upwell.runtime.cli.load_plan import Given, plan_load
    from upwell.runtime.cli.load_run import draw, run
    from upwell.runtime.load.conditions import read_condition

    limits = [read_condition(each) for each in conditions]
    plan = plan_load(client, Given(**given))
    for limit in limits:
        limit.check(plan)
    report = run(plan)
    if output == "json" or as_json:
        click.echo(report.encode(), nl=False)
    else:
        for line in lines(report):
            click.echo(line)
    if plot is not None:
        draw(report, plot)
    violated = [told for told in (each.violated(report) for each in limits) if told is not None]
    for told in violated:
        click.secho("Failed: ", fg="red", bold=True, nl=False, err=True)
        click.echo(told, err=True)
    if violated:
        sys.exit(1)


def _picture(file: Path | None) -> Path | None:
    if file is not None and file.suffix.lower() not in PICTURES:
        raise click.BadParameter("a plot is a PNG or an SVG: write FILE.png or FILE.svg")
    return file

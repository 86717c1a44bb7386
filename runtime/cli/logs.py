"""`upwell logs`: what the replicas of a service printed."""

from __future__ import annotations

import sys
from typing import Final

import click

from upwell.runtime.api.client import Client
from upwell.runtime.cli.named import DEFAULT_NAMESPACE, service_name
from upwell.runtime.cli.options import complete_name, namespace_option, with_client
from upwell.runtime.cluster.kinds import REVISION
from upwell.runtime.cluster.labels import SERVICE_LABEL

EXAMPLES = """
\b
Examples:
  upwell logs hello
  upwell logs hello -f --tail 20
  upwell logs hello --revision hello-00002
"""
_COLOURS: Final = ("cyan", "magenta", "blue", "yellow", "green")


@click.command(epilog=EXAMPLES)
@click.argument("name", shell_complete=complete_name)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only so many lines of each revision.")
@click.option("--revision", metavar="NAME", help="Of this revision alone.")
@namespace_option
@with_client
def logs(
    client: Client, name: str, follow: bool, tail: int | None, revision: str | None, namespace: str | None
) -> None:
    """Print what a service printed.

    Where it has several revisions, each line begins with its own.
    """
    name, namespace = service_name(name), namespace or DEFAULT_NAMESPACE
    lines = client.logs(namespace, name, revision=revision, tail=tail, follow=follow)
    colours: dict[str, str] = {}
    prefixed = revision is None and len(client.list(REVISION, namespace, {SERVICE_LABEL: name})) > 1
    for line in lines:
        told = line["revision"]
        colour = colours.setdefault(told, _COLOURS[len(colours) % len(_COLOURS)])
        prefixed = prefixed or len(colours) > 1
        prefix = click.style(f"{told} | ", fg=colour) if prefixed else ""
        click.echo(f"{prefix}{line['line']}")
    sys.stdout.flush()

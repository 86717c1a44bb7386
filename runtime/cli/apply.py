"""`upwell apply`: manifests become objects, all of them or none."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import click

from upwell.functions.errors import InvalidSettings, UpwellError
from upwell.functions.manifest import Manifest
from upwell.runtime.api.client import Client
from upwell.runtime.api.shapes import Outcome, RefusedBatch
from upwell.runtime.cli.files import fault_lines, read_manifests
from upwell.runtime.cli.options import complete_file, duration, namespace_option, with_client
from upwell.runtime.cli.waiting import Awaited, wait_ready
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.control.images import COMMAND_PREFIX, parse_mapping

EXAMPLES = """
\b
Examples:
  upwell apply -f service.yaml --wait
  upwell apply -f manifests/ -R --dry-run
  upwell apply -f service.yaml --image registry.example.com/hello=./hello.py:greet
  upwell apply -f service.yaml --image registry.example.com/web='cmd:node server.js'
  cat service.yaml | upwell apply -f - -n team
\b
Exit codes: 0 applied (and ready, with --wait); 2 the input is wrong and nothing was applied; 1 anything else.
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    shell_complete=complete_file,
    help="YAML or JSON; a directory's .yaml, .yml and .json files in the order of their names; - standard input.",
)
@click.option("--recursive", "-R", is_flag=True, help="Read the subdirectories of a directory too.")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME=SOURCE",
    help="What runs for an image: PATH[:callable], Python source; or cmd:COMMAND, a program listening on $PORT.",
)
@click.option("--wait", is_flag=True, help="Wait until the services are ready, and print their URLs.")
@click.option("--timeout", type=duration, default="60s", show_default=True, help="For --wait.")
@click.option("--dry-run", is_flag=True, help="Check everything, and say what would be done.")
@namespace_option
@with_client
def apply(
    client: Client,
    files: tuple[str, ...],
    recursive: bool,
    images: tuple[str, ...],
    wait: bool,
    timeout: float,
    dry_run: bool,
    namespace: str | None,
) -> None:
    """Create or change what manifests declare."""
    manifests = read_manifests(files, recursive=recursive, namespace=namespace)
    outcomes = apply_manifests(client, manifests, image_mappings(images), dry_run=dry_run)
    if wait and not dry_run:
        wait_for_services(client, outcomes, timeout)


def apply_manifests(
    client: Client, manifests: Sequence[Manifest], images: dict[str, str], *, dry_run: bool
) -> list[Outcome]:
    """Apply them and print what became of each; when they are refused, each field at fault, and exit with 2."""
    try:
        outcomes = client.apply([manifest.data for manifest in manifests], images=images, dry_run=dry_run)
    except RefusedBatch as error:
        for line in fault_lines(manifests, error.faults):
            click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(line, err=True)
        sys.exit(error.exit_code)
    print_outcomes(outcomes, dry_run=dry_run)
    return outcomes


def print_outcomes(outcomes: Sequence[Outcome], *, dry_run: bool) -> None:
    """A line for each object, and its warnings on standard error."""
    for outcome in outcomes:
        for warning in outcome.warnings:
            click.secho("Warning: ", fg="yellow", nl=False, err=True)
            click.echo(f"{outcome.kind.lower()}/{outcome.name}: {warning}", err=True)
        note = " (dry run)" if dry_run else ""
        click.echo(f"{outcome.kind.lower()}/{outcome.name} {outcome.action}{note}")


def wait_for_services(client: Client, outcomes: Sequence[Outcome], timeout: float) -> None:
    """Print the URL of each Service once it is ready; exit with 1 when one is not, after all were tried."""
    clock = SystemClock()
    deadline = clock.monotonic() + timeout
    failed: list[UpwellError] = []
    for outcome in outcomes:
        if outcome.kind == SERVICE:
            try:
                awaited = Awaited(outcome.namespace, outcome.name, outcome.generation)
                click.echo(wait_ready(client, awaited, deadline, clock))
            except UpwellError as error:
                failed.append(error)
    if failed:
        *others, last = failed
        for each in others:
            click.echo(f"Error: {each}", err=True)
        raise last


def image_mappings(images: Sequence[str]) -> dict[str, str]:
    """`NAME=SOURCE` arguments as they travel: paths absolute, commands with the present directory.

    Raises InvalidSettings.
    """
    found = {}
    for assignment in images:
        name, equals, source = assignment.partition("=")
        if not equals or not name or not source:
            hint = "Write NAME=PATH[:callable] or NAME=cmd:COMMAND."
            raise InvalidSettings(f"{assignment!r} maps no image", where="--image", hint=hint)
        parse_mapping(source, f"--image {name}")
        if source.startswith(COMMAND_PREFIX):
            told = {"command": source.removeprefix(COMMAND_PREFIX), "directory": os.getcwd()}
        else:
            told = {"path": os.path.abspath(os.path.expanduser(source))}
        found[name] = json.dumps(told)
    return found

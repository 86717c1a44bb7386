"""`upwell deploy`: a local function becomes a Service of the running platform."""

from __future__ import annotations

import json

import click

from upwell.functions.api.names import is_dns_1035_label
from upwell.functions.errors import InvalidSettings
from upwell.functions.project import locate
from upwell.runtime.api.client import Client
from upwell.runtime.api.shapes import Outcome, RefusedBatch
from upwell.runtime.cli.apply import print_outcomes, wait_for_services
from upwell.runtime.cli.functions import function_image, function_service, source_path
from upwell.runtime.cli.named import DEFAULT_NAMESPACE
from upwell.runtime.cli.options import complete_file, duration, namespace_option, pairs, with_client

EXAMPLES = """
\b
Examples:
  upwell deploy hello.py --wait
  upwell deploy examples/hello --name greeter --env GREETING=Hi
  upwell deploy hello.py:greet -n team
"""


@click.command(epilog=EXAMPLES)
@click.argument("path", metavar="PATH[:callable]", shell_complete=complete_file)
@click.option("--name", help="Of the service.  [default: that of the file or directory]")
@click.option("--env", "-e", "variables", multiple=True, metavar="NAME=VALUE", help="A variable for the function.")
@click.option("--wait", is_flag=True, help="Wait until it is ready, and print its URL.")
@click.option("--timeout", type=duration, default="60s", show_default=True, help="For --wait.")
@namespace_option
@with_client
def deploy(
    client: Client,
    path: str,
    name: str | None,
    variables: tuple[str, ...],
    wait: bool,
    timeout: float,
    namespace: str | None,
) -> None:
    """Put a local function on the running platform.

    The source is copied as it is now; deploying it again after a change makes a new revision.
    """
    outcomes = deploy_function(client, path, name, pairs(variables, "--env"), namespace or DEFAULT_NAMESPACE)
    print_outcomes(outcomes, dry_run=False)
    if wait:
        wait_for_services(client, outcomes, timeout)


def deploy_function(
    client: Client, path: str, name: str | None, environment: dict[str, str], namespace: str
) -> list[Outcome]:
    """Apply the Service of the function in `path`. Raises InvalidFunction and InvalidSettings."""
    project = locate(path)
    if name is not None and not is_dns_1035_label(name):
        hint = "Letters, digits and '-', beginning with a letter, at most 63."
        raise InvalidSettings(f"{name!r} cannot name a service", where="--name", hint=hint)
    name = name or project.name
    mapped = {"path": source_path(project)}
    manifest = function_service(name, {**dict(project.environment), **environment}, namespace=namespace)
    try:
        return client.apply([manifest], images={function_image(name): json.dumps(mapped)})
    except RefusedBatch as error:
        raise InvalidSettings(error.what, where=error.where, hint=error.hint) from error

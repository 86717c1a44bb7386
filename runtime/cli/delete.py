"""`upwell delete`: objects go, and what belongs to them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import click

from upwell.functions.errors import InvalidInput, NotFound
from upwell.runtime.api.client import Client
from upwell.runtime.api.resources import Resource, resource_of
from upwell.runtime.cli.named import Named, named_objects
from upwell.runtime.cli.options import complete_file, complete_kind, complete_name, namespace_option, with_client
from upwell.runtime.cluster.kinds import CONFIGURATION, REVISION, type_of
from upwell.runtime.cluster.labels import CONFIGURATION_LABEL, ROUTES_ANNOTATION

EXAMPLES = """
\b
Examples:
  upwell delete ksvc hello
  upwell delete ksvc hello goodbye -n team
  upwell delete -f service.yaml --ignore-not-found
"""


@click.command(epilog=EXAMPLES)
@click.argument("kind", required=False, shell_complete=complete_kind)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_name)
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    shell_complete=complete_file,
    help="Delete what these declare.",
)
@click.option("--recursive", "-R", is_flag=True, help="Read the subdirectories of a directory too.")
@click.option("--ignore-not-found", is_flag=True, help="Take it for deleted when it does not exist.")
@namespace_option
@with_client
def delete(
    client: Client,
    kind: str | None,
    names: tuple[str, ...],
    files: tuple[str, ...],
    recursive: bool,
    ignore_not_found: bool,
    namespace: str | None,
) -> None:
    """Remove objects and what belongs to them.

    Requests under way are answered; nothing new reaches what is removed.
    """
    if bool(kind) == bool(files):
        raise click.UsageError("Give KIND and NAME, or --file.")
    missing: NotFound | None = None
    for each in _named_in(files, recursive, namespace) if files else named_objects(kind or "", names, namespace):
        try:
            routes = _routes_to(client, each)
            client.delete(each.resource.type, each.namespace, each.name)
            click.echo(f"{each} deleted")
            if routes:
                click.echo(f"Warning: {each}: {_left_without(routes)}", err=True)
        except NotFound:
            if not ignore_not_found:
                missing = missing or each.missing()
    if missing is not None:
        raise missing


def _routes_to(client: Client, deleted: Named) -> Sequence[str]:
    """The routes that name a revision which no configuration would make anew. Raises NotFound."""
    if deleted.resource.type != REVISION:
        return ()
    metadata = client.get(REVISION, deleted.namespace, deleted.name)["metadata"]
    owner = metadata.get("labels", {}).get(CONFIGURATION_LABEL, "")
    with contextlib.suppress(NotFound):
        status = client.get(CONFIGURATION, deleted.namespace, owner).get("status", {})
        if status.get("latestCreatedRevisionName") == deleted.name:
            return ()
    return [name for name in metadata.get("annotations", {}).get(ROUTES_ANNOTATION, "").split(",") if name]


def _left_without(routes: Sequence[str]) -> str:
    named = f"the route {routes[0]} names" if len(routes) == 1 else f"the routes {', '.join(routes)} name"
    return f"{named} it in its traffic; name another revision there (spec.traffic of the Service or Route)"


def _named_in(files: tuple[str, ...], recursive: bool, namespace: str | None) -> list[Named]:
    from upwell.runtime.cli.files import read_manifests  # pydantic: only here is it needed

    found = []
    for manifest in read_manifests(files, recursive=recursive, namespace=namespace):
        resource: Resource | None = resource_of(type_of(manifest.data))
        if resource is None:
            message = f"there is no kind {manifest.kind} of {manifest.api_version} here"
            raise InvalidInput(message, where=manifest.where(("kind",)))
        own = manifest.data["metadata"].get("namespace", "") if resource.has_namespace else ""
        found.append(Named(resource, own, manifest.name))
    return found

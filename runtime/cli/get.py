"""`upwell get`: a table of objects, or the objects themselves, once or as they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from upwell.functions.errors import NotFound
from upwell.runtime.api.client import Client
from upwell.runtime.api.resources import Resource
from upwell.runtime.cli.following import Change, follow
from upwell.runtime.cli.named import DEFAULT_NAMESPACE, Named, find_resource, named_objects
from upwell.runtime.cli.options import complete_kind, complete_name, namespace_option, with_client
from upwell.runtime.cli.output import as_json, as_yaml
from upwell.runtime.cli.selector import carries, parse_labels
from upwell.runtime.cli.table import Table
from upwell.runtime.cli.views import columns, row
from upwell.runtime.clock import SystemClock

EXAMPLES = """
\b
Examples:
  upwell get ksvc
  upwell get ksvc hello -o yaml
  upwell get king hello -o yaml
  upwell get rev -l serving.knative.dev/service=hello -o wide
  upwell get ksvc -w
  upwell get services.serving.knative.dev -A -o name
"""


@click.command(epilog=EXAMPLES)
@click.argument("kind", shell_complete=complete_kind)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_name)
@click.option("--output", "-o", type=click.Choice(["wide", "yaml", "json", "name"]), help="Instead of the table.")
@click.option("--watch", "-w", is_flag=True, help="Go on with what changes, until Ctrl-C.")
@click.option("--all-namespaces", "-A", is_flag=True, help="Of all namespaces.")
@click.option("--selector", "-l", "labels", multiple=True, metavar="LABEL=VALUE", help="Only what carries it.")
@namespace_option
@with_client
def get(
    client: Client,
    kind: str,
    names: tuple[str, ...],
    output: str | None,
    watch: bool,
    all_namespaces: bool,
    labels: tuple[str, ...],
    namespace: str | None,
) -> None:
    """List objects, or show them.

    KIND is ksvc, cfg, rt, rev, king, deploy, cm, ns, dr, vs or a policy's (asmlocalratelimiters, ...), or its full
    name, as services.serving.knative.dev.
    """
    kind, slash, name = kind.partition("/")
    chosen = named_objects(f"{kind}{slash}{name}", names, namespace) if slash or names else []
    resource = find_resource(kind)
    where = None if all_namespaces or not resource.has_namespace else namespace or DEFAULT_NAMESPACE
    asked = _Asked(resource, where, frozenset(each.name for each in chosen), parse_labels(labels))
    printer = _Printer(asked, output)
    if watch:
        _watch(client, asked, printer)
    elif chosen:
        _show_chosen(client, chosen, printer)
    else:
        printer.show(client.list(resource.type, where, asked.labels))


class _Asked(NamedTuple):
    resource: Resource
    namespace: str | None
    """None for all."""
    names: frozenset[str]
    """Empty for all."""
    labels: dict[str, str]

    def takes(self, change: Change) -> bool:
        named = not self.names or change.name in self.names
        return named and (change.manifest is None or carries(change.manifest, self.labels))


def _show_chosen(client: Client, chosen: Sequence[Named], printer: _Printer) -> None:
    """Those that are there; then the error of the first that is not."""
    found, missing = [], None
    for each in chosen:
        try:
            found.append(client.get(each.resource.type, each.namespace, each.name))
        except NotFound:
            missing = missing or NotFound("not found", where=str(each))
    if found or missing is None:
        printer.show(found)
    if missing is not None:
        raise missing


def _watch(client: Client, asked: _Asked, printer: _Printer) -> None:
    only = next(iter(asked.names)) if len(asked.names) == 1 else None
    followed = follow(client, asked.resource.type, asked.namespace, only, SystemClock())
    first = next(followed)
    printer.show([each.manifest for each in first if each.manifest is not None and asked.takes(each)])
    for changes in followed:
        for change in filter(asked.takes, changes):
            printer.changed(change)


class _Printer:
    """Prints objects in the form that was asked for."""

    def __init__(self, asked: _Asked, output: str | None) -> None:
        self._asked = asked
        self._output = output
        with_namespace = asked.namespace is None and asked.resource.has_namespace
        self._columns = columns(asked.resource.type, wide=output == "wide", with_namespace=with_namespace)
        self._table = Table([column.header for column in self._columns])
        self._clock = SystemClock()
        self._shown: set[tuple[str, str]] = set()
        self._has_header = False

    def show(self, manifests: Sequence[dict[str, Any]]) -> None:
        """What there is."""
        self._shown |= {_key(each) for each in manifests}
        if self._output in ("yaml", "json"):
            one = bool(self._asked.names) and len(manifests) == 1
            click.echo(as_yaml(manifests) if self._output == "yaml" else as_json(manifests, one=one), nl=False)
        elif manifests:
            self._rows(manifests)
        else:
            place = f" in {self._asked.namespace} namespace" if self._asked.namespace else ""
            click.echo(f"No resources found{place}.", err=True)

    def changed(self, change: Change) -> None:
        """What it is now, or that it is gone."""
        key = (change.namespace, change.name)
        if change.manifest is None:
            if key in self._shown and self._output not in ("yaml", "json"):
                self._shown.discard(key)
                click.echo(f"{self._asked.resource.told(change.name)} deleted")
        elif self._output in ("yaml", "json"):
            yaml = self._output == "yaml"
            click.echo(
                f"---\n{as_yaml([change.manifest])}" if yaml else as_json([change.manifest], one=True), nl=False
            )
        else:
            self._shown.add(key)
            self._rows([change.manifest])

    def _rows(self, manifests: Sequence[dict[str, Any]]) -> None:
        if self._output == "name":
            for each in manifests:
                click.echo(self._asked.resource.told(each["metadata"]["name"]))
            return
        now = self._clock.now()
        rows = [row(self._columns, each, now) for each in manifests]
        if not self._has_header:
            self._has_header = True
            click.echo(self._table.header(rows))
        for line in self._table.lines(rows):
            click.echo(line)


def _key(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]

"""`upwell get`: a table of objects, or the objects themselves, once or as they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click

from upwell.functions.errors import InvalidInput, NotFound
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
  upwell get ksvc,rt,king hello
  upwell get ksvc hello -o yaml
  upwell get king hello -o yaml
  upwell get rev -l serving.knative.dev/service=hello -o wide
  upwell get ksvc -w
  upwell get services.serving.knative.dev -A -o name
"""
_ALL: Final = "ksvc,cfg,rev,rt,deploy"

Object = dict[str, Any]


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
    name, as services.serving.knative.dev; several with commas between them, or all of what a Service consists of.
    """
    kinds, slash, name = kind.partition("/")
    if kinds.lower() == "all" and not slash:
        kinds = _ALL
    asked = [
        _asked(f"{each}{slash}{name}", names, None if all_namespaces else namespace or DEFAULT_NAMESPACE, labels)
        for each in kinds.split(",")
    ]
    if not watch:
        _show(client, asked, output)
    elif len(asked) > 1:
        raise InvalidInput("only one kind can be watched at a time", where=kind, hint="Write one kind, or no -w.")
    else:
        _watch(client, asked[0], _Printer(asked[0], output))


class _Asked(NamedTuple):
    """What is asked for of one kind."""

    resource: Resource
    namespace: str | None
    """None for all."""
    chosen: Sequence[Named]
    """Empty for all."""
    labels: dict[str, str]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(each.name for each in self.chosen)

    def takes(self, change: Change) -> bool:
        named = not self.chosen or change.name in self.names
        return named and (change.manifest is None or carries(change.manifest, self.labels))


def _asked(kind: str, names: Sequence[str], namespace: str | None, labels: Sequence[str]) -> _Asked:
    chosen = named_objects(kind, names, namespace) if names or "/" in kind else ()
    resource = find_resource(kind.partition("/")[0])
    where = namespace if resource.has_namespace else None
    return _Asked(resource, where, chosen, parse_labels(labels))


def _show(client: Client, asked: Sequence[_Asked], output: str | None) -> None:
    """What there is of each kind; then the error of the first object that is not."""
    looked = [_look(client, each) for each in asked]
    found = [manifest for manifests, _ in looked for manifest in manifests]
    missing = next((error for _, error in looked if error is not None), None)
    if output in ("yaml", "json"):
        if found or missing is None:
            _print_documents(found, output, one=bool(asked[0].chosen) and len(found) == 1)
    elif found:
        _print_tables([(each, manifests) for each, (manifests, _) in zip(asked, looked, strict=True)], output)
    elif missing is None:
        _say_nothing_found(asked[0].namespace)
    if missing is not None:
        raise missing


def _print_tables(found: Sequence[tuple[_Asked, Sequence[Object]]], output: str | None) -> None:
    """One for each kind of which there is something; with several kinds asked for, names say which."""
    shown = [(asked, manifests) for asked, manifests in found if manifests]
    for index, (asked, manifests) in enumerate(shown):
        if index and output != "name":
            click.echo()
        _Printer(asked, output, with_kind=len(found) > 1).rows(manifests)


def _print_documents(manifests: Sequence[Object], output: str, *, one: bool) -> None:
    click.echo(as_yaml(manifests) if output == "yaml" else as_json(manifests, one=one), nl=False)


def _look(client: Client, asked: _Asked) -> tuple[list[Object], NotFound | None]:
    if not asked.chosen:
        return client.list(asked.resource.type, asked.namespace, asked.labels), None
    found, missing = [], None
    for each in asked.chosen:
        try:
            found.append(client.get(each.resource.type, each.namespace, each.name))
        except NotFound:
            missing = missing or each.missing()
    return found, missing


def _say_nothing_found(namespace: str | None) -> None:
    place = f" in {namespace} namespace" if namespace else ""
    click.echo(f"No resources found{place}.", err=True)


def _watch(client: Client, asked: _Asked, printer: _Printer) -> None:
    only = next(iter(asked.names)) if len(asked.names) == 1 else None
    followed = follow(client, asked.resource.type, asked.namespace, only, SystemClock())
    first = next(followed)
    printer.first([each.manifest for each in first if each.manifest is not None and asked.takes(each)])
    for changes in followed:
        for change in filter(asked.takes, changes):
            printer.changed(change)


class _Printer:
    """Prints objects of a kind in the form that was asked for, and then what becomes of them."""

    def __init__(self, asked: _Asked, output: str | None, *, with_kind: bool = False) -> None:
        self._asked = asked
        self._output = output
        self._columns = columns(
            asked.resource.type,
            wide=output == "wide",
            with_namespace=asked.namespace is None and asked.resource.has_namespace,
            told=asked.resource.told if with_kind else str,
        )
        self._table = Table([column.header for column in self._columns])
        self._clock = SystemClock()
        self._shown: set[tuple[str, str]] = set()
        self._has_header = False

    def first(self, manifests: Sequence[Object]) -> None:
        """What there is to begin with."""
        self._shown |= {_key(each) for each in manifests}
        if self._output in ("yaml", "json"):
            one = bool(self._asked.chosen) and len(manifests) == 1
            _print_documents(manifests, self._output, one=one)
        elif manifests:
            self.rows(manifests)
        else:
            _say_nothing_found(self._asked.namespace)

    def changed(self, change: Change) -> None:
        """What it is now, or that it is gone."""
        key = (change.namespace, change.name)
        if change.manifest is None:
            if key in self._shown and self._output not in ("yaml", "json"):
                self._shown.discard(key)
                click.echo(f"{self._asked.resource.told(change.name)} deleted")
        elif self._output in ("yaml", "json"):
            if self._output == "yaml":
                click.echo("---")
            _print_documents([change.manifest], self._output, one=True)
        else:
            self._shown.add(key)
            self.rows([change.manifest])

    def rows(self, manifests: Sequence[Object]) -> None:
        """Lines of the table, below its header when they are the first; or names."""
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


def _key(manifest: Object) -> tuple[str, str]:
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]

"""`upwell describe`: everything that there is to know of an object, for a person to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from upwell.functions.errors import NotFound, UpwellError
from upwell.runtime.api.client import Client
from upwell.runtime.api.explanation import Explained
from upwell.runtime.cli.named import Named, named_objects
from upwell.runtime.cli.options import complete_kind, complete_name, namespace_option, with_client
from upwell.runtime.cli.output import as_yaml
from upwell.runtime.cli.reasons import headline
from upwell.runtime.cli.routing import (
    RULE_HEADERS,
    TRAFFIC_HEADERS,
    rollout_lines,
    rule_rows,
    traffic_rows,
)
from upwell.runtime.cli.table import age, duration, printable, table
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.kinds import INGRESS, REVISION, ROUTE, SERVICE
from upwell.runtime.cluster.labels import SERVICE_LABEL
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION
from upwell.runtime.control.conditions import READY, find

EXAMPLES = """
\b
Examples:
  upwell describe ksvc hello
  upwell describe rev hello-00001
"""
LAST_LINES: Final = 5
"""Of what it printed: enough to see why it failed."""
INDENT: Final = "  "


@click.command(epilog=EXAMPLES)
@click.argument("kind", shell_complete=complete_kind)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_name)
@namespace_option
@with_client
def describe(client: Client, kind: str, names: tuple[str, ...], namespace: str | None) -> None:
    """Tell what there is to know about an object.

    Of a service: its conditions, traffic and what of it is on its way to a new revision, revisions, why it has its
    replicas, these, and what it printed last.
    """
    now = SystemClock().now()
    for index, named in enumerate(named_objects(kind, names, namespace)):
        if index:
            click.echo()
        for line in _description(client, named, now):
            click.echo(line)


def _description(client: Client, named: Named, now: float) -> Iterator[str]:
    manifest = client.get(named.resource.type, named.namespace, named.name)
    yield from _head(manifest, named, now)
    if named.resource.type == SERVICE:
        yield from _service(client, manifest, now)
    elif named.resource.type == REVISION:
        yield from _revision(client, manifest, now)
    elif named.resource.type == ROUTE:
        yield from _conditions(manifest, now)
        yield from _traffic(client, manifest, now)
    elif named.resource.type == INGRESS:
        yield from _conditions(manifest, now)
        yield from _section("Rules", RULE_HEADERS, rule_rows(manifest))
        yield from _rollout(manifest, now)
    else:
        yield from _conditions(manifest, now)
        yield from _content(manifest)


def _head(manifest: Mapping[str, Any], named: Named, now: float) -> Iterator[str]:
    metadata, status = manifest["metadata"], manifest.get("status", {})
    created = metadata.get("creationTimestamp")
    fields: dict[str, object] = {
        "Name": metadata["name"],
        "Namespace": metadata.get("namespace"),
        "Kind": f"{manifest['kind']} ({manifest['apiVersion']})",
        "Labels": _pairs(metadata.get("labels")),
        "Annotations": _pairs(metadata.get("annotations")),
        "Age": f"{age(created, now)} (since {created})" if created else None,
        "URL": status.get("url"),
        "Address": status.get("address", {}).get("url"),
    }
    fields |= _containers(manifest)
    yield from _fields(fields)


def _pairs(mapping: Mapping[str, str] | None) -> str:
    shown = {name: value for name, value in (mapping or {}).items() if name != SOURCE_ANNOTATION}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def _fields(fields: Mapping[str, object]) -> Iterator[str]:
    told = {name: value for name, value in fields.items() if value not in (None, "")}
    width = max(map(len, told)) + 1
    for name, value in told.items():
        yield f"{name + ':':{width}}  {printable(str(value))}"


def _containers(manifest: Mapping[str, Any]) -> dict[str, object]:
    """What runs, of a Service or of a Revision."""
    template = manifest.get("spec", {}).get("template") or manifest
    spec = template.get("spec", {})
    if not spec.get("containers"):
        return {}
    container = spec["containers"][0]
    annotations = template.get("metadata", {}).get("annotations") or {}
    return {
        "Image": container.get("image"),
        "Source": _source(annotations),
        "Environment": ", ".join(f"{each['name']}={each.get('value', '')}" for each in container.get("env", ())),
        "Concurrency": spec.get("containerConcurrency") or "not limited",
        "Timeout": f"{spec['timeoutSeconds']} s" if spec.get("timeoutSeconds") else None,
        "Autoscaling": _pairs({k: v for k, v in annotations.items() if k.startswith("autoscaling.")}),
    }


def _source(annotations: Mapping[str, str]) -> str:
    """What the source annotation says, in words; as it is when it is of an unknown form."""
    text = annotations.get(SOURCE_ANNOTATION)
    if text is None:
        return "none: its image stands for nothing here"
    try:
        told = json.loads(text)
        if "command" in told:
            directory = f" in {told['directory']}" if told.get("directory") else ""
            return " ".join(told["command"]) + directory
        attribute = f", {told['attribute']}" if told.get("attribute") else ""
        return f"module {told['module']}{attribute} of {told.get('origin') or 'a bundle'} ({told['bundle'][:12]})"
    except (ValueError, TypeError, KeyError):
        return text


def _service(client: Client, manifest: Mapping[str, Any], now: float) -> Iterator[str]:
    metadata = manifest["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    revisions = client.list(REVISION, namespace, {SERVICE_LABEL: name})
    replicas = {
        each["metadata"]["name"]: client.replicas(namespace, each["metadata"]["name"]) for each in revisions
    }
    yield from _conditions(manifest, now)
    yield from _traffic(client, manifest, now)
    rows = [_revision_row(each, len(replicas[each["metadata"]["name"]]), now) for each in revisions]
    yield from _section("Revisions", ["NAME", "READY", "REASON", "REPLICAS", "AGE"], rows)
    yield from _scaling(client, namespace, name, SERVICE)
    yield from _replicas([one for each in replicas.values() for one in each], now)
    yield from _last_lines(client, namespace, name, None)


def _traffic(client: Client, manifest: Mapping[str, Any], now: float) -> Iterator[str]:
    """Of a Service or a Route, and what of it is on its way."""
    yield from _section("Traffic", TRAFFIC_HEADERS, traffic_rows(manifest))
    try:
        ingress = client.get(INGRESS, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
    except NotFound:
        return  # nothing is ready yet
    yield from _rollout(ingress, now)


def _rollout(ingress: Mapping[str, Any], now: float) -> Iterator[str]:
    lines = [*rollout_lines(ingress, now)]
    if lines:
        yield "Rollout:"
        yield from (f"{INDENT}{line}" for line in lines)


def _scaling(client: Client, namespace: str, name: str, kind: str) -> Iterator[str]:
    """Why there are as many replicas as there are, as `explain` begins."""
    try:
        told = Explained.from_json(client.explain(namespace, name, kind=kind, since=0.0))
    except UpwellError:
        return  # nothing was decided yet
    yield "Scaling:"
    yield from (f"{INDENT}{headline(each, told.now)}" for each in told.revisions)


def _revision_row(revision: Mapping[str, Any], replicas: int, now: float) -> list[str]:
    condition = find(dict(revision), READY)
    status, reason = (condition.status, condition.reason) if condition else ("", "")
    metadata = revision["metadata"]
    return [metadata["name"], status, reason, str(replicas), age(metadata.get("creationTimestamp"), now)]


def _revision(client: Client, manifest: Mapping[str, Any], now: float) -> Iterator[str]:
    metadata = manifest["metadata"]
    service = metadata.get("labels", {}).get(SERVICE_LABEL)
    yield from _conditions(manifest, now)
    yield from _scaling(client, metadata["namespace"], metadata["name"], REVISION)
    yield from _replicas(client.replicas(metadata["namespace"], metadata["name"]), now)
    if service is not None:
        yield from _last_lines(client, metadata["namespace"], service, metadata["name"])


def _conditions(manifest: Mapping[str, Any], now: float) -> Iterator[str]:
    rows = [
        [
            each["type"],
            each["status"],
            age(each.get("lastTransitionTime"), now),
            each.get("reason", ""),
            " ".join(each.get("message", "").split("\n")),
        ]
        for each in manifest.get("status", {}).get("conditions", ())
    ]
    yield from _section("Conditions", ["TYPE", "STATUS", "AGE", "REASON", "MESSAGE"], rows)


def _replicas(replicas: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    has_zones = any(each["locality"] for each in replicas)
    rows = [
        [
            each["name"],
            each["state"],
            str(each["pid"] or ""),
            *([each["locality"]] if has_zones else []),
            duration(now - each["started_at"]),
            ", ".join(f"{phase} {milliseconds:.1f} ms" for phase, milliseconds in each["phases"].items()),
        ]
        for each in replicas
    ]
    zone = ["ZONE"] if has_zones else []
    yield from _section("Replicas", ["NAME", "STATE", "PID", *zone, "AGE", "START"], rows)


def _section(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield f"{title}:"
        yield table(headers, rows, INDENT)
    else:
        yield f"{title}:  none"


def _last_lines(client: Client, namespace: str, service: str, revision: str | None) -> Iterator[str]:
    try:
        lines = [*client.logs(namespace, service, revision=revision, tail=LAST_LINES)]
    except UpwellError:
        return  # it was deleted meanwhile
    if lines:
        yield "Last output:"
        for line in lines[-LAST_LINES:]:
            yield f"{INDENT}{line['revision']} | {line['line']}"


def _content(manifest: Mapping[str, Any]) -> Iterator[str]:
    kept = {name: manifest[name] for name in ("data", "spec") if name in manifest}
    if kept:
        yield as_yaml([{**kept, "metadata": {}}]).replace("metadata: {}\n", "").rstrip()

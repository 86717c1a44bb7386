"""What several commands take: where the platform is, a namespace, a duration, and names to complete."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from upwell.functions.errors import InvalidSettings, UpwellError
from upwell.runtime.api.client import Client
from upwell.runtime.api.place import data_path
from upwell.runtime.api.resources import RESOURCES, resource_called

Function = TypeVar("Function", bound=Callable[..., Any])

COMPLETION_SECONDS: Final = 1.0
"""A person who pressed Tab waits no longer for names."""
LONGEST_SECONDS: Final = 366 * 86400.0
_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")


def data_option(*flags: str) -> Callable[[Function], Function]:
    """The option `data`: where the platform's state is."""
    explanation = "Directory of the platform's state.  [default: upwell in the user's data home; env: UPWELL_DATA]"
    return click.option(*flags, "data", metavar="DIR", shell_complete=complete_directory, help=explanation)


def with_client(function: Function) -> Function:
    """Adds `--data`, and passes on the `client` of the platform there."""
    return data_option("--data", "--data-dir")(_client_of_data(function))


def with_client_beside_data(function: Function) -> Function:
    """The same for a command whose own `--data` is another: the directory is `--data-dir` alone."""
    return data_option("--data-dir")(_client_of_data(function))


def _client_of_data(function: Function) -> Function:
    @functools.wraps(function)
    def called(*arguments: Any, data: str | None, **options: Any) -> Any:
        return function(*arguments, client=Client(data_path(data, os.environ)), **options)

    return called  # type: ignore[return-value]  # the same function but for one parameter


def namespace_option(function: Function) -> Function:
    """Adds `--namespace`, None when it was not given."""
    return click.option("--namespace", "-n", metavar="NAME", help="Namespace.  [default: default]")(function)


def duration(text: str) -> float:
    """Seconds, written as `60s`, `2m`, `1m30s` or `500ms`; a number alone is seconds. For an option's type."""
    parts = _DURATION.findall(text)
    whole = "".join(map("".join, parts)) == text
    if not parts or not whole or (len(parts) > 1 and any(not unit for _, unit in parts)):
        raise click.BadParameter(f"{text!r} is no duration; write it as 60s, 2m or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > LONGEST_SECONDS:
        raise click.BadParameter(f"{text!r} is longer than a year")
    return seconds


def pairs(assignments: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=VALUE arguments of `flag` as a mapping. Raises InvalidSettings for one that is not."""
    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise InvalidSettings(f"{assignment!r} is not NAME=VALUE", where=flag)
        found[name] = value
    return found


def complete_file(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Has the shell complete files, which it leaves to commands once they complete anything."""
    return [CompletionItem(begun, type="file")]


def complete_directory(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Has the shell complete directories."""
    return [CompletionItem(begun, type="dir")]


def complete_kind(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The names of kinds, those that people type first."""
    names = [name for each in RESOURCES for name in (*each.short[:1], each.plural)]
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def complete_name(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The names of objects of the kind that stands before, else of Services; none when no platform runs."""
    resource = resource_called(context.params.get("kind") or "ksvc")
    if resource is None:
        return []
    client = Client(data_path(context.params.get("data"), os.environ), COMPLETION_SECONDS)
    namespace = (context.params.get("namespace") or "default") if resource.has_namespace else None
    try:
        found = client.list(resource.type, namespace)
    except UpwellError:
        return []
    names = (each["metadata"]["name"] for each in found)
    return [CompletionItem(name) for name in names if name.startswith(begun)]

"""Which local source or command stands for the image that a manifest names.

A mapping is written NAME=PATH[:callable] or NAME=cmd:COMMAND. NAME means the image that is spelt so, and else
every image that is spelt so without its tag and digest. What a command line maps comes before what the platform's
settings map; within either the later of two with the same name holds.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from upwell.functions.errors import InvalidSettings

COMMAND_PREFIX: Final = "cmd:"


@dataclass(frozen=True, slots=True)
class PathMapping:
    """Python source: `PATH[:callable]`."""

    path: str


@dataclass(frozen=True, slots=True)
class CommandMapping:
    """A program: its words, and the directory that it runs in."""

    command: tuple[str, ...]
    directory: str | None = None


Mapped = PathMapping | CommandMapping


def parse_mapping(text: str, where: str, directory: str | None = None) -> Mapped:
    """What an image is mapped to: `PATH[:callable]`, `cmd:COMMAND`, or one of them as a JSON object with `path`,
    or with `command` and `directory`, as the command line sends it.

    `directory` is where a command runs that says no other. Raises InvalidSettings with `where`.
    """
    if text.startswith("{"):
        text, directory = _from_json(text, where, directory)
    if not text.startswith(COMMAND_PREFIX):
        if not text.strip():
            raise InvalidSettings("nothing is given for the image", where=where, hint=_HINT)
        return PathMapping(text)
    try:
        command = tuple(shlex.split(text.removeprefix(COMMAND_PREFIX)))
    except ValueError as error:
        raise InvalidSettings(f"the command cannot be split into words: {error}", where=where) from error
    if not command:
        raise InvalidSettings("the command is empty", where=where, hint=_HINT)
    if any("\0" in text for text in (*command, directory or "")):
        raise InvalidSettings("the command holds a null character", where=where)
    return CommandMapping(command, directory)


_HINT: Final = "Give NAME=PATH[:callable] or NAME=cmd:COMMAND."


def _from_json(text: str, where: str, directory: str | None) -> tuple[str, str | None]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSettings("not JSON", where=where, hint=_HINT) from error
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise InvalidSettings("must be an object of texts", where=where, hint=_HINT)
    if told.keys() == {"path"} and not told["path"].startswith(COMMAND_PREFIX):
        return told["path"], directory
    if "command" in told and told.keys() <= {"command", "directory"}:
        return COMMAND_PREFIX + told["command"].removeprefix(COMMAND_PREFIX), told.get("directory", directory)
    raise InvalidSettings("must have `path`, or `command` and `directory`", where=where, hint=_HINT)


def read_mappings(assignments: Iterable[str], where: str, directory: str) -> dict[str, Mapped]:
    """Mappings by the name of the image, as settings hold them. Raises InvalidSettings."""
    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise InvalidSettings(f"{assignment!r} is no mapping of an image", where=where, hint=_HINT)
        found[name.strip()] = parse_mapping(value, f"{where} {name.strip()}", directory)
    return found


def find_mapping(image: str, *mappings: Mapping[str, Mapped]) -> tuple[str, Mapped] | None:
    """The name under which `image` is mapped and what it is mapped to, in the first of `mappings` that has it."""
    for each in mappings:
        for name in (image, without_tag(image)):
            if name in each:
                return name, each[name]
    return None


def without_tag(image: str) -> str:
    """The name of an image alone: `host:5000/app:1.0@sha256:…` is `host:5000/app`."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def unmapped_message(image: str) -> str:
    """What is to be said of a Service whose image stands for nothing here."""
    return (
        f'no source or command is mapped to the image "{image}"; '
        f"map it with: upwell apply -f … --image {shlex.quote(image)}=PATH"
    )

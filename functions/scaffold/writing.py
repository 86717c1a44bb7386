"""Writes a function to begin with: its code, a test that passes, and a page that says how to run both.

What is written lies beside this module as it will be: a directory a template, and one for what all of them have.
`$name` in a page becomes the function's name; code needs none.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Final

from upwell.functions.api.names import is_dns_1035_label
from upwell.functions.errors import InvalidInput

TEMPLATES: Final = ("http", "event", "typed", "stream", "asgi")

_COMMON = "common"
_NAMES = {"gitignore": ".gitignore"}
"""Files that have another name here, where git would heed them."""


def write(name: str, template: str, directory: Path) -> list[Path]:
    """Write the function `name` into `directory`, which is made or is empty; the files that were written.

    `template` is one of TEMPLATES. Raises InvalidInput, before anything is written, for another one, a name that a
    Service cannot have, and a directory with something in it; and for one that cannot be written.
    """
    if template not in TEMPLATES:
        hint = f"There are: {', '.join(TEMPLATES)}."
        raise InvalidInput(f"there is no template {template!r}", hint=hint)
    if not is_dns_1035_label(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a function",
            hint="Use a-z, 0-9 and '-', beginning with a letter and ending with no '-', at most 63 characters.",
        )
    try:
        _check_free(directory)
        directory.mkdir(parents=True, exist_ok=True)
        return [_write_file(each, name, directory) for each in _files(template)]
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(directory)) from error


def _check_free(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()):
        hint = "Give another name, or move what is there."
        raise InvalidInput("the directory exists and is not empty", where=str(directory), hint=hint)


def _files(template: str) -> list[Traversable]:
    templates = resources.files("upwell.functions.scaffold") / "templates"
    found = [each for part in (template, _COMMON) for each in (templates / part).iterdir() if each.is_file()]
    return sorted(found, key=lambda each: each.name)


def _write_file(source: Traversable, name: str, directory: Path) -> Path:
    text = source.read_text(encoding="utf-8")
    if source.name.endswith(".md"):
        text = Template(text).substitute(name=name)
    path = directory / _NAMES.get(source.name, source.name)
    path.write_text(text, encoding="utf-8")
    return path

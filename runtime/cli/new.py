"""`upwell new`: a function to begin with."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from upwell.functions.scaffold.writing import TEMPLATES, write
from upwell.runtime.cli.options import complete_directory

EXAMPLES = """
\b
Examples:
  upwell new hello
  upwell new orders --template event
  upwell new prices --template typed --directory services/prices
"""


@click.command(epilog=EXAMPLES)
@click.argument("name")
@click.option(
    "--template",
    "-t",
    type=click.Choice(TEMPLATES),
    default=TEMPLATES[0],
    show_default=True,
    help="What it answers: requests, events, JSON of a type, a stream, or it is an ASGI application.",
)
@click.option(
    "--directory", metavar="DIR", shell_complete=complete_directory, help="Where to write it.  [default: NAME]"
)
def new(name: str, template: str, directory: str | None) -> None:
    """Write a function to begin with, and its test."""
    path = Path(directory or name)
    for written in write(name, template, path):
        click.echo(os.fspath(written))
    place = shlex.quote(str(path))
    install = "python -m pip install -r requirements.txt"
    click.echo(f"\nServe it:  upwell run {place} --reload\nTest it:   cd {place} && {install} && python -m pytest")

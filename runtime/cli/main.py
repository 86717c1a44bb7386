"""The command's entry: subcommands, errors and exit codes.

Errors that upwell raises on purpose are told in their own words, with their exit code; anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import os
import sys

import click

from upwell import __version__
from upwell.functions.errors import UpwellError
from upwell.runtime.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="upwell")
def cli() -> None:
    """Python functions that rise from zero."""


cli.add_command(run)


def main() -> None:
    """Run the command and end the process with its exit code."""
    _open_standard_streams()
    try:
        cli(standalone_mode=False)
    except UpwellError as error:
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


def _open_standard_streams() -> None:
    """A closed descriptor 0, 1 or 2 would be given to a socket, and what is printed would be sent there."""
    opened = os.open(os.devnull, os.O_RDWR)
    while opened <= 2:
        os.set_inheritable(opened, True)
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)

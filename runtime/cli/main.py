"""The command's entry: subcommands, errors and exit codes.

A subcommand's module is imported when it is called, so that `upwell get` does not wait for the platform's code.
Errors that upwell raises on purpose are told in their own words, with their exit code; anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

import click

from upwell import __version__
from upwell.functions.errors import Unavailable, UpwellError

BROKEN_PIPE: Final = 1
"""As click has it where it meets one."""


NO_OUTPUT: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""A full disk behind a redirection, and a terminal that is gone."""


class Subcommand(NamedTuple):
    """Where a command is and what it does, which is the first line of its help."""

    module: str
    summary: str


SUBCOMMANDS: Final[Mapping[str, Subcommand]] = {
    "run": Subcommand(
        "run",
        "Serve the function in PATH, a .py file or a directory, or the Services of a manifest, from zero and back"
        " to zero.",
    ),
    "up": Subcommand("up", "Run the platform."),
    "new": Subcommand("new", "Write a function to begin with, and its test."),
    "deploy": Subcommand("deploy", "Put a local function on the running platform."),
    "apply": Subcommand("apply", "Create or change what manifests declare."),
    "get": Subcommand("get", "List objects, or show them."),
    "describe": Subcommand("describe", "Tell what there is to know about an object."),
    "explain": Subcommand(
        "explain", "Tell why a service has the replicas that it has, and what would change that."
    ),
    "topology": Subcommand("topology", "Tell what flows from clients to revisions, and what becomes of it."),
    "logs": Subcommand("logs", "Print what a service printed."),
    "invoke": Subcommand("invoke", "Send a request or an event to a service and print the answer."),
    "load": Subcommand(
        "load",
        "Send requests to a service or a URL at a rate or on so many connections, and tell what came of them.",
    ),
    "simulate": Subcommand("simulate", "Try the autoscaler and its settings on recorded or made-up traffic."),
    "render": Subcommand("render", "Print what a cluster's mesh would be told for manifests."),
    "delete": Subcommand("delete", "Remove objects and what belongs to them."),
    "queue-proxy": Subcommand(
        "queue_proxy",
        "Stand before a program as Knative's queue-proxy does: admit, queue, time out, probe, drain, count.",
    ),
    "completion": Subcommand("completion", "Print the script that completes commands in a shell."),
}


class Subcommands(click.Group):
    """Commands that are imported when they are called; the list of them needs none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a person meets them."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        found = SUBCOMMANDS.get(cmd_name)
        if found is None:
            return None
        command = getattr(importlib.import_module(f"upwell.runtime.cli.{found.module}"), found.module)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.summary) for name, each in SUBCOMMANDS.items()])


@click.command(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="upwell")
@click.pass_context
def cli(context: click.Context) -> None:
    """Python functions that rise from zero."""
    if os.environ.get("NO_COLOR"):
        context.color = False


def main() -> None:
    """Run the command and end the process with its exit code."""
    _open_standard_streams()
    try:
        cli(prog_name="upwell", complete_var="_UPWELL_COMPLETE", standalone_mode=False)
        sys.stdout.flush()
    except UpwellError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Nobody reads on; what is still buffered must not fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if error.errno not in NO_OUTPUT or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _tell(Unavailable(f"what is printed cannot be written: {error.strerror}"))
        sys.exit(Unavailable.exit_code)


def _tell(error: UpwellError) -> None:
    colour = False if os.environ.get("NO_COLOR") else None
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True, color=colour)
    click.echo(str(error), err=True)


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

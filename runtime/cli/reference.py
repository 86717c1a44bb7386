"""The page of all commands, made from the commands themselves."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator

import click

from upwell.runtime.cli.main import cli

HEAD = """\
# Commands

Each command explains itself with `--help`; this page is made from the same words. Those that talk to a platform
find it by its directory: `--data` (of `invoke` and `load` `--data-dir`), else `UPWELL_DATA`, else `upwell` in the
user's data home. Colours are for terminals alone, and `NO_COLOR` turns them off. A duration is written as `60s`,
`2m`, `1m30s` or `500ms`.
"""


def page() -> str:
    """The page, as Markdown."""
    root = click.Context(cli, info_name="upwell")
    sections = [HEAD]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None, "it is in the list"
        with click.Context(command, info_name=name, parent=root) as context:
            sections.append("\n".join(_section(command, context)))
    return "\n".join(sections)


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = [*command.collect_usage_pieces(context)]
    yield f"## upwell {context.info_name}\n"
    yield f"```\n{context.command_path} {' '.join(pieces)}\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    rows = [_row(each) for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if rows:
        yield "| flag | |\n|---|---|"
        yield from rows
        yield ""
    if command.epilog:
        yield from _epilog(command.epilog)


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{each}`" for each in sorted((*option.opts, *option.secondary_opts), key=len))
    value = "" if option.is_flag else f" {option.make_metavar(click.Context(cli))}"
    said = " ".join((option.help or "").split())
    if option.show_default and option.default is not None and not option.is_flag:
        said += f" [default: {option.default}]"
    told = f"{value} | {said}".replace("|", "\\|").replace(" \\| ", " | ", 1)
    return f"| {names}{told} |"


def _epilog(epilog: str) -> Iterator[str]:
    """Lines that are indented are code, the others are what is said of it."""
    lines = [line for line in epilog.split("\n") if line.strip("\b ")]
    for is_code, block in itertools.groupby(lines, key=lambda line: line.startswith("  ")):
        if is_code:
            yield "\n".join(["```", *(line[2:] for line in block), "```", ""])
        else:
            yield "\n".join(block) + "\n"

"""`upwell completion`: what a shell needs to complete commands, kinds and names."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

VARIABLE: Final = "_UPWELL_COMPLETE"

EXAMPLES = """
\b
Examples:
  source <(upwell completion bash)                 in ~/.bashrc
  source <(upwell completion zsh)                  in ~/.zshrc, after compinit
  upwell completion fish > ~/.config/fish/completions/upwell.fish
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell."""
    found = get_completion_class(shell)
    assert found is not None, "click knows all three"
    click.echo(found(context.find_root().command, {}, "upwell", VARIABLE).source())

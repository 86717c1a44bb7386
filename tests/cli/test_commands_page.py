"""Commands explain themselves: in their help, on the page made from it, and in a shell that completes them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from support.api import Served, served, service
from support.command import UPWELL
from upwell.runtime.cli.main import SUBCOMMANDS, cli
from upwell.runtime.cli.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
ROOT = click.Context(cli, info_name="upwell")
HEAVY = ("asyncio", "pydantic", "starlette", "uvicorn", "uvloop", "yaml", "prometheus_client")


def command(name: str) -> click.Command:
    found = cli.get_command(ROOT, name)
    assert found is not None
    return found


def test_the_page_is_the_one_made_from_the_commands() -> None:
    assert PAGE.read_text() == page(), "write upwell.runtime.cli.reference.page() to docs/cli.md"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    assert command(name).get_short_help_str(limit=300) == SUBCOMMANDS[name].summary


@pytest.mark.parametrize("name", sorted(set(SUBCOMMANDS) - {"queue-proxy"}))
def test_each_command_gives_examples_and_explains_every_flag(name: str) -> None:
    found = command(name)
    with click.Context(found, info_name=name, parent=ROOT) as context:
        told = found.get_help(context)
    assert "Examples:" in told
    assert f"upwell {name}" in told
    assert all(each.help for each in found.params if isinstance(each, click.Option))


@pytest.mark.parametrize("name", ["get", "delete", "logs", "invoke", "describe", "explain", "topology"])
def test_a_command_that_asks_the_platform_starts_without_the_platforms_code(name: str) -> None:
    code = (
        f"import sys; from upwell.runtime.cli.main import cli; cli.get_command(None, {name!r});"
        f"print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run([*UPWELL, "aply"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such command 'aply'" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_asks_the_command(shell: str) -> None:
    done = subprocess.run([*UPWELL, "completion", shell], capture_output=True, text=True, check=True)
    assert f"_UPWELL_COMPLETE={shell}_complete" in done.stdout
    assert re.search(r"\bupwell\b", done.stdout)


@pytest.fixture
def interface(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        running.client.apply([service("hello"), service("help"), service("other")])
        yield running


def completions(directory: Path, *words: str) -> list[str]:
    """Each as `TYPE,TEXT`."""
    environment = {
        "UPWELL_DATA": str(directory),
        "_UPWELL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("upwell", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(UPWELL, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line]


def completed(directory: Path, *words: str) -> list[str]:
    return [line.partition(",")[2] for line in completions(directory, *words)]


def test_commands_kinds_and_names_are_completed(interface: Served) -> None:
    assert completed(interface.directory, "de") == ["deploy", "describe", "delete"]
    assert completed(interface.directory, "get", "re") == ["rev", "revisions"]
    assert completed(interface.directory, "get", "ksvc", "hel") == ["hello", "help"]
    assert completed(interface.directory, "invoke", "o") == ["other"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["run", "exa"], "file"),
        (["deploy", "exa"], "file"),
        (["apply", "-f", "exa"], "file"),
        (["delete", "-f", "exa"], "file"),
        (["up", "--data", "exa"], "dir"),
        (["new", "hello", "--directory", "exa"], "dir"),
    ],
)
def test_paths_are_left_to_the_shell_to_complete(tmp_path: Path, words: list[str], kind: str) -> None:
    assert completions(tmp_path, *words) == [f"{kind},exa"]


def test_without_a_platform_no_name_is_completed_and_nothing_is_said(tmp_path: Path) -> None:
    assert completed(tmp_path, "get", "ksvc", "hel") == []

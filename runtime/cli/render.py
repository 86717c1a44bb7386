"""`upwell render`: what a cluster's mesh would be told for manifests."""

from __future__ import annotations

from typing import Final

import click
import yaml

from upwell.runtime.cli.files import read_manifests
from upwell.runtime.cli.options import complete_file, namespace_option
from upwell.runtime.control.rendering import render_istio

EXAMPLES = """
\b
Examples:
  upwell render istio -f service.yaml
  upwell get kingress hello -o yaml | upwell render istio -f -
\b
Exit codes: 0 printed; 2 a manifest is wrong and nothing was printed.
"""


RENDERERS: Final = {"istio": render_istio}


@click.command(epilog=EXAMPLES)
@click.argument("mesh", type=click.Choice(list(RENDERERS)))
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    shell_complete=complete_file,
    help="YAML or JSON: Services, Ingresses, ASMLocalRateLimiters, and ConfigMaps of knative-serving to go by.",
)
@click.option("--recursive", "-R", is_flag=True, help="Read the subdirectories of a directory too.")
@namespace_option
def render(mesh: str, files: tuple[str, ...], recursive: bool, namespace: str | None) -> None:
    """Print what a cluster's mesh would be told for manifests.

    For istio: the VirtualServices, Gateways and DestinationRules of Services and Ingresses, as Knative's net-istio
    writes them, and the EnvoyFilters of ASMLocalRateLimiters. A Service is taken as it is once it is ready.
    """
    renderer = RENDERERS[mesh]
    rendered = renderer(read_manifests(files, recursive=recursive, namespace=namespace))
    for warning in rendered.warnings:
        click.secho("Warning: ", fg="yellow", nl=False, err=True)
        click.echo(warning, err=True)
    click.echo(yaml.dump_all(rendered.objects, Dumper=_Dumper, sort_keys=False, width=120), nl=False)


class _Dumper(yaml.SafeDumper):
    """Writes every object out: manifests know no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True

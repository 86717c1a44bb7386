"""What a manifest says cannot give orders to the terminal of whoever looks at it."""

from __future__ import annotations

from typing import Any

import click
import pytest

from upwell.runtime.api.resources import VIRTUAL_SERVICE, Resource, resource_of
from upwell.runtime.cli.describe import _description
from upwell.runtime.cli.named import Named
from upwell.runtime.cli.table import table
from upwell.runtime.cluster.kinds import INGRESS

TITLE = "\x1b]0;title\x07"
RED = "\x1b[31m"
HIDDEN = "a\rb\u202ec"
HOSTILE = f"{TITLE}{RED}{HIDDEN}"


def orders(text: str) -> set[str]:
    """What a terminal obeys, colours of our own apart."""
    own = text.replace(click.style("False", fg="red"), "False")
    return {letter for letter in own if letter != "\n" and not letter.isprintable()}


class Objects:
    """Plays the platform with one object."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        self._manifest = manifest

    def get(self, *_: str) -> dict[str, Any]:
        return self._manifest


def described(kind: str, spec: dict[str, Any]) -> str:
    resource = resource_of(kind)
    assert isinstance(resource, Resource)
    metadata = {"name": "a", "namespace": "default", "annotations": {"note": HOSTILE}}
    conditions = [{"type": "Ready", "status": "False", "reason": "Odd", "message": HOSTILE}]
    manifest = {"apiVersion": "v1", "kind": "A", "metadata": metadata, "spec": spec}
    client: Any = Objects(manifest | {"status": {"url": HOSTILE, "conditions": conditions}})
    return "\n".join(_description(client, Named(resource, "default", "a"), 0.0))


def test_an_ingress_is_described_without_its_orders() -> None:
    path = {"path": f"/{HOSTILE}", "splits": [{"serviceName": HOSTILE, "percent": 100}]}
    told = described(INGRESS, {"rules": [{"hosts": [HOSTILE], "http": {"paths": [path]}}]})
    assert orders(told) == set()
    assert "title" in told, "what can be read is shown"


def test_annotations_and_messages_of_a_policy_are_described_without_their_orders() -> None:
    told = described(VIRTUAL_SERVICE, {"hosts": ["a"]})
    assert orders(told) == set()
    assert "title" in told


@pytest.mark.parametrize("text", [TITLE, RED, HIDDEN, "\x00\x7f\x9b31m", "\u2028"])
def test_cells_of_tables_hold_no_orders_and_stay_aligned(text: str) -> None:
    header, row = table(["A", "B"], [[text, "end"]]).split("\n")
    assert orders(row) == set()
    assert header.index("B") == row.index("end")

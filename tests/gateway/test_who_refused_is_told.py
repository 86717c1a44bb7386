"""Who refused a request: to the operator in the log and the metrics, to the caller only where that is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest

from support.policed import Player, answer_fields, ask, head, is_over, service, to_httpbin
from support.policies import HTTPBIN, asking, httpbin
from upwell.runtime.gateway.access_log import JsonAccessLog
from upwell.runtime.gateway.metrics import GatewayCollector
from upwell.runtime.lines import LineWriter
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.testing.loop import run_fake

ABORT = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}


@pytest.mark.parametrize("name", ["plain", 'a"b\\c', "\u00e4\u4e2d\ttab"])
def test_a_line_is_json_whatever_the_policys_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "log"

    async def scenario() -> None:
        refusing = service(to_httpbin(fault=ABORT))
        # No API takes such names; a log must not depend on that.
        refusing.metadata.name = name
        async with httpbin(refusing, mesh=MeshSettings(name_policies=True)) as on:
            with path.open("wb", buffering=0) as file:
                writer = LineWriter(file.fileno())
                on.gateway.access_log = JsonAccessLog(on.clock, writer)
                assert await ask(on, asking()) == 418
                writer.close()
            await is_over(on)

    run_fake(scenario())
    (line,) = path.read_text().splitlines()
    told = json.loads(line)
    assert told["policy"] == f"VirtualService default/{name}"
    assert (told["status"], told["flag"], told["reason"]) == (418, "FI", "failed")


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("how", ["fault", "timeout"])
def test_callers_hear_of_the_policy_only_where_that_is_allowed(how: str, named: bool) -> None:
    async def scenario() -> list[str]:
        parts = {"fault": ABORT} if how == "fault" else {"timeout": "0.1s"}
        async with httpbin(service(to_httpbin(**parts)), mesh=MeshSettings(name_policies=named)) as on:
            await on.replica(Player(otherwise=(1e6,)), revision=HTTPBIN)
            return answer_fields(await head(on, asking()), "x-upwell-rejected-by")

    unnamed = [] if how == "fault" else ["timeout_route"]
    assert run_fake(scenario()) == (["VirtualService default/httpbin"] if named else unnamed)


def test_refusals_are_metrics_by_policy_and_outcome() -> None:
    async def scenario() -> None:
        async with httpbin(service(to_httpbin(fault=ABORT))) as on:
            assert [await ask(on, asking()) for _ in range(3)] == [418] * 3
            registry = CollectorRegistry()
            registry.register(GatewayCollector(on.gateway))
            page = generate_latest(registry).decode()
            (refusals,) = [
                line for line in page.splitlines() if line.startswith("upwell_gateway_policy_refusals_total{")
            ]
            assert 'policy="VirtualService default/httpbin"' in refusals
            assert refusals.endswith(" 3.0")
            assert 'upwell_gateway_copies_total{outcome="dropped"} 0.0' in page

    run_fake(scenario())

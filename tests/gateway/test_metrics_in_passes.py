"""The gateway's metrics are made family by family, so that whoever reads them can give way to requests."""

from __future__ import annotations

import asyncio

from support.gateway import request, stage
from upwell.runtime.gateway.metrics import GatewayCollector
from upwell.runtime.testing.loop import run_fake


def test_what_happens_while_the_page_is_made_is_in_the_families_that_are_still_to_come() -> None:
    async def scenario() -> dict[str, float]:
        async with stage() as on:
            await on.replica()
            families = []
            for family in GatewayCollector(on.gateway).collect():
                families.append(family)
                if len(families) == 1:
                    await on.ask(request())
                await asyncio.sleep(0)
            return {sample.name: sample.value for family in families for sample in family.samples}

    values = run_fake(scenario())
    assert values["upwell_gateway_request_duration_seconds_count"] == 0
    assert values["upwell_gateway_requests_total"] == 1
    assert values["kn_revision_request_active"] == 0

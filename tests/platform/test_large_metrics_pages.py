"""A page of very many metrics is made without keeping requests waiting until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from support.platform import read_answer, run
from upwell.runtime.clock import SystemClock
from upwell.runtime.http.listen import bind
from upwell.runtime.roles.admin import AdminPage

FAMILIES = 40


class Counting(Collector):
    """Makes families and notes how far the event loop's other work had come at each."""

    def __init__(self) -> None:
        self.turn = 0
        self.seen: list[int] = []

    def collect(self) -> Iterable[Metric]:
        for number in range(FAMILIES):
            self.seen.append(self.turn)
            gauge = GaugeMetricFamily(f"family_{number}", "One of many.", labels=["revision"])
            gauge.add_metric(['a "quoted" one'], number)
            yield gauge


def test_others_go_on_between_two_families_and_the_page_is_whole() -> None:
    async def scenario() -> tuple[bytes, list[int]]:
        collector = Counting()
        page = AdminPage([collector], SystemClock())
        await page.start(bind(("127.0.0.1",), 0, "a test")[0])

        async def others() -> None:
            while True:
                collector.turn += 1
                await asyncio.sleep(0)

        working = asyncio.create_task(others())
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await read_answer(reader)
        writer.close()
        working.cancel()
        await page.stop()
        return answer.body, collector.seen

    body, seen = run(scenario())
    assert len(set(seen)) == FAMILIES
    for number in range(FAMILIES):
        assert f'family_{number}{{revision="a \\"quoted\\" one"}} {float(number)}\n' in body.decode()

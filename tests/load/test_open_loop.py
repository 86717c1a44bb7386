"""An open loop: sent when it is due, and timed from then, by a clock that the tests move."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from support.load import OK, Answer, answer, loaded, plain, scripted
from upwell.runtime.load.plan import LoadClass
from upwell.runtime.load.report import LoadReport
from upwell.runtime.load.requests import Outline
from upwell.runtime.testing.loop import run_fake


def test_requests_are_sent_when_they_are_due() -> None:
    async def main() -> list[float]:
        async with scripted(lambda number, request: Answer()) as server:
            began = asyncio.get_running_loop().time()
            report = await loaded(replace(plain(server.port), rate=10.0, seconds=2.0))
            assert report.total.requests == 20
            return [at - began for at in server.times]

    assert run_fake(main()) == pytest.approx([number / 10 for number in range(20)], abs=1e-6)


def test_poisson_arrivals_are_the_same_for_the_same_seed() -> None:
    async def main(seed: int) -> list[float]:
        async with scripted(lambda number, request: Answer()) as server:
            began = asyncio.get_running_loop().time()
            load = replace(plain(server.port), rate=50.0, seconds=1.0, is_poisson=True, seed=seed, connections=100)
            await loaded(load)
            return [round(at - began, 6) for at in server.times]

    assert run_fake(main(1)) == run_fake(main(1)) != run_fake(main(2))


def test_a_stall_is_told_by_all_whom_it_kept_waiting() -> None:
    """Were durations counted from when requests were sent, one connection would tell of a single slow answer."""

    async def main() -> LoadReport:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def script(number: int, request: bytes) -> Answer:
            stalls = 1.95 < loop.time() - began < 3.95
            return Answer(delay=began + 4.0 - loop.time() if stalls else 0.0)

        async with scripted(script) as server:
            return await loaded(replace(plain(server.port), rate=10.0, count=100, connections=1))

    total = run_fake(main()).total
    durations = total.durations["all"]
    assert total.requests == 100
    assert durations.greatest == pytest.approx(2000, rel=0.01)
    assert durations.p90 == pytest.approx(1000, rel=0.15), "the twentieth that the stall made late waited for half"
    assert durations.p75 < 10
    assert (total.late, total.was_starved) == (19, True)
    assert total.latest_seconds == pytest.approx(1.9)


def test_what_cannot_be_sent_in_time_is_counted_apart() -> None:
    async def main() -> LoadReport:
        async with scripted(lambda number, request: Answer(delay=1.0)) as server:
            load = replace(plain(server.port), rate=10.0, seconds=2.5, connections=2)
            report = await loaded(load)
            assert server.most_open == 2
            return report

    total = run_fake(main()).total
    assert total.requests + total.unsent == 25
    assert total.requests == 6
    assert total.was_starved


def test_with_a_count_all_are_sent_however_late() -> None:
    async def main() -> LoadReport:
        async with scripted(lambda number, request: Answer(delay=1.0)) as server:
            return await loaded(replace(plain(server.port), rate=100.0, count=10, seconds=2.0, connections=2))

    report = run_fake(main())
    assert (report.total.requests, report.total.unsent) == (10, 0)
    assert report.seconds == pytest.approx(5.0, abs=0.1)


def test_enough_connections_hide_no_request_behind_another() -> None:
    async def main() -> LoadReport:
        async with scripted(lambda number, request: Answer(delay=1.0)) as server:
            return await loaded(replace(plain(server.port), rate=20.0, seconds=3.0, connections=50))

    total = run_fake(main()).total
    assert (total.requests, total.late, total.unsent) == (60, 0, 0)
    assert total.durations["all"].greatest == pytest.approx(1000, rel=0.01)


def test_classes_share_the_rate_and_are_told_apart() -> None:
    def script(number: int, request: bytes) -> Answer:
        return Answer(answer(429)) if b"user_type: guest" in request else Answer(OK, 0.1)

    async def main() -> LoadReport:
        async with scripted(script) as server:
            load = replace(plain(server.port), rate=250.0, seconds=2.0, connections=100)
            classes = tuple(
                LoadClass(name, Outline("GET", "/", "test", (("user_type", name),)), share)
                for name, share in (("guest", 50.0), ("subscriber", 200.0))
            )
            return await loaded(replace(load, classes=classes))

    report = run_fake(main())
    guest, subscriber = report.classes
    assert (guest.requests, subscriber.requests, report.total.requests) == (100, 400, 500)
    assert guest.outcomes["limited"] == 100
    assert subscriber.outcomes["succeeded"] == 400
    assert report.total.statuses == {"200": 400, "429": 100}
    assert subscriber.durations["succeeded"].p50 == pytest.approx(100, rel=0.01)
    assert len(guest.series.times) == len(subscriber.series.times) == len(report.total.series.times)
    assert sum(guest.series.rates["limited"]) * guest.series.bucket_seconds == pytest.approx(100)


def test_an_interrupted_run_tells_what_there_is() -> None:
    async def main() -> LoadReport:
        stop = asyncio.Event()
        async with scripted(lambda number, request: Answer(delay=0.5)) as server:
            asyncio.get_running_loop().call_later(2.25, stop.set)
            return await loaded(replace(plain(server.port), rate=10.0, connections=100), stop)

    report = run_fake(main())
    assert report.interrupted
    assert report.seconds == pytest.approx(2.25)
    assert (report.total.requests, report.total.cut_off) == (18, 5)

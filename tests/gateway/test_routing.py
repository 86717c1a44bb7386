"""Which revision answers, what it is told of the client, and what the autoscaler is told of both."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.gateway import REVISION, request, stage
from support.http import eventually, silent
from upwell.runtime.gateway.routes import PathRule, RouteTable, RouteTarget, VirtualHost
from upwell.runtime.testing.loop import run_fake

SAID_BY_THE_PLATFORM = [
    b"k-proxy-request",
    b"k-original-host",
    b"k-network-probe",
    b"k-network-hash",
    b"k-passthrough-lb",
    b"k-anything",
    b"knative-serving-revision",
    b"knative-serving-namespace",
    b"knative-serving-tag",
    b"knative-serving-default-route",
    b"knative-anything",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
]
SPLITS = st.lists(st.integers(1, 100), min_size=1, max_size=5)


@given(SPLITS, st.floats(0, 100, exclude_max=True))
def test_each_target_gets_its_share(shares: list[int], percentile: float) -> None:
    targets = tuple(RouteTarget(f"default/r{n}", share) for n, share in enumerate(shares))
    picked = PathRule(b"/", (), targets).pick(percentile)
    total = sum(shares)
    if percentile >= total:
        assert picked is None
        return
    assert picked is not None
    before = sum(shares[: targets.index(picked)])
    assert before <= percentile < before + picked.percent


def test_hosts_are_matched_whole_and_the_first_route_by_name_keeps_one_that_two_claim() -> None:
    one = VirtualHost("default/a", ("a.example.com", "Shared.example.com"), ())
    two = VirtualHost("default/b", ("b.example.com", "shared.example.com"), ())
    table = RouteTable([two, one])
    assert table.find(b"shared.example.com") is one
    assert table.find(b"b.example.com") is two
    assert table.find(b"example.com") is None
    assert table.find(b"x.a.example.com") is None
    assert repr(table) == "<RouteTable 2 ingresses, 3 hosts>"


@pytest.mark.parametrize("name", SAID_BY_THE_PLATFORM)
def test_a_client_cannot_speak_as_the_platform(name: bytes) -> None:
    async def scenario() -> bytes:
        async with stage() as on:
            _, made = await on.replica()
            await on.ask(request(fields=name + b": forged\r\nX-Own: kept\r\n"))
            return made.seen

    seen = run_fake(scenario())
    assert b"forged" not in seen
    assert b"x-own: kept\r\n" in seen.lower()
    assert b"x-forwarded-for: 127.0.0.1\r\n" in seen
    assert b"x-forwarded-proto: http\r\n" in seen
    assert b"k-proxy-request: activator\r\n" in seen
    assert b"hello.default.example.com" in seen


def test_load_is_reported_each_second_while_there_is_any_and_once_after() -> None:
    async def scenario() -> None:
        async with stage() as on:
            _, made = await on.replica(silent)
            client = await on.client()
            await eventually(lambda: made.seen != b"")
            await asyncio.sleep(3.5)
            made.peers[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await client.answer(b"ok")
            await asyncio.sleep(10)
            reports = on.told.reports
            assert {report.revision for report in reports} == {REVISION}
            assert [report.sequence for report in reports] == list(range(1, len(reports) + 1))
            assert sum(report.request_count for report in reports) == 1
            assert [round(report.average_concurrency, 2) for report in reports[1:3]] == [1.0, 1.0]
            assert reports[-1].average_concurrency == 0.0
            assert 5 <= len(reports) <= 6, "silence after the traffic's end"
            for earlier, later in itertools.pairwise(reports):
                assert later.started == pytest.approx(earlier.ended)

    run_fake(scenario())


def test_load_beyond_what_is_ready_pokes_again_after_it_has_fallen() -> None:
    async def scenario() -> list[int]:
        async with stage() as on:
            on.activator.limits = on.activator.limits.__class__(burst_threshold=3)
            _, made = await on.replica(silent)
            for _ in range(2):
                clients = [await on.client() for _ in range(5)]
                await eventually(lambda: on.entry.stats.in_flight == 5)
                for peer in made.peers:
                    if not peer.closed:
                        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                for client in clients:
                    await client.answer(b"ok")
                await asyncio.sleep(2)
            return [in_flight for _, in_flight in on.told.pokes]

    assert run_fake(scenario()) == [1, 4, 1, 4]

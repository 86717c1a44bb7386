"""Retries of VirtualServices: what is tried again, how often, where, and what never is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.gateway import Stage
from support.http import eventually
from support.policed import (
    BUSY,
    Player,
    ask,
    head,
    is_over,
    logged,
    rule,
    service,
    to_httpbin,
)
from support.policies import HTTPBIN, asking, httpbin
from upwell.functions.api.policies import PolicyResource
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.testing.loop import run_fake

NAME = "VirtualService default/httpbin"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LATE = (5.0, OK)


def retrying(attempts: int = 2, on: str = "5xx", **rule: Any) -> PolicyResource:
    return service(to_httpbin(retries={"attempts": attempts, "retryOn": on, **rule}))


async def two(on: Stage, first: Player, second: Player) -> None:
    await on.replica(first, "first", revision=HTTPBIN)
    await on.replica(second, "second", revision=HTTPBIN)


@pytest.mark.parametrize(
    ("on_what", "failure", "expected"),
    [
        ("5xx", (BUSY,), [200, 2]),
        ("503", (BUSY,), [200, 2]),
        ("gateway-error", (BUSY,), [200, 2]),
        ("reset", ("reset",), [200, 2]),
        ("5xx", ("close",), [200, 2]),
        ("reset", (BUSY,), [503, 1]),
        ("connect-failure", ("reset",), [502, 1]),
        ("retriable-4xx", (b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n",), [200, 2]),
    ],
)
def test_what_is_tried_again(on_what: str, failure: tuple[Any, ...], expected: list[int]) -> None:
    async def scenario() -> None:
        async with httpbin(retrying(on=on_what)) as on:
            player = Player([failure])
            await on.replica(player, revision=HTTPBIN)
            found = await ask(on, asking(method=b"POST", body=b"once"))
            assert [found, len(player.seen)] == expected
            assert {message.body for message in player.seen} == {b"once"}
            await is_over(on)

    run_fake(scenario())


def test_an_attempt_is_made_again_when_its_own_time_is_over() -> None:
    async def scenario() -> None:
        async with httpbin(retrying(perTryTimeout="0.1s")) as on:
            player = Player([LATE])
            await on.replica(player, revision=HTTPBIN)
            started = on.clock.monotonic()
            assert await ask(on, asking()) == 200
            assert on.clock.monotonic() - started < 0.3
            assert len(player.seen) == 2
            await is_over(on)

    run_fake(scenario())


def test_when_every_attempt_takes_too_long_the_answer_is_a_timeout() -> None:
    async def scenario() -> None:
        async with httpbin(retrying(perTryTimeout="0.1s")) as on:
            lines = logged(on)
            player = Player(otherwise=LATE)
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking()) == 504
            assert len(player.seen) == 3
            assert lines == [(504, "timeout_route", "UT", NAME)]
            await is_over(on)

    run_fake(scenario())


def test_the_last_answer_stands_once_all_attempts_were_made() -> None:
    async def scenario() -> None:
        async with httpbin(retrying(attempts=3)) as on:
            player = Player(otherwise=(BUSY,))
            await on.replica(player, revision=HTTPBIN)
            assert (await head(on, asking())).endswith(b"busy")
            assert len(player.seen) == 4
            assert on.gateway.revisions[HTTPBIN].counters.statuses == {503: 1}
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("balanced", [False, True], ids=["knatives choice", "a rules choice"])
def test_another_replica_is_preferred_for_the_next_attempt(balanced: bool) -> None:
    async def scenario() -> None:
        rules = [rule(loadBalancer={"simple": "LEAST_REQUEST"})] if balanced else []
        async with httpbin(retrying(attempts=1), *rules) as on:
            bad, good = Player(otherwise=(BUSY,)), Player()
            await two(on, bad, good)
            assert [await ask(on, asking()) for _ in range(40)] == [200] * 40
            assert bad.seen
            assert len(good.seen) == 40
            await is_over(on)

    run_fake(scenario())


def test_the_same_replica_is_tried_again_where_there_is_no_other() -> None:
    async def scenario() -> None:
        hashed = rule(loadBalancer={"consistentHash": {"httpHeaderName": "x-user"}})
        async with httpbin(retrying(attempts=1), hashed) as on:
            player = Player([(BUSY,)])
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking(fields=b"x-user: a\r\n")) == 200
            await is_over(on)

    run_fake(scenario())


def test_a_body_that_is_no_longer_held_is_not_sent_again() -> None:
    async def scenario() -> None:
        async with httpbin(retrying()) as on:
            player = Player([(BUSY,)])
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking(method=b"POST", body=b"x" * 1_000_000)) == 503
            assert len(player.seen) == 1
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("retries", [None, {"attempts": 0}], ids=["by default", "turned off"])
def test_a_request_that_is_not_idempotent_is_executed_once_unless_more_is_asked_for(
    retries: dict[str, int] | None,
) -> None:
    async def scenario() -> None:
        text = to_httpbin() if retries is None else to_httpbin(retries=retries)
        async with httpbin(service(text)) as on:
            player = Player([(OK,), ("reset",), (BUSY,)])
            await on.replica(player, revision=HTTPBIN)
            once = asking(method=b"POST", body=b"once")
            # The second goes on a connection that has served, where an idempotent one would be sent again.
            assert [await ask(on, once) for _ in range(3)] == [200, 502, 503]
            assert len(player.seen) == 3
            await is_over(on)

    run_fake(scenario())


def test_a_destination_rule_bounds_the_retries_under_way() -> None:
    async def scenario() -> None:
        paused = retrying(attempts=1, backoff="10s")
        async with httpbin(paused, rule(connectionPool={"http": {"maxRetries": 2}})) as on:
            player = Player(otherwise=(BUSY,))
            await on.replica(player, revision=HTTPBIN)
            clients = [await on.client(asking()) for _ in range(10)]
            await eventually(lambda: sum(b"busy" in client.received for client in clients) == 8)
            await asyncio.sleep(20.0)
            assert all(b"busy" in client.received for client in clients)
            assert len(player.seen) == 12
            await is_over(on)

    run_fake(scenario())


def test_one_request_counts_as_one_retry_however_often_it_is_tried() -> None:
    async def scenario() -> None:
        async with httpbin(retrying(attempts=5), rule(connectionPool={"http": {"maxRetries": 1}})) as on:
            player = Player([(BUSY,)] * 5)
            await on.replica(player, revision=HTTPBIN)
            assert await ask(on, asking()) == 200
            assert len(player.seen) == 6
            await is_over(on)

    run_fake(scenario())


def test_a_budget_bounds_the_retries_by_a_share_of_the_requests() -> None:
    async def scenario() -> None:
        budget = rule(retryBudget={"percent": 50, "minRetryConcurrency": 1})
        async with httpbin(retrying(attempts=1, backoff="10s"), budget) as on:
            player = Player(otherwise=(0.5, BUSY))
            await on.replica(player, revision=HTTPBIN)
            clients = [await on.client(asking()) for _ in range(10)]
            await asyncio.sleep(0.7)
            pausing = len(on.gateway.revisions[HTTPBIN].activator.retrying)
            # With those that were answered the requests under way become fewer, and so may the retries.
            assert 2 <= pausing <= 5
            await asyncio.sleep(20.0)
            assert all(b"busy" in client.received for client in clients)
            assert len(player.seen) == 10 + pausing
            await is_over(on)

    run_fake(scenario())


def test_no_pause_goes_beyond_the_deadline() -> None:
    async def scenario() -> None:
        limits = RevisionLimits(timeout_seconds=3.0)
        async with httpbin(retrying(attempts=9, backoff="1000s"), limits=limits) as on:
            player = Player(otherwise=(BUSY,))
            await on.replica(player, revision=HTTPBIN)
            began = on.clock.monotonic()
            found = [await ask(on, asking()) for _ in range(5)]
            assert found == [503] * 5
            assert on.clock.monotonic() < began + 16.0
            await is_over(on)

    run_fake(scenario())


def test_another_zone_is_preferred_where_the_rule_says_so() -> None:
    async def scenario() -> None:
        async with httpbin(retrying(attempts=1, retryRemoteLocalities=True)) as on:
            far = Player()
            for name in ("a", "b", "c"):
                await on.replica(Player(otherwise=(BUSY,)), name, revision=HTTPBIN, locality="cn/a")
            await on.replica(far, "far", revision=HTTPBIN, locality="cn/b")
            assert [await ask(on, asking()) for _ in range(40)] == [200] * 40
            assert len(far.seen) == 40
            await is_over(on)

    run_fake(scenario())

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.queue.breaker import Breaker, BreakerStatistics, QueueFull


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_beyond_the_concurrency_wait_in_order_and_beyond_the_queue_are_refused() -> None:
    async def main() -> None:
        breaker = Breaker(1)
        entered: list[int] = []

        async def request(number: int) -> None:
            await breaker.enter()
            entered.append(number)

        tasks = [asyncio.create_task(request(number)) for number in range(14)]
        await settle()
        assert entered == [0]
        assert breaker.statistics() == BreakerStatistics(running=1, waiting=10, concurrency=1, queue_depth=10)
        assert repr(breaker) == "<Breaker [1/1 running, 10/10 waiting]>"
        assert [number for number, task in enumerate(tasks) if task.done() and task.exception()] == [11, 12, 13]
        assert isinstance(tasks[11].exception(), QueueFull)
        for _ in range(11):
            breaker.leave()
            await settle()
        assert entered == list(range(11))
        assert repr(breaker) == "<Breaker [0/1 running, 0/10 waiting]>"

    asyncio.run(main())


def test_a_slot_is_taken_without_waiting_only_while_one_is_free() -> None:
    breaker = Breaker(2)
    assert [breaker.try_enter() for _ in range(3)] == [True, True, False]
    breaker.leave()
    assert breaker.try_enter()


@pytest.mark.parametrize("given_turn", [False, True], ids=["waiting", "just admitted"])
def test_a_cancelled_request_leaves_the_queue_and_takes_no_slot_with_it(given_turn: bool) -> None:
    async def main() -> None:
        breaker = Breaker(1)
        await breaker.enter()
        first, second = asyncio.create_task(breaker.enter()), asyncio.create_task(breaker.enter())
        await settle()
        if given_turn:
            breaker.leave()  # the first has its turn but has not run since
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done() is given_turn
        assert breaker.statistics().waiting == (0 if given_turn else 1)
        if not given_turn:
            breaker.leave()
        await second
        breaker.leave()
        assert repr(breaker) == "<Breaker [0/1 running, 0/10 waiting]>"

    asyncio.run(main())


def test_a_breaker_that_admits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Breaker(0)


Event = tuple[str, int]


@given(
    concurrency=st.integers(1, 3),
    queue_depth=st.integers(0, 4),
    events=st.lists(st.tuples(st.sampled_from(["arrive", "finish", "cancel", "turn"]), st.integers(0, 30))),
)
def test_slots_are_neither_lost_nor_made_and_the_order_is_kept(
    concurrency: int, queue_depth: int, events: list[Event]
) -> None:
    async def main() -> None:
        breaker = Breaker(concurrency, queue_depth)
        tasks: list[asyncio.Task[None]] = []
        entered: list[int] = []
        ending: dict[int, asyncio.Event] = {}

        async def request(number: int) -> None:
            await breaker.enter()
            entered.append(number)
            try:
                await ending[number].wait()
            finally:
                breaker.leave()

        def arrive(_: int) -> None:
            ending[len(tasks)] = asyncio.Event()
            tasks.append(asyncio.create_task(request(len(tasks))))

        def finish(number: int) -> None:
            if number in ending:
                ending[number].set()

        def cancel(number: int) -> None:
            if number < len(tasks):
                tasks[number].cancel()

        acts: dict[str, Callable[[int], None]] = {"arrive": arrive, "finish": finish, "cancel": cancel}
        for act, number in events:
            if act == "turn":
                await asyncio.sleep(0)
            else:
                acts[act](number)
            statistics = breaker.statistics()
            assert 0 <= statistics.running <= concurrency
            assert 0 <= statistics.waiting <= queue_depth
        for number in ending:
            finish(number)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert breaker.statistics() == BreakerStatistics(0, 0, concurrency, queue_depth)
        assert entered == sorted(entered)
        refused = [task for task in tasks if not task.cancelled() and isinstance(task.exception(), QueueFull)]
        assert len(entered) + len(refused) + sum(task.cancelled() for task in tasks) >= len(tasks)

    asyncio.run(main())

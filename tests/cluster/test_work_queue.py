"""Keys come out once, never twice at the same time, and again after a failure."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.errors import Conflict
from upwell.runtime.testing.loop import run_fake
from upwell.runtime.workqueue import LONGEST_RETRY_SECONDS, Controller, WorkQueue, retry_delay


def test_a_key_added_often_is_taken_once() -> None:
    async def scenario() -> str:
        queue: WorkQueue[str] = WorkQueue()
        for _ in range(3):
            queue.add("a")
        queue.add("b")
        assert [await queue.take(), await queue.take()] == ["a", "b"]
        return repr(queue)

    assert run_fake(scenario()) == "<WorkQueue 0 waiting, 2 active, 0 delayed>"


def test_a_key_added_while_it_is_handled_is_taken_again_afterwards() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        await queue.take()
        queue.add("a")
        assert repr(queue) == "<WorkQueue 0 waiting, 1 active, 0 delayed>"
        queue.done("a", failed=False)
        assert await queue.take() == "a"

    run_fake(scenario())


def test_failures_in_a_row_double_the_delay_and_success_resets_it() -> None:
    async def scenario() -> list[float | None]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        delays = []
        for failed in (True, True, True, False):
            await queue.take()
            delays.append(queue.done("a", failed=failed))
        queue.add("a")
        await queue.take()
        delays.append(queue.done("a", failed=True))
        queue.close()
        return delays

    assert run_fake(scenario()) == [0.005, 0.01, 0.02, None, 0.005]


@given(st.integers(min_value=1, max_value=10_000))
def test_delays_grow_and_stay_below_their_bound(failures: int) -> None:
    assert 0 < retry_delay(failures) <= retry_delay(failures + 1) <= LONGEST_RETRY_SECONDS


def test_a_later_delay_replaces_an_earlier_one() -> None:
    async def scenario() -> float:
        queue: WorkQueue[str] = WorkQueue()
        started = asyncio.get_running_loop().time()
        queue.add_after("a", 5)
        queue.add_after("a", 60)
        await queue.take()
        return asyncio.get_running_loop().time() - started

    assert run_fake(scenario()) == pytest.approx(60)


def test_a_reconcile_that_raises_is_tried_again_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def scenario() -> None:
        done = asyncio.Event()

        async def reconcile(key: str) -> float | None:
            seen.append(key)
            if seen.count("bad") == 3 and key == "bad":
                done.set()
                return None
            if key == "bad":
                raise RuntimeError("not yet")
            return 1.0 if seen.count("good") == 1 else None

        controller = Controller("test", reconcile, workers=2)
        running = asyncio.create_task(controller.run())
        controller.queue.add("bad")
        controller.queue.add("good")
        await done.wait()
        while seen.count("good") < 2:
            await asyncio.sleep(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_fake(scenario())
    assert seen.count("bad") == 3
    assert seen.count("good") == 2
    assert [record.getMessage() for record in caplog.records].count("could not reconcile, will retry") == 2


def test_two_writers_who_meet_are_no_news_but_a_conflict_that_stays_is(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def reconcile(key: str) -> float | None:
            raise Conflict(f"{key} exists already")

        controller = Controller("test", reconcile)
        running = asyncio.create_task(controller.run())
        controller.queue.add("a")
        await asyncio.sleep(0.5)
        assert [record.levelname for record in caplog.records if record.levelname != "DEBUG"] == ["INFO"] * 7
        await asyncio.sleep(10)
        assert caplog.records[-1].levelname == "WARNING"
        assert "a exists already" in caplog.records[-1].getMessage()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with caplog.at_level("INFO"):
        run_fake(scenario())

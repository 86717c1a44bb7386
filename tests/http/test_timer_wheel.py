"""The timer wheel, against the obvious model of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.runtime.testing.loop import FakeTimeLoop, run_fake
from upwell.runtime.timers import Timer, TimerWheel, WheelStatistics

RESOLUTION = 0.05


def pending_handles(loop: asyncio.AbstractEventLoop) -> int:
    assert isinstance(loop, FakeTimeLoop)
    return loop.timers


@given(
    st.lists(
        st.tuples(st.floats(0, 400), st.floats(0, 90), st.one_of(st.none(), st.floats(0, 120))),
        max_size=30,
    )
)
@settings(max_examples=200, deadline=None)
def test_each_timer_fires_once_never_early_and_at_most_the_resolution_late(
    plan: list[tuple[float, float, float | None]],
) -> None:
    """Each entry: when it is set, its delay, and how long after that it is cancelled, if at all."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = TimerWheel(loop, RESOLUTION)
        fired: dict[int, list[float]] = {}
        start = loop.time()

        def begin(number: int) -> None:
            _, delay, cancelled = plan[number]
            due = loop.time() + delay
            fired[number] = []
            timer = wheel.schedule(delay, lambda: fired[number].append(loop.time() - due))
            if cancelled is not None:
                loop.call_later(cancelled, timer.cancel)

        for number, (at, _, _) in enumerate(plan):
            loop.call_at(start + at, begin, number)
        await asyncio.sleep(1_000)
        for number, (_, delay, cancelled) in enumerate(plan):
            late = fired[number]
            if cancelled is None or cancelled > delay + RESOLUTION + 1e-6:
                assert len(late) == 1
            elif cancelled < delay - 1e-6:
                assert late == []
            assert all(-1e-9 <= seconds <= RESOLUTION + 1e-6 for seconds in late)
        assert wheel.statistics().pending == wheel.statistics().buckets == 0
        assert wheel.statistics().fired == sum(len(late) for late in fired.values())

    run_fake(main())


def test_all_timers_together_cost_one_timer_of_the_loop_and_soon_none_when_idle() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = TimerWheel(loop, RESOLUTION)
        assert pending_handles(loop) == 0
        timers = [wheel.schedule(index / 100, lambda: None) for index in range(1, 1_000)]
        assert pending_handles(loop) == 1
        assert wheel.statistics() == WheelStatistics(pending=999, buckets=200, fired=0)
        assert repr(wheel) == "<TimerWheel [pending 999, buckets 200]>"
        for timer in timers:
            timer.cancel()
        assert pending_handles(loop) == 1, "left to fire on nothing"
        assert wheel.statistics() == WheelStatistics(pending=0, buckets=0, fired=0)
        for _ in range(100):
            wheel.schedule(1, lambda: None).cancel()
        assert pending_handles(loop) == 1
        await asyncio.sleep(2)
        assert pending_handles(loop) == 0

    run_fake(main())


def test_a_nearer_timer_set_later_still_fires_in_time() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        wheel = TimerWheel(loop, RESOLUTION)
        fired: list[float] = []
        start = loop.time()
        for delay in (100.0, 1.0, 10.0):
            wheel.schedule(delay, lambda: fired.append(round(loop.time() - start)))
        await asyncio.sleep(200)
        return fired

    assert run_fake(main()) == [1, 10, 100]


def test_cancelled_timers_are_let_go_at_once_and_leave_no_trail() -> None:
    async def main() -> None:
        wheel = TimerWheel(asyncio.get_running_loop(), RESOLUTION)
        wheel.schedule(10_000, lambda: None)
        for _ in range(1_000):
            timer = wheel.schedule(300, lambda: None)
            await asyncio.sleep(0.06)
            timer.cancel()
            assert not timer.pending
        assert wheel.statistics().pending == 1
        assert len(wheel._order) < 200

    run_fake(main())


def test_a_callback_may_set_and_cancel_timers_of_its_own_bucket() -> None:
    async def main() -> list[str]:
        wheel = TimerWheel(asyncio.get_running_loop(), RESOLUTION)
        fired: list[str] = []
        timers: list[Timer] = []

        def first() -> None:
            fired.append("first")
            timers[1].cancel()
            timers[0].cancel()
            wheel.schedule(0.0, note("again"))
            wheel.schedule(1.0, note("later"))

        def note(name: str) -> Callable[[], None]:
            return lambda: fired.append(name)

        timers += [
            wheel.schedule(1.0, first),
            wheel.schedule(1.0, note("cancelled")),
            wheel.schedule(1.0, note("third")),
        ]
        await asyncio.sleep(5)
        assert wheel.statistics() == WheelStatistics(pending=0, buckets=0, fired=4)
        return fired

    assert run_fake(main()) == ["first", "third", "again", "later"]


def test_a_callback_that_fails_is_reported_and_holds_up_no_other() -> None:
    async def main() -> tuple[list[str], list[BaseException]]:
        loop = asyncio.get_running_loop()
        errors: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        wheel = TimerWheel(loop, RESOLUTION)
        fired: list[str] = []

        def fail() -> None:
            raise LookupError("broken")

        wheel.schedule(1.0, fail)
        wheel.schedule(1.0, lambda: fired.append("next"))
        await asyncio.sleep(2)
        return fired, errors

    fired, errors = run_fake(main())
    assert fired == ["next"]
    assert [type(error) for error in errors] == [LookupError]


@pytest.mark.parametrize("delay", [0.0, -1.0])
def test_a_delay_that_is_over_fires_in_a_later_turn(delay: float) -> None:
    async def main() -> list[int]:
        wheel = TimerWheel(asyncio.get_running_loop(), RESOLUTION)
        fired: list[int] = []
        timer = wheel.schedule(delay, lambda: fired.append(1))
        assert fired == []
        assert repr(timer) == "<Timer pending>"
        await asyncio.sleep(0.1)
        assert repr(timer) == "<Timer done>"
        return fired

    assert run_fake(main()) == [1]

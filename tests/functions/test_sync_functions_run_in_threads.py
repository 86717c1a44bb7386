"""Sync functions run in a bounded pool of threads, which no request can leak out of and no fork breaks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

import pytest

from support.functions import DEADLINE, answer, handler, reached, request, run
from upwell.functions import threads as pool_module
from upwell.functions.errors import Unavailable
from upwell.functions.threads import ThreadPool

NAME = "upwell-function"


class Gate:
    """A sync function that stays in its thread until it is let go."""

    def __init__(self) -> None:
        self.entered = 0
        self._lock = threading.Lock()
        self._open = threading.Event()

    def __call__(self) -> str:
        with self._lock:
            self.entered += 1
        assert self._open.wait(DEADLINE)
        return "through"

    def open(self) -> None:
        self._open.set()


def function_threads() -> int:
    return sum(thread.name.startswith(NAME) for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_threads_of_other_tests() -> None:
    """Closed pools end their threads a little later."""
    run(reached(lambda: function_threads() == 0))


def test_no_thread_exists_before_the_first_request() -> None:
    with handler(lambda: "", threads=3) as adapted:
        assert function_threads() == 0
        run(request(adapted.app))
        assert function_threads() == 1


def test_function_runs_off_the_loop() -> None:
    assert answer(lambda: threading.current_thread().name).text.startswith(NAME)
    assert threading.current_thread().name != NAME


def test_no_more_calls_run_at_once_than_there_are_threads() -> None:
    gate = Gate()

    async def scenario() -> None:
        pool = ThreadPool(2)
        calls = [asyncio.create_task(pool.run(gate)) for _ in range(5)]
        await reached(lambda: gate.entered == 2)
        assert (pool.busy, pool.waiting) == (2, 3)
        assert repr(pool) == "<ThreadPool busy=2 waiting=3 limit=2>"
        gate.open()
        assert await asyncio.gather(*calls) == ["through"] * 5
        assert (pool.busy, pool.waiting) == (0, 0)
        pool.close()

    run(scenario())


def test_idle_thread_is_used_again() -> None:
    async def scenario() -> None:
        with handler(lambda: "", threads=8) as adapted:
            for _ in range(20):
                await request(adapted.app)
            assert function_threads() == 1

    run(scenario())


def test_cancelled_request_keeps_its_thread_busy_until_the_function_returns() -> None:
    gate = Gate()

    async def scenario() -> None:
        with handler(gate, threads=1) as adapted:
            call = asyncio.create_task(request(adapted.app))
            await reached(lambda: gate.entered == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert adapted.busy_threads == 1
            gate.open()
            await reached(lambda: adapted.busy_threads == 0)
            assert (await request(adapted.app)).text == "through"

    run(scenario())


def test_call_cancelled_before_a_thread_took_it_never_runs() -> None:
    gate = Gate()
    ran: list[str] = []

    async def scenario() -> None:
        pool = ThreadPool(1)
        first = asyncio.create_task(pool.run(gate))
        await reached(lambda: gate.entered == 1)
        second = asyncio.create_task(pool.run(ran.append, "second"))
        third = asyncio.create_task(pool.run(ran.append, "third"))
        await reached(lambda: pool.waiting == 2)
        second.cancel()
        gate.open()
        await asyncio.gather(first, third)
        assert ran == ["third"]
        pool.close()

    run(scenario())


def test_call_beyond_the_queue_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "WAITING_LIMIT", 2)
    gate = Gate()

    async def scenario() -> None:
        pool = ThreadPool(1)
        calls = [asyncio.create_task(pool.run(gate)) for _ in range(3)]
        await reached(lambda: pool.waiting == 2)
        with pytest.raises(Unavailable):
            await pool.run(gate)
        gate.open()
        await asyncio.gather(*calls)
        pool.close()

    run(scenario())


def raises_lookup_error() -> None:
    raise LookupError("missing")


def raises_stop_iteration() -> None:
    raise StopIteration


@pytest.mark.parametrize(
    ("function", "expected"), [(raises_lookup_error, LookupError), (raises_stop_iteration, RuntimeError)]
)
def test_exception_is_raised_where_the_call_is_awaited(
    function: Callable[[], None], expected: type[Exception]
) -> None:
    async def scenario() -> None:
        pool = ThreadPool(1)
        with pytest.raises(expected):
            await pool.run(function)
        assert pool.busy == 0
        pool.close()

    run(scenario())


def test_context_of_the_request_is_seen_but_not_changed() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def function() -> str:
        seen = variable.get()
        variable.set("changed")
        return seen

    async def scenario() -> None:
        pool = ThreadPool(1)
        variable.set("request")
        assert await pool.run(function) == "request"
        assert variable.get() == "request"
        pool.close()

    run(scenario())


def test_threads_end_when_the_handler_is_closed() -> None:
    async def scenario() -> None:
        with handler(lambda: "", threads=2) as adapted:
            await request(adapted.app)
            adapted.close()
            adapted.close()
            await reached(lambda: function_threads() == 0)
            with pytest.raises(Unavailable):
                await request(adapted.app)

    run(scenario())


def test_thread_that_outlives_the_loop_ends_quietly() -> None:
    gate = Gate()
    pool = ThreadPool(1)

    async def abandon() -> None:
        call = asyncio.create_task(pool.run(gate))
        await reached(lambda: gate.entered == 1)
        call.cancel()

    run(abandon())
    pool.close()
    gate.open()
    run(reached(lambda: function_threads() == 0))


def test_pool_without_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ThreadPool(0)

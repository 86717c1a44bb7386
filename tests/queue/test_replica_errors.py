"""What a caller of a real replica sees when its function misbehaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.host import hosting, reached, run

FAILING = """
    import os, sys
    from starlette.requests import Request
    def main(request: Request):
        match request.url.path:
            case "/raise": raise ValueError("a secret")
            case "/exit": sys.exit(3)
            case "/interrupt": raise KeyboardInterrupt
            case "/nothing-usable": return object()
        return "well"
"""

ASYNC_FAILING = FAILING.replace("def main", "async def main")


@pytest.mark.parametrize("text", [FAILING, ASYNC_FAILING], ids=["sync", "async"])
def test_raising_and_exiting_give_500_without_a_reason_and_the_replica_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text)
            for path in ("/raise", "/exit", "/interrupt", "/nothing-usable"):
                answer = await running.get(path)
                assert (answer.status, answer.body) == (500, b"Internal Server Error"), path
            assert (await running.get("/")).body == b"well"
            assert not running.recorder.exits

    run(main())
    logged = capfd.readouterr().err
    assert "ValueError: a secret" in logged
    assert "KeyboardInterrupt" in logged


def test_with_errors_shown_the_caller_gets_the_traceback(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(FAILING, show_errors=True)
            body = (await running.get("/raise")).body.decode()
            assert body.startswith("Traceback")
            assert "ValueError: a secret" in body
            assert "upwell/runtime" not in body

    run(main())


def test_a_response_cut_off_by_the_timeout_ends_its_connection_and_is_one_line_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = """
        import asyncio
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await asyncio.sleep(1000)
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, timeout_seconds=0.2)
            with pytest.raises(asyncio.IncompleteReadError) as raised:
                await running.get()
            # As from Go: the text goes out as far as there is room, and the length is then not reached.
            assert raised.value.partial == b"halfrequest timeout"
            await reached(lambda: bool(running.recorder.metrics.get("timeouts")))
            assert not running.recorder.exits

    run(main())
    logged = capfd.readouterr().err
    assert logged.count("a response was cut off") == 1
    assert "Traceback" not in logged


def test_a_streamed_response_gets_the_timeouts_text_and_a_proper_end(tmp_path: Path) -> None:
    text = """
        import asyncio
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await asyncio.sleep(1000)
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, timeout_seconds=0.2)
            answer = await running.get()
            assert (answer.status, answer.body) == (200, b"firstrequest timeout")

    run(main())


def test_a_sync_handler_that_never_ends_is_answered_for_and_reported_stuck(tmp_path: Path) -> None:
    text = "from threading import Event\ndef main(): Event().wait()"

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, timeout_seconds=0.2)
            answer = await running.get()
            assert (answer.status, answer.body) == (504, b"request timeout")
            await reached(lambda: running.recorder.stuck_count == 1)
            running.process.drain()
            assert (await running.recorder.exit()).code == 0

    run(main())


def test_hard_concurrency_holds_in_a_replica(tmp_path: Path) -> None:
    text = """
        import asyncio
        running = most = 0
        async def main():
            global running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1
            return str(most)
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve(text, container_concurrency=2)
            answers = await asyncio.gather(*(running.get() for _ in range(30)))
            assert {answer.body for answer in answers if answer.status == 200} <= {b"1", b"2"}
            statuses = [answer.status for answer in answers]
            assert statuses.count(200) >= 22
            assert statuses.count(200) + statuses.count(503) == 30

    run(main())

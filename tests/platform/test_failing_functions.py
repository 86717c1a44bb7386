"""What a function does wrong costs its own requests and no others, and callers learn nothing of its inside."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from support.platform import Answer, Broken, Function, Kept, deploy, function, platform, run, until
from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import ReplicaState
from upwell.runtime.gateway.activator import Backend
from upwell.runtime.gateway.settings import GatewaySettings

MISBEHAVING = """
import asyncio, os, sys, time

async def main(request):
    path = request.url.path
    if path == "/raise":
        raise RuntimeError("the secret is 4711")
    if path == "/exit":
        os._exit(3)
    if path == "/sys-exit":
        sys.exit(4)
    if path == "/never":
        await asyncio.Event().wait()
    if path == "/block":
        time.sleep(60)
    if path.startswith("/sleep/"):
        await asyncio.sleep(float(path.rpartition("/")[2]))
    return str(os.getpid())
"""


def test_an_exception_is_a_500_whose_text_stays_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, MISBEHAVING) as hello:
            answer = await hello.ask("/raise")
            assert answer.status == 500
            assert "4711" not in answer.text
            assert "RuntimeError" not in answer.text
            assert (await hello.ask()).status == 200

    run(scenario())


def test_the_one_who_develops_it_sees_the_traceback(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, show_errors=True) as on:
            answer = await (await deploy(on, MISBEHAVING)).ask("/raise")
            assert answer.status == 500
            assert "RuntimeError: the secret is 4711" in answer.text
            assert str(tmp_path / "sources" / "hello.py") in answer.text

    run(scenario())


def test_a_handler_that_ends_its_process_fails_its_own_request_and_the_next_rises_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, MISBEHAVING) as hello:
            before = (await hello.ask()).text
            ended = await hello.ask("/exit")
            assert ended.status == 502
            assert ended.headers["x-upwell-rejected-by"] == "lost_before_response"
            after = await hello.ask()
            assert after.status == 200
            assert after.text != before

    run(scenario())


def test_a_handler_that_calls_sys_exit_is_a_500(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, MISBEHAVING) as hello:
            assert (await hello.ask("/sys-exit")).status == 500
            assert (await hello.ask()).status == 200

    run(scenario())


def test_a_handler_that_never_returns_is_cut_off_at_its_timeout_by_the_replica(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, MISBEHAVING, timeoutSeconds=1) as hello:
            pid = (await hello.ask()).text
            answer = await hello.ask("/never")
            assert (answer.status, answer.text) == (504, "request timeout")
            assert (await hello.ask()).text == pid

    run(scenario())


def test_a_handler_that_blocks_its_loop_is_cut_off_by_the_gateway_and_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, gateway=GatewaySettings(replica_margin_seconds=0.5)) as on:
            hello = await deploy(on, MISBEHAVING, timeoutSeconds=1)
            pid = (await hello.ask()).text
            answer = await hello.ask("/block")
            assert (answer.status, answer.text) == (504, "activator request timeout\n")
            assert answer.headers["x-upwell-rejected-by"] == "timeout_replica"
            again = await hello.ask()
            assert again.status == 200
            assert again.text != pid

    run(scenario())


def test_a_request_that_waits_too_long_for_a_slot_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, max_scale="1") as on:
            hello = await deploy(on, MISBEHAVING, timeoutSeconds=3, containerConcurrency=1)
            await hello.ask()
            held = asyncio.ensure_future(hello.ask("/never"))
            activator = on.gateway.revisions[hello.revision].activator
            await until(lambda: activator.in_flight == 1, "the slot is taken")
            waiting = [asyncio.ensure_future(hello.ask("/never")) for _ in range(3)]
            answers = await asyncio.gather(held, *waiting)
            assert {answer.status for answer in answers} == {504}
            texts = [answer.text for answer in answers]
            assert texts[0] == "request timeout", "the replica's own"
            assert "activator request timeout\n" in texts[1:]

    run(scenario())


BROKEN = {
    "syntax": ("def main(:\n    pass\n", "hello.py:1", "invalid syntax"),
    "missing module": ("import no_such_module\ndef main(): ...\n", "no_such_module", "pip install"),
    "raises at import": ("raise RuntimeError('at import')\n", "at import", ""),
    "ends at import": ("import os\nos._exit(7)\n", "code 7", ""),
    "no function": ("x = 1\n", "hello.py", ""),
    "fits nothing": ("def main(a, b, c, d): ...\n", "hello.py", "Request"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_source_that_cannot_be_served_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    source, what, hint = BROKEN[case]

    async def scenario() -> str:
        async with platform(tmp_path) as on:
            with pytest.raises(InvalidFunction) as caught:
                await deploy(on, source)
            return str(caught.value)

    told = run(scenario())
    assert what in told
    assert hint in told


def test_an_application_whose_startup_fails_is_answered_with_503_at_once(tmp_path: Path) -> None:
    source = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
"""

    async def scenario() -> Answer:
        async with function(tmp_path, source) as hello:
            return await hello.ask()

    answer = run(scenario())
    assert answer.status == 503
    assert answer.headers["x-upwell-rejected-by"] == "start_failed"
    assert int(answer.headers["retry-after"]) >= 1
    assert "database" not in answer.text


class Load:
    """Clients that ask without pause; `seen` holds what came back, a status or what broke."""

    def __init__(self, hello: Function, *methods: str) -> None:
        self.seen: list[int | str] = []
        self._hello = hello
        self._methods = methods
        self._stopping = False

    async def __aenter__(self) -> "Load":
        self._clients = [asyncio.ensure_future(self._ask(method)) for method in self._methods]
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._clients)

    async def more(self, count: int) -> None:
        """Until this many more requests are over."""
        wanted = len(self.seen) + count
        await until(lambda: len(self.seen) >= wanted, "answers")

    async def _ask(self, method: str) -> None:
        while not self._stopping:
            try:
                self.seen.append((await self._hello.ask("/sleep/0.01", method=method)).status)
            except (Broken, OSError) as error:
                self.seen.append(str(error))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_replica_killed_under_load_fails_only_what_it_was_answering(tmp_path: Path, method: str) -> None:
    killed: list[str] = []
    log = Kept()

    async def kill(hello: Function, which: Backend) -> None:
        assert which.replica.pid is not None
        killed.append(which.replica.name)
        os.kill(which.replica.pid, signal.SIGKILL)
        await until(lambda: which.replica.state is ReplicaState.GONE, "its end")
        await until(lambda: hello.ready() >= 2, "its successor")

    async def scenario() -> list[int | str]:
        async with platform(tmp_path, access_log=log, min_scale="2") as on:
            hello = await deploy(on, MISBEHAVING)
            await until(lambda: hello.ready() == 2, "two replicas")
            async with Load(hello, *[method] * 8) as load:
                for _ in range(5):
                    await load.more(30)
                    backends = on.gateway.revisions[hello.revision].activator.backends
                    await kill(hello, max(backends, key=lambda backend: backend.in_flight))
                await load.more(30)
            return load.seen

    seen = run(scenario())
    failed = [(replica, reason) for replica, status, reason in log.calls if status != 200]
    assert {replica for replica, _ in failed} <= set(killed), "no other replica's request failed"
    assert {reason for _, reason in failed} <= {"lost_before_response", "lost_during_response"}
    assert len(seen) >= 150
    assert seen.count(200) == len(seen) - len(failed)
    assert all(status in (200, 502) or isinstance(status, str) for status in seen)


def test_a_scale_down_under_load_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> list[int | str]:
        async with function(tmp_path, MISBEHAVING) as hello:
            await hello.scale(3)
            async with Load(hello, "GET", "POST", "POST", "GET") as load:
                for _ in range(10):
                    await load.more(5)
                    await hello.scale(1)
                    await hello.scale(3)
            return load.seen

    seen = run(scenario())
    assert set(seen) == {200}
    assert len(seen) >= 50


REFLECTING = """
import asyncio
from starlette.responses import PlainTextResponse

async def main(request):
    if request.url.path == "/client":
        return str(request.client.host)
    if request.url.path == "/slow":
        await asyncio.sleep(1)
    return PlainTextResponse("ok", headers={"x-echo": request.query_params.get("q", "")})
"""


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_header_that_cannot_be_sent_is_a_500_and_slows_nobody(tmp_path: Path, method: str) -> None:
    async def scenario() -> list[int]:
        async with function(tmp_path, REFLECTING) as hello:
            paths = ("/", "/?q=a%01b", "/", "/?q=a%01b", "/")
            statuses = [(await hello.ask(path, method=method)).status for path in paths]
            entry = hello.platform.gateway.revisions[hello.revision]
            assert entry.counters.reasons == {}, "the replica itself has answered"
            return statuses

    assert run(scenario()) == [200, 500, 200, 500, 200]


def test_callers_that_leave_a_replicas_queue_make_room_for_those_who_stay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, max_scale="1") as on:
            hello = await deploy(on, REFLECTING, containerConcurrency=1)
            await hello.ask()
            for _ in range(13):
                with contextlib.suppress(TimeoutError):
                    await hello.ask("/slow", timeout=0.05)
            assert (await hello.ask()).status == 200

    run(scenario())


def test_a_function_sees_who_calls_it(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with function(tmp_path, REFLECTING) as hello:
            return (await hello.ask("/client")).text

    assert run(scenario()) == "127.0.0.1"


def test_a_function_that_writes_to_its_channel_loses_its_replica_and_nothing_else(tmp_path: Path) -> None:
    source = """
import os, socket, stat

def main(request):
    if request.url.path == "/garbage":
        for descriptor in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, b"{garbage\\\\n[1]\\\\n")
            except OSError:
                pass
    return str(os.getpid())
"""

    async def scenario() -> None:
        async with function(tmp_path, source) as hello:
            before = (await hello.ask()).text
            (replica,) = hello.platform.cluster.replicas(hello.revision)
            with contextlib.suppress(Broken):
                await hello.ask("/garbage")
            await until(lambda: replica.state is ReplicaState.GONE, "its end")
            assert (await hello.ask()).text != before

    run(scenario())

"""Probes that depend on the container, and the end of a pod."""

from __future__ import annotations

import asyncio
import json

import pytest

from support.container import container
from support.sidecar import Stage, stage
from support.wire import answers_in
from upwell.functions.errors import InvalidSettings
from upwell.runtime.sidecar.readiness import read_probes
from upwell.runtime.testing.loop import run_fake

CLOSE = b"Host: h\r\nConnection: close\r\n\r\n"
PROBE = b"GET / HTTP/1.1\r\nUser-Agent: kube-probe/1.34\r\nK-Network-Probe: queue\r\n" + CLOSE
GET = b"GET / HTTP/1.1\r\n" + CLOSE
HOOK = b"GET /wait-for-drain HTTP/1.1\r\n" + CLOSE


async def status(running: Stage, raw: bytes) -> int:
    return answers_in((await running.ask(raw)).raw, ["GET"])[0].status


def test_an_eager_probe_is_answered_as_soon_as_the_container_listens() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with stage(listening=False, serving_readiness_probe='{"tcpSocket": {}}') as running:
            began = loop.time()
            probes = [running.begin(PROBE) for _ in range(5)]
            await asyncio.sleep(3)
            async with container(running.container.port):
                answers = [answers_in((await probe).raw, ["GET"])[0] for probe in probes]
                assert [answer.body for answer in answers] == [b"queue"] * 5
                assert loop.time() - began == pytest.approx(3, abs=0.2)

    run_fake(main())


@pytest.mark.parametrize(
    ("probe", "wanted"),
    [
        ({"httpGet": {"path": "/status/200"}, "periodSeconds": 5, "timeoutSeconds": 2}, 200),
        ({"httpGet": {"path": "/status/500"}, "periodSeconds": 5, "timeoutSeconds": 2}, 503),
        ({"httpGet": {"path": "/sleep/3"}, "periodSeconds": 5, "timeoutSeconds": 2}, 503),
        ([{"tcpSocket": {}}, {"httpGet": {"path": "/status/302"}}], 200),
        ([{"tcpSocket": {}, "periodSeconds": 1}, {"tcpSocket": {"port": 1}, "periodSeconds": 1}], 503),
    ],
)
def test_the_container_is_asked_as_its_probe_says(probe: object, wanted: int) -> None:
    async def main() -> None:
        async with stage(serving_readiness_probe=json.dumps(probe)) as running:
            assert await status(running, PROBE) == wanted

    run_fake(main())


@pytest.mark.parametrize("text", ["", "[1]", "3", "{", '{"exec": {"command": ["x"]}}', '{"httpGet": 3}'])
def test_a_probe_that_cannot_be_asked_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        read_probes(text, 8080)
    assert refused.value.where == "SERVING_READINESS_PROBE"


def test_each_request_puts_the_end_of_the_drain_off_and_probes_do_not() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with stage(drain_quiet_seconds=5.0) as running:
            began = loop.time()
            ended = running.terminate()
            for _ in range(4):
                await asyncio.sleep(2)
                assert await status(running, GET) == 200
                assert await status(running, PROBE) == 503
            for _ in range(4):
                await asyncio.sleep(1)
                assert await status(running, PROBE) == 503
            await ended
            assert loop.time() - began == pytest.approx(13, abs=0.2)

    run_fake(main())


def test_a_hook_before_the_signal_waits_for_the_whole_drain() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with stage(drain_quiet_seconds=5.0) as running:
            began = loop.time()
            hook = running.begin(HOOK, "admin")
            await asyncio.sleep(0.8)
            ended = running.terminate()
            assert answers_in((await hook).raw, ["GET"])[0].status == 200
            assert loop.time() - began == pytest.approx(5, abs=0.2)
            await ended

    run_fake(main())


def test_hooks_without_a_signal_leave_everything_as_it_was() -> None:
    async def main() -> None:
        async with stage() as running:
            for _ in range(3):
                received = await running.ask(HOOK, "admin")
                assert received.total_s == pytest.approx(1, abs=0.1)
                assert await status(running, PROBE) == 200
            assert await status(running, GET) == 200

    run_fake(main())


def test_what_is_under_way_when_the_drain_is_over_gets_the_revisions_timeout() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with stage(drain_quiet_seconds=1.0, revision_timeout_seconds=20.0) as running:
            long = running.begin(b"GET /sleep/15 HTTP/1.1\r\n" + CLOSE)
            _, writer = await asyncio.open_connection("127.0.0.1", running.port())
            writer.write(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n")
            await asyncio.sleep(0.1)
            began = loop.time()
            await running.terminate()
            assert loop.time() - began == pytest.approx(20, abs=1)
            assert answers_in((await long).raw, ["GET"])[0].body == b"ok"
            writer.close()

    run_fake(main())

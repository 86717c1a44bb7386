"""`upwell queue-proxy` as Knative starts it: a process, its variables, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from support.container import container
from support.http import REAL_PATIENCE, bound_socket
from support.sidecar import ask
from support.wire import answers_in
from upwell.runtime.roles.queue_proxy import QueueProxySettings
from upwell.runtime.settings import from_environment, reference

PAGE = Path(__file__).parents[2] / "docs" / "queue-proxy.md"
COMMAND = (sys.executable, "-m", "upwell", "queue-proxy", "--host", "127.0.0.1")
FREE_PORTS = {
    "QUEUE_SERVING_PORT": "0",
    "UPWELL_ADMIN_PORT": "0",
    "UPWELL_AUTOSCALING_METRICS_PORT": "0",
    "UPWELL_USER_METRICS_PORT": "0",
}
HEAVY = ("pydantic", "uvicorn", "starlette", "prometheus_client", "yaml", "numpy", "rich", "cloudevents", "h2")


def test_it_serves_until_sigterm_and_ends_with_0() -> None:
    async def main() -> None:
        async with container() as back:
            variables = {
                **FREE_PORTS,
                "USER_PORT": str(back.port),
                "CONTAINER_CONCURRENCY": "1",
                "REVISION_TIMEOUT_SECONDS": "1",
                "UPWELL_DRAIN_QUIET_SECONDS": "0.2",
            }
            process = await asyncio.create_subprocess_exec(
                *COMMAND, env={**os.environ, **variables}, stderr=asyncio.subprocess.PIPE
            )
            assert process.stderr is not None
            try:
                async with asyncio.timeout(3 * REAL_PATIENCE):
                    port = json.loads(await process.stderr.readline())["port"]
                    close = b"Host: h\r\nConnection: close\r\n\r\n"
                    both = [asyncio.create_task(ask(port, b"GET /sleep/3 HTTP/1.1\r\n" + close)) for _ in range(2)]
                    answers = [answers_in((await each).raw, ["GET"])[0].status for each in both]
                    assert answers == [504, 504]
                    assert len(back.seen) <= 2
                    process.send_signal(signal.SIGTERM)
                    messages = [json.loads(line)["message"] async for line in process.stderr]
                    assert await process.wait() == 0
                    assert messages == ["draining", "ended"]
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    asyncio.run(main())


def run(arguments: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **FREE_PORTS, **variables}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_a_variable_that_cannot_be_read_is_named() -> None:
    failed = run(CONTAINER_CONCURRENCY="many")
    assert failed.returncode == 2
    assert "CONTAINER_CONCURRENCY" in failed.stderr
    assert "'many' is not a whole number" in failed.stderr


def test_a_port_in_use_is_told_with_the_flag_that_changes_it() -> None:
    with bound_socket() as taken:
        taken.listen()
        failed = run(UPWELL_ADMIN_PORT=str(taken.getsockname()[1]))
    assert failed.returncode == 1
    assert "is used by another process" in failed.stderr
    assert "--admin-port" in failed.stderr


def test_it_imports_nothing_that_a_pod_would_pay_for_in_vain() -> None:
    code = "import sys, upwell.runtime.cli.queue_proxy; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "upwell" in loaded
    assert not loaded.intersection(HEAVY)


def test_knatives_variables_are_its_settings() -> None:
    variables = {
        "CONTAINER_CONCURRENCY": "3",
        "REVISION_TIMEOUT_SECONDS": "30",
        "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "20",
        "REVISION_IDLE_TIMEOUT_SECONDS": "10",
        "USER_PORT": "9000",
        "SERVING_POD": "p",
    }
    settings = from_environment(QueueProxySettings, variables)
    limits = settings.limits()
    assert limits.container_concurrency == 3
    assert limits.timeout_seconds == 30
    assert limits.response_start_timeout_seconds == 20
    assert limits.idle_timeout_seconds == 10
    assert (settings.user_port, settings.serving_pod, settings.queue_serving_port) == (9000, "p", 8012)


def test_the_page_shows_the_settings_as_they_are() -> None:
    found = re.search(r"<!-- settings[^>]*-->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found is not None
    assert found[1] == reference(QueueProxySettings)

"""A deployed function has no process until it is asked, and answers whoever asks it, by every name it has."""

import asyncio
from pathlib import Path

import pytest

from support.platform import deploy, function, platform, run, until

EXAMPLES = Path(__file__).parents[2] / "examples"
HELLO = "async def main():\n    return 'hello\\n'\n"


def test_the_first_request_starts_a_replica_and_is_told_what_the_time_went_into(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, HELLO) as hello:
            assert hello.platform.cluster.replicas(hello.revision) == ()
            first = await hello.ask()
            assert (first.status, first.text) == (200, "hello\n")
            phases = [part.split(";")[0] for part in first.headers["server-timing"].split(", ")]
            assert phases == ["queue", "wait", "fork", "start"]
            second = await hello.ask()
            assert second.status == 200
            assert "server-timing" not in second.headers
            assert len(hello.platform.cluster.replicas(hello.revision)) == 1

    run(scenario())


@pytest.mark.parametrize(
    "host",
    [
        "hello.default.localhost",
        "hello.default.localhost:8080",
        "HELLO.default.example.com",
        "hello.default.svc.cluster.local",
        "localhost:8080",
        "127.0.0.1",
    ],
)
def test_a_function_alone_answers_to_its_names_and_to_localhost(tmp_path: Path, host: str) -> None:
    async def scenario() -> None:
        async with function(tmp_path, HELLO) as hello:
            assert (await hello.ask(host=host)).text == "hello\n"

    run(scenario())


def test_a_host_that_nobody_has_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(tmp_path, HELLO) as hello:
            answer = await hello.ask(host="other.default.localhost")
            assert answer.status == 404
            assert answer.headers["x-upwell-rejected-by"] == "no_route"
            assert hello.platform.cluster.replicas(hello.revision) == ()

    run(scenario())


def test_two_functions_share_the_platform_and_neither_is_plain_localhost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            one = await deploy(on, HELLO, "one")
            two = await deploy(on, "def main():\n    return {'two': 2}\n", "two")
            assert (await one.ask()).text == "hello\n"
            assert (await two.ask()).text == '{"two":2}'
            assert (await one.ask(host="localhost")).status == 404

    run(scenario())


def test_a_new_version_takes_over_once_it_is_ready_and_keeps_the_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            first = await deploy(on, HELLO)
            assert first.revision == "default/hello-00001"
            assert (await first.ask()).text == "hello\n"
            await deploy(on, "def main():\n    return 'second'\n")
            assert (await first.ask()).text == "second"

    run(scenario())


def test_a_thousand_requests_at_once_from_zero_are_all_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with function(
            tmp_path, "import asyncio\nasync def main():\n    await asyncio.sleep(0.05)\n"
        ) as hello:
            answers = await asyncio.gather(*(hello.ask(timeout=50) for _ in range(1000)))
            assert {answer.status for answer in answers} == {204}

    run(scenario())


def test_the_examples_are_what_the_readme_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            assert (await (await deploy(on, EXAMPLES / "hello", "hello")).ask()).text == "Hello, World!\n"
            helloworld = await deploy(on, EXAMPLES / "helloworld", "helloworld")
            assert (await helloworld.ask(host="helloworld.default.example.com")).text == "Hello World!\n"

    run(scenario())


def test_metrics_of_gateway_replica_and_autoscaler_are_on_one_page(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with function(tmp_path, HELLO) as hello:
            await hello.ask()
            await until(
                lambda: any(metrics for _, metrics in hello.platform.cluster.replica_metrics()), "replica metrics"
            )
            hello.platform.autoscaler.tick()
            reader, writer = await asyncio.open_connection("127.0.0.1", hello.platform.admin.port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            page = (await reader.read()).decode()
            writer.close()
            return page

    page = run(scenario())
    labels = 'k8s_namespace_name="default",kn_revision_name="hello-00001"'
    assert f'upwell_gateway_requests_total{{http_response_status_code="200",{labels}}} 1.0' in page
    assert f"upwell_gateway_cold_starts_total{{{labels}}} 1.0" in page
    assert "kn_serving_invocation_duration_seconds_count{" in page
    assert f"kn_revision_pods_count{{{labels}}} 1.0" in page
    assert f"kn_revision_concurrency_target{{{labels}}} 70.0" in page

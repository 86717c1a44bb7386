"""Each example answers as its page says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.functions import handler, pristine_imports, request, run
from upwell.functions.asgi import Message
from upwell.functions.handler import Handler
from upwell.functions.project import bundle, load, locate
from upwell.runtime.testing.loop import run_fake

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def example(name: str, bundles: Path) -> Iterator[Handler]:
    """The example as the platform serves it: from its bundle."""
    project = locate(str(EXAMPLES / name))
    kept = bundle(project, bundles)
    with pristine_imports(), handler(load(kept.root, project.module, project.attribute, project.root)) as adapted:
        yield adapted


def test_hello_answers(tmp_path: Path) -> None:
    with example("hello", tmp_path) as hello:
        response = run(request(hello.app))
    assert (response.status_code, response.text) == (200, "Hello, World!\n")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("target", "text"), [(None, "Hello World!\n"), ("Knative", "Hello Knative!\n"), ("", "Hello !\n")]
)
def test_helloworld_greets_its_target(
    target: str | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target is None:
        monkeypatch.delenv("TARGET", raising=False)
    else:
        monkeypatch.setenv("TARGET", target)
    with example("helloworld", tmp_path) as helloworld:
        assert run(request(helloworld.app)).text == text


def test_event_answers_with_an_event(tmp_path: Path) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-source": "/test",
        "ce-type": "com.example.arrived",
        "content-type": "application/json",
    }
    with example("event", tmp_path) as event:
        response = run(request(event.app, "POST", content=b'{"name": "Ada"}', headers=headers))
    assert response.headers["ce-type"] == "com.example.greeted"
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"greeting": "Hello, Ada!", "because": "7"}


def test_event_refuses_what_is_none(tmp_path: Path) -> None:
    with example("event", tmp_path) as event:
        response = run(request(event.app, "POST", content=b"{}"))
    assert response.status_code == 400
    assert "CloudEvent" in response.text


def test_asgi_sends_its_answer_in_pieces(tmp_path: Path) -> None:
    sent: list[Message] = []

    async def ask(app: Any) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await app({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)

    with example("asgi", tmp_path) as streaming:
        run(ask(streaming.app))
    assert [message.get("body") for message in sent[1:]] == [
        *(b"tick %d\n" % number for number in range(1, 6)),
        b"done\n",
    ]
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * 5 + [False]


@pytest.mark.parametrize("status", [200, 204, 302, 404, 429, 498, 503])
def test_httpbin_answers_with_the_status_that_is_asked_for(status: int, tmp_path: Path) -> None:
    with example("httpbin", tmp_path) as httpbin:
        response = run(request(httpbin.app, path=f"/status/{status}"))
    assert (response.status_code, response.content) == (status, b"")


def test_httpbin_answers_as_late_as_it_is_asked_to(tmp_path: Path) -> None:
    async def ask(app: Any) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await request(app, path="/delay/2.5")).json()["method"] == "GET"
        middle = loop.time()
        assert (await request(app, path="/delay/60")).status_code == 200
        assert loop.time() - middle == pytest.approx(10.0)
        return middle - began

    with example("httpbin", tmp_path) as httpbin:
        assert run_fake(ask(httpbin.app)) == pytest.approx(2.5)


def test_httpbin_tells_what_it_got(tmp_path: Path) -> None:
    headers = {"user_type": "guest", "x-thing": "1"}
    with example("httpbin", tmp_path) as httpbin:
        told = run(request(httpbin.app, path="/headers", headers=headers)).json()["headers"]
        whole = run(request(httpbin.app, "PUT", "/anything/at/all?a=b", content=b"hi")).json()
        got = run(request(httpbin.app, path="/get?a=b")).json()
    assert headers.items() <= told.items()
    assert (whole["method"], whole["args"], whole["data"]) == ("PUT", {"a": "b"}, "hi")
    assert (got["method"], got["args"], got["url"]) == ("GET", {"a": "b"}, "http://function.test/get?a=b")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/status/600", 400),
        ("GET", "/status/99", 400),
        ("GET", "/status/fine", 400),
        ("GET", "/delay/nan", 400),
        ("GET", "/delay/-1", 400),
        ("POST", "/get", 404),
        ("GET", "/", 404),
        ("GET", "/fail/503/1", 404),
        ("POST", "/fail/200/1", 400),
        ("POST", "/fail/503/forever", 400),
    ],
)
def test_httpbin_refuses_the_rest(method: str, path: str, status: int, tmp_path: Path) -> None:
    with example("httpbin", tmp_path) as httpbin:
        assert run(request(httpbin.app, method, path)).status_code == status


def test_a_replica_of_httpbin_fails_for_as_long_as_it_is_told_to(tmp_path: Path) -> None:
    async def ask(app: Any) -> list[int]:
        found = [(await request(app, "POST", "/fail/503/60")).status_code]
        found += [(await request(app, path=path)).status_code for path in ("/replica", "/status/200", "/nowhere")]
        found.append((await request(app, "POST", "/fail/503/0")).status_code)
        answer = await request(app, path="/replica")
        assert answer.text == f"{os.getpid()}\n"
        return [*found, answer.status_code]

    with example("httpbin", tmp_path) as httpbin:
        assert run(ask(httpbin.app)) == [200, 503, 503, 503, 200, 200]


def test_httpbins_manifest_names_it_as_its_directory_does() -> None:
    manifest = yaml.safe_load((EXAMPLES / "httpbin" / "service.yaml").read_text())
    assert manifest["metadata"]["name"] == locate(str(EXAMPLES / "httpbin")).name == "httpbin"


def test_each_example_has_a_name_that_a_host_may_have() -> None:
    names = {locate(str(path)).name for path in EXAMPLES.iterdir() if any(path.glob("*.py"))}
    assert names >= {"asgi", "event", "hello", "helloworld", "httpbin"}

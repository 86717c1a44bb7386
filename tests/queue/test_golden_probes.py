"""Knative's queue-proxy on the wire, for what the layer answers in the handler's place."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support import golden
from support.queue import Layer
from upwell.functions.asgi import Receive, Scope, Send
from upwell.runtime.testing.loop import run_fake

DRAINING = re.compile(r"while /wait-for-drain is held|after TERM")

CASES = [
    case
    for case in golden.rows("queue_proxy_http.json", "cases")
    if case.get("request", "").startswith("GET ")
    and "probe" in case["case"]
    and "readiness" not in case["settings"]
]


async def handle(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def headers_of(case: dict[str, Any]) -> dict[str, str]:
    lines = case["request"].split("\r\n\r\n")[0].split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_a_probe_is_answered_as_the_queue_proxy_answers_it(case: dict[str, Any]) -> None:
    async def main() -> None:
        layer = Layer(handle)
        layer.layer.draining = DRAINING.search(case["case"]) is not None
        response = await layer.request(headers_of(case))
        expected = case["response"]
        assert response.status == int(expected["status"].split()[1])
        assert response.body.decode() == expected["body"]
        headers = {line.lower() for line in expected["headers"]} - {"connection: close"}
        assert {
            f"{name.decode()}: {value.decode()}".lower() for name, value in response.headers.items()
        } == headers
        assert layer.layer.metrics.total == len(case["backend_saw"])

    run_fake(main())


def test_there_are_cases_to_compare_with() -> None:
    golden.load("queue_proxy_http.json")
    assert CASES or golden.folder() != golden.OWN_FOLDER

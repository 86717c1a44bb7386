"""Code for one major version of cloudevents runs with the other: what both have goes by either name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.framework import Driver
from upwell.functions.eventalias import other_name

ASK = """
import importlib, json, sys

async def app(scope, receive, send):
    body = json.dumps(told()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


def told(framework: Driver, root: Path, source: str) -> object:
    """What the function `told` of a module returns, which the host has loaded."""
    (root / "main.py").write_text(f"{source}\n{ASK}")
    answer = framework.ask({"root": str(root), "requests": [{}]})
    assert "refused" not in answer, answer
    return json.loads(answer["responses"][0]["text"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cloudevents.http", "cloudevents.v1.http"),
        ("cloudevents.http.event", "cloudevents.v1.http.event"),
        ("cloudevents.conversion", "cloudevents.v1.conversion"),
        ("cloudevents.exceptions", "cloudevents.v1.exceptions"),
        ("cloudevents.abstract", "cloudevents.v1.abstract"),
        ("cloudevents.kafka", "cloudevents.v1.kafka"),
        ("cloudevents.pydantic", "cloudevents.v1.pydantic"),
        ("cloudevents.sdk.event.v1", "cloudevents.v1.sdk.event.v1"),
    ],
)
def test_module_is_one_and_the_same_by_either_name(
    framework: Driver, one: str, other: str, tmp_path: Path
) -> None:
    assert (other_name(one), other_name(other)) == (other, one)
    source = (
        f"import {one} as one\nimport {other} as other\n"
        "def told():\n"
        "    again = importlib.import_module(one.__name__)\n"
        "    return [one is other, one.__name__, one.__spec__.name, again is one]\n"
    )
    answer: Any = told(framework, tmp_path, source)
    assert answer in ([True, one, one, True], [True, other, other, True])


@pytest.mark.parametrize("package", ["cloudevents.http", "cloudevents.v1.http"])
def test_event_that_either_made_is_one(framework: Driver, package: str, tmp_path: Path) -> None:
    source = (
        f"from {package} import CloudEvent, from_http\n"
        "from cloudevents.conversion import to_binary\n"
        "from cloudevents.v1.conversion import to_structured\n"
        "def told():\n"
        "    event = CloudEvent({'type': 't', 'source': 's', 'id': '1'}, {'a': 1})\n"
        "    return [from_http(*to(event)).data for to in (to_binary, to_structured)]\n"
    )
    assert told(framework, tmp_path, source) == [{"a": 1}, {"a": 1}]


def test_what_no_version_has_is_missing(framework: Driver, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import cloudevents.http\nimport cloudevents.http.telepathy\n")
    refused = framework.ask({"root": str(tmp_path), "requests": []})["refused"]
    assert "no module named cloudevents.http.telepathy" in refused
    assert "version 1 has cloudevents.http" in refused


@pytest.mark.parametrize(
    "name", ["cloudevents", "cloudevents.core", "cloudevents.core.v1.event", "json", "cloudevent"]
)
def test_what_only_one_version_has_is_given_no_other_name(name: str) -> None:
    assert other_name(name) is None

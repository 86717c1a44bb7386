"""Functions of functions-framework run unchanged, with cloudevents of either major version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.framework import Driver

HTTP = """
import functions_framework

@functions_framework.http
def hello(request):
    return f"{request.method} {request.path} {request.args.get('name')} {request.get_data(as_text=True)}"
"""

EVENT = """
import functions_framework
from cloudevents.http import CloudEvent

seen = []

@functions_framework.cloud_event
def take(event: CloudEvent) -> None:
    assert isinstance(event, CloudEvent)
    seen.append(event)
    if event.data != {"name": "World"} or event["type"] != "com.example.test":
        raise ValueError(f"{event.data}")
"""

CE = {"ce-id": "1", "ce-source": "/test", "ce-type": "com.example.test", "ce-specversion": "1.0"}
CE_JSON = {**CE, "content-type": "application/json"}
DATA = '{"name": "World"}'


def write(root: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return str(root)


def called(
    framework: Driver, root: Path, source: str, *requests: dict[str, Any], **case: Any
) -> list[dict[str, Any]]:
    """The responses of a function to requests."""
    files = {"main.py": source, **case.pop("files", {})}
    told = framework.ask({"root": write(root, files), "requests": requests or ({},), **case})
    assert "refused" not in told, told
    responses: list[dict[str, Any]] = told["responses"]
    return responses


def refused(framework: Driver, root: Path, source: str, **case: Any) -> str:
    told = framework.ask({"root": write(root, {"main.py": source}), "requests": [{}], **case})
    text: str = told["refused"]
    return text


def test_http_function_gets_flasks_request(framework: Driver, tmp_path: Path) -> None:
    request = {"method": "POST", "path": "/a/b?name=x", "body": "text"}
    (response,) = called(framework, tmp_path, HTTP, request)
    assert (response["status"], response["text"]) == (200, "POST /a/b x text")


def test_http_function_runs_in_threads(framework: Driver, tmp_path: Path) -> None:
    told = framework.ask({"root": write(tmp_path, {"main.py": HTTP}), "requests": []})
    assert told["is_async"] is False


@pytest.mark.parametrize(
    ("returned", "status", "text", "header"),
    [
        ('{"a": 1}', 200, '{"a":1}\n', ("content-type", "application/json")),
        ('("made", 201, {"X-A": "1"})', 201, "made", ("x-a", "1")),
        ("flask.Response('r', 418)", 418, "r", ("content-length", "1")),
        ("flask.redirect('/there')", 302, None, ("location", "/there")),
        ("flask.abort(403)", 403, None, ("content-type", "text/html; charset=utf-8")),
        ("(str(i) for i in range(3))", 200, "012", ("content-type", "text/html; charset=utf-8")),
    ],
)
def test_http_function_returns_what_flask_takes(
    framework: Driver, returned: str, status: int, text: str | None, header: tuple[str, str], tmp_path: Path
) -> None:
    source = (
        f"import flask, functions_framework\n@functions_framework.http\ndef f(request):\n    return {returned}\n"
    )
    (response,) = called(framework, tmp_path, source)
    assert response["status"] == status
    assert response["headers"][header[0]] == header[1]
    assert text is None or response["text"] == text


def test_browsers_side_requests_are_not_the_functions(framework: Driver, tmp_path: Path) -> None:
    responses = called(
        framework, tmp_path, HTTP, {"path": "/robots.txt"}, {"path": "/favicon.ico"}, {"path": "/x"}
    )
    assert [each["status"] for each in responses] == [404, 404, 200]


def test_http_function_that_raises_is_a_crash(framework: Driver, tmp_path: Path) -> None:
    source = "import functions_framework\n@functions_framework.http\ndef f(request): 1 / 0\n"
    (response,) = called(framework, tmp_path, source)
    assert (response["status"], response["headers"]["x-google-status"]) == (500, "crash")


def test_error_handlers_are_honoured(framework: Driver, tmp_path: Path) -> None:
    source = (
        "import functions_framework\n"
        "@functions_framework.errorhandler(ZeroDivisionError)\n"
        "def handle_zero(error):\n    return 'a teapot', 418\n"
        "@functions_framework.http\n"
        "def function(request):\n    1 / 0\n"
    )
    (response,) = called(framework, tmp_path, source)
    assert (response["status"], response["text"]) == (418, "a teapot")


def test_application_is_there_while_the_module_is_imported(framework: Driver, tmp_path: Path) -> None:
    source = (
        "import flask, functions_framework\n"
        "name = flask.current_app.name\n"
        "@functions_framework.http\n"
        "def f(request):\n    return flask.render_template('page.html', name=name)\n"
    )
    files = {"templates/page.html": "<p>{{ name }}</p>"}
    (response,) = called(framework, tmp_path, source, files=files)
    assert response["text"] == "<p>f</p>"


def test_module_is_imported_once_and_may_import_its_neighbours(framework: Driver, tmp_path: Path) -> None:
    source = (
        "import functions_framework, helper\nfrom .package import there\n"
        "helper.imported.append(1)\n"
        "@functions_framework.http\n"
        "def f(request):\n    return [len(helper.imported), there]\n"
    )
    files = {"helper.py": "imported = []\n", "package/__init__.py": "there = 'there'\n"}
    (response,) = called(framework, tmp_path, source, files=files)
    assert json.loads(response["text"]) == [1, "there"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (CE_JSON, DATA),
        (
            {"content-type": "application/cloudevents+json"},
            json.dumps({"id": "1", "source": "/test", "type": "com.example.test", "specversion": "1.0"})[:-1]
            + f', "data": {DATA}}}',
        ),
    ],
)
def test_event_function_gets_the_event(
    framework: Driver, headers: dict[str, str], body: str, tmp_path: Path
) -> None:
    (response,) = called(framework, tmp_path, EVENT, {"method": "POST", "headers": headers, "body": body})
    assert (response["status"], response["text"]) == (200, "OK")


def test_request_without_an_event_is_refused(framework: Driver, tmp_path: Path) -> None:
    responses = called(
        framework,
        tmp_path,
        EVENT,
        {"method": "POST", "headers": {"content-type": "application/json"}, "body": DATA},
        {"method": "POST", "headers": CE_JSON | {"ce-specversion": "9"}, "body": DATA},
        {"method": "GET"},
    )
    assert [each["status"] for each in responses] == [400, 400, 405]
    assert "MissingRequiredFields" in responses[0]["text"]


def test_background_event_is_converted_for_an_event_function(framework: Driver, tmp_path: Path) -> None:
    source = (
        "import functions_framework\n"
        "@functions_framework.cloud_event\n"
        "def f(event):\n    assert event['type'] == 'google.cloud.pubsub.topic.v1.messagePublished', event\n"
    )
    background = {
        "context": {
            "eventId": "1",
            "timestamp": "2020-09-29T11:32:00.123Z",
            "eventType": "google.pubsub.topic.publish",
            "resource": {"service": "pubsub.googleapis.com", "name": "projects/p/topics/t", "type": "x"},
        },
        "data": {"data": "aGk="},
    }
    request = {"method": "POST", "headers": {"content-type": "application/json"}, "body": json.dumps(background)}
    (response,) = called(framework, tmp_path, source, request)
    assert (response["status"], response["text"]) == (200, "OK")


TYPED = """
import functions_framework

class Order:
    def __init__(self, item, count): self.item, self.count = item, count
    @staticmethod
    def from_dict(value): return Order(value["item"], value["count"])
    def to_dict(self): return {"item": self.item, "count": self.count}

@functions_framework.typed(Order)
def double(order):
    return Order(order.item, order.count * 2)
"""


def test_typed_function_converts_both_ways(framework: Driver, tmp_path: Path) -> None:
    requests = [
        {"method": "POST", "headers": {"content-type": "application/json"}, "body": body}
        for body in ('{"item": "x", "count": 2}', '{"item": "x"}')
    ]
    responses = called(framework, tmp_path, TYPED, *requests)
    assert json.loads(responses[0]["text"]) == {"item": "x", "count": 4}
    assert responses[1]["status"] == 500


def test_background_function_is_named_by_the_environment(framework: Driver, tmp_path: Path) -> None:
    source = (
        "def unused(): ...\n"
        "def take(data, context):\n"
        "    assert (data, context.event_id, context.event_type) == ({'a': 1}, '7', 'kind'), (data, context)\n"
    )
    environment = {"FUNCTION_TARGET": "take", "FUNCTION_SIGNATURE_TYPE": "event"}
    context = {"eventId": "7", "timestamp": "now", "eventType": "kind", "resource": "r"}
    request = {
        "method": "POST",
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"context": context, "data": {"a": 1}}),
    }
    (response,) = called(framework, tmp_path, source, request, environment=environment)
    assert (response["status"], response["text"]) == (200, "OK")


def test_undecorated_function_may_be_named_by_the_environment(framework: Driver, tmp_path: Path) -> None:
    source = "def first(request): return 'first'\ndef second(request): return request.headers['X-A']\n"
    request = {"headers": {"x-a": "1"}}
    (response,) = called(framework, tmp_path, source, request, environment={"FUNCTION_TARGET": "second"})
    assert response["text"] == "1"


def test_source_may_be_named_by_the_environment(framework: Driver, tmp_path: Path) -> None:
    environment = {"FUNCTION_TARGET": "f", "FUNCTION_SOURCE": "deep/other.py"}
    files = {"deep/other.py": "def f(request): return 'other'\n"}
    (response,) = called(framework, tmp_path, "1 / 0\n", files=files, environment=environment)
    assert response["text"] == "other"


def test_several_decorated_functions_need_a_name(framework: Driver, tmp_path: Path) -> None:
    source = HTTP + HTTP.replace("hello", "goodbye")
    assert "several functions are decorated: goodbye, hello" in refused(framework, tmp_path, source)
    (response,) = called(framework, tmp_path, source, attribute="goodbye")
    assert response["status"] == 200


def test_decorated_function_comes_before_usual_names(framework: Driver, tmp_path: Path) -> None:
    (response,) = called(framework, tmp_path, HTTP + "\ndef main(request): return 'main'\n")
    assert response["text"].startswith("GET / None")


def test_module_that_only_mentions_the_package_is_an_ordinary_one(framework: Driver, tmp_path: Path) -> None:
    source = "# once for functions_framework\nfrom starlette.applications import Starlette\napp = Starlette()\n"
    (response,) = called(framework, tmp_path, source)
    assert (response["status"], response["text"]) == (404, "Not Found")


@pytest.mark.parametrize(
    ("source", "case", "reason"),
    [
        ("def f(request): ...", {"environment": {"FUNCTION_TARGET": "g"}}, "a function named 'g'"),
        ("f = 1", {"environment": {"FUNCTION_TARGET": "f"}}, "needs to be of type function"),
        (
            "def f(request): ...",
            {"environment": {"FUNCTION_TARGET": "f", "FUNCTION_SIGNATURE_TYPE": "telepathy"}},
            "telepathy",
        ),
        (
            "def f(request): ...",
            {"environment": {"FUNCTION_TARGET": "f", "FUNCTION_SOURCE": "../f.py"}},
            "FUNCTION_SOURCE is '../f.py'",
        ),
        ("import functions_framework\n@functions_framework.typed\ndef f(x): ...", {}, "typed"),
        ("import functions_framework\nraise LookupError('no key')", {}, "LookupError: no key"),
    ],
)
def test_what_cannot_be_served_is_refused_when_it_is_loaded(
    framework: Driver, source: str, case: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert reason in refused(framework, tmp_path, source, **case)


ASYNC = """
import functions_framework.aio
from starlette.requests import Request
from starlette.responses import StreamingResponse

@functions_framework.aio.http
async def hello(request: Request):
    body = (await request.body()).decode()
    if body == "fail":
        raise LookupError("failed")
    if body == "stream":
        return StreamingResponse(iter(["a", "b"]))
    return {"path": request.url.path, "body": body}, 201
"""

ASYNC_EVENT = """
import functions_framework.aio

@functions_framework.aio.cloud_event
async def take(event):
    assert event.data == {"name": "World"}
"""


def test_async_http_function_gets_starlettes_request(framework: Driver, tmp_path: Path) -> None:
    requests = [{"method": "POST", "path": "/a", "body": body} for body in ("x", "stream", "fail")]
    responses = called(framework, tmp_path, ASYNC, *requests)
    assert [each["status"] for each in responses] == [201, 200, 500]
    assert json.loads(responses[0]["text"]) == {"path": "/a", "body": "x"}
    assert responses[1]["text"] == "ab"
    assert responses[2]["headers"]["x-google-status"] == "crash"


def test_async_event_function_gets_the_event(framework: Driver, tmp_path: Path) -> None:
    responses = called(
        framework,
        tmp_path,
        ASYNC_EVENT,
        {"method": "POST", "headers": CE_JSON, "body": DATA},
        {"method": "POST", "headers": {}, "body": DATA},
    )
    assert [each["status"] for each in responses] == [200, 400]


def test_asgi_may_be_asked_for(framework: Driver, tmp_path: Path) -> None:
    source = "def f(request): return type(request).__module__\n"
    environment = {"FUNCTION_TARGET": "f", "FUNCTION_USE_ASGI": "true"}
    (response,) = called(framework, tmp_path, source, environment=environment)
    assert response["text"] == "starlette.requests"


def test_package_that_is_missing_is_asked_for(tmp_path: Path) -> None:
    from support.functions import pristine_imports
    from upwell.functions.errors import InvalidFunction
    from upwell.functions.project import load

    write(tmp_path, {"main.py": HTTP})
    with pristine_imports(), pytest.raises(InvalidFunction, match="no module named functions_framework") as raised:
        load(tmp_path, "main", None, None)
    assert "pip install functions-framework" in raised.value.hint

"""Functions of Knative's func-python run unchanged: `new()`, `handle`, their start and stop, probes and events."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.http import CloudEvent as ClassicEvent

from support.foreign import answer, lived, served
from support.functions import pristine_imports, request, run
from upwell.functions.funcpython import FunctionApplication, is_func_python
from upwell.functions.project import bundle, load, locate

BINARY = {"ce-id": "1", "ce-source": "/test", "ce-type": "test", "ce-specversion": "1.0"}
JSON = {**BINARY, "content-type": "application/json"}


async def say(send: Any, text: str, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [[b"content-type", b"text/plain"]]})
    await send({"type": "http.response.body", "body": text.encode()})


async def handle(scope: Any, receive: Any, send: Any) -> None:
    await say(send, f"{scope['method']} {scope['path']}")


class Counter:
    """An instance with all that one may have; it keeps what happened to it."""

    def __init__(self) -> None:
        self.happened: list[str] = ["new"]
        self.is_ready = False

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        self.happened.append("handle")
        await say(send, "counted")

    def start(self, cfg: dict[str, str]) -> None:
        assert cfg == dict(os.environ)
        self.happened.append("start")

    def stop(self) -> None:
        self.happened.append("stop")

    def alive(self) -> tuple[bool, str]:
        return True, "I live"

    def ready(self) -> bool:
        return self.is_ready


def constructor(make: Callable[[], object]) -> Callable[[], object]:
    """A function `new` that returns what `make` does."""

    def new() -> object:
        return make()

    return new


def kept(all_made: list[Counter], made: Counter) -> Counter:
    all_made.append(made)
    return made


def test_plain_handle_is_served() -> None:
    assert answer(handle, "PUT", "/a").text == "PUT /a"


def test_instance_lives_from_start_to_stop() -> None:
    made: list[Counter] = []

    async def scenario() -> None:
        with served(constructor(lambda: kept(made, Counter()))) as application:
            assert made == []
            async with lived(application) as said:
                assert (await request(application)).text == "counted"
                assert made[0].happened == ["new", "start", "handle"]
            assert [each["type"] for each in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert len(made) == 1
        assert made[0].happened == ["new", "start", "handle", "stop"]

    run(scenario())


def test_instance_is_made_by_the_first_request_where_no_lifespan_comes() -> None:
    async def scenario() -> None:
        with served(constructor(Counter)) as application:
            assert [(await request(application)).text for _ in range(2)] == ["counted"] * 2

    run(scenario())


def test_start_and_stop_may_be_coroutines() -> None:
    happened: list[str] = []

    class Function:
        async def handle(self, scope: Any, receive: Any, send: Any) -> None: ...

        async def start(self, cfg: dict[str, str]) -> None:
            happened.append("start")

        async def stop(self) -> None:
            happened.append("stop")

    async def scenario() -> None:
        with served(constructor(Function)) as application:
            async with lived(application):
                assert happened == ["start"]
        assert happened == ["start", "stop"]

    run(scenario())


def fails() -> object:
    raise LookupError("no database")


class StartFails(Counter):
    def start(self, cfg: dict[str, str]) -> None:
        fails()


@pytest.mark.parametrize(
    ("make", "reason"),
    [(fails, "no database"), (StartFails, "no database"), (lambda: "hello", "new() returned a str, which has no")],
)
def test_function_that_cannot_start_refuses_the_startup(make: Callable[[], object], reason: str) -> None:
    async def scenario() -> None:
        with served(constructor(make)) as application:
            async with lived(application) as said:
                assert said[0]["type"] == "lifespan.startup.failed"
                assert reason in said[0]["message"]

    run(scenario())


def test_probes_are_answered_by_alive_and_ready() -> None:
    counter = Counter()

    async def scenario() -> None:
        with served(constructor(lambda: counter)) as application:
            alive = await request(application, path="/health/liveness")
            assert (alive.status_code, alive.text) == (200, "I live")
            assert (await request(application, path="/health/readiness")).status_code == 500
            counter.is_ready = True
            ready = await request(application, path="/health/readiness")
            assert (ready.status_code, ready.text) == (200, "OK")
            assert "handle" not in counter.happened

    run(scenario())


@pytest.mark.parametrize("path", ["/health/liveness", "/health/readiness"])
def test_probes_of_a_function_without_checks_succeed(path: str) -> None:
    assert answer(handle, path=path).text == "OK"


def test_instance_may_be_the_application_itself() -> None:
    class Older:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await say(send, "called")

    assert answer(constructor(Older)).text == "called"


def test_what_handle_raises_is_raised() -> None:
    class Function:
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            fails()

    with pytest.raises(LookupError, match="no database"):
        answer(constructor(Function))


def other(scope: Any, receive: Any, send: Any) -> None: ...


def new_with_argument() -> Callable[..., object]:
    def new(request: Any) -> object: ...

    return new


@pytest.mark.parametrize("target", [other, new_with_argument(), Counter, Counter().handle, "new", lambda: None])
def test_what_only_looks_like_it_is_left_alone(target: object) -> None:
    assert not is_func_python(target)


class Replies:
    """A function of the cloudevent flavour."""

    how: str | None = None

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        event = scope["event"]
        reply = CloudEvent(
            {"type": "reply", "source": "/replies", "id": event.get_id()}, {"got": event.get_data(), "is": "core"}
        )
        await (getattr(send, self.how) if self.how else send)(reply)


class RepliesClassic:
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        event = scope["event"]
        await send.binary(ClassicEvent({"type": "reply", "source": "/replies"}, {"got": event.data}), 202)


def test_event_stands_in_the_scope_and_the_reply_is_structured() -> None:
    response = answer(constructor(Replies), "POST", content=b'{"a": 1}', headers=JSON)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/cloudevents+json")
    assert response.headers["content-length"] == str(len(response.content))
    reply = response.json()
    assert (reply["type"], reply["id"], reply["data"]) == ("reply", "1", {"got": {"a": 1}, "is": "core"})


def test_structured_event_is_read_too() -> None:
    event = {"id": "9", "source": "/test", "type": "test", "specversion": "1.0", "data": [1, 2]}
    headers = {"content-type": "application/cloudevents+json"}
    response = answer(constructor(Replies), "POST", content=json.dumps(event).encode(), headers=headers)
    assert response.json()["data"]["got"] == [1, 2]


def test_reply_may_be_sent_in_binary_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replies, "how", "binary")
    response = answer(constructor(Replies), "POST", content=b'{"a": 1}', headers=JSON)
    assert (response.headers["ce-type"], response.json()["got"]) == ("reply", {"a": 1})


def test_events_of_the_classic_class_are_given_to_code_that_names_it() -> None:
    response = answer(constructor(RepliesClassic), "POST", content=b'{"a": 1}', headers=JSON)
    assert (response.status_code, response.headers["ce-type"]) == (202, "reply")
    assert response.json() == {"got": {"a": 1}}


def test_plain_response_may_be_sent_instead() -> None:
    class Function:
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            assert scope["event"].get_type() == "test"
            await say(send.http, "raw")

    assert answer(constructor(Function), "POST", headers=BINARY).text == "raw"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_request_without_an_event_is_refused(method: str) -> None:
    response = answer(constructor(Replies), method, content=b"{}", headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "CloudEvents" in response.text


def test_error_of_a_function_with_events_is_raised_and_blames_nobody_else() -> None:
    class Function:
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            raise ValueError(scope["event"].get_id())

    with pytest.raises(ValueError, match="1"):
        answer(constructor(Function), "POST", headers=BINARY)


def test_event_in_a_function_without_any_is_an_ordinary_request() -> None:
    assert answer(handle, "POST", headers=BINARY, content=b"x").text == "POST /"


HTTP_WITH_EVENTS = """
from cloudevents.core.v1.event import CloudEvent

async def handle(scope, receive, send):
    text = "event" if "event" in scope else "request"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""


def deployed(root: Path, files: dict[str, str]) -> Any:
    """The function of a project, loaded from its bundle."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    project = locate(str(root))
    return load(bundle(project, root.parent / "bundles").root, project.module, project.attribute, project.root)


@pytest.mark.parametrize(
    ("described", "status", "text"),
    [
        ("runtime: python\n", 200, "request"),
        ("runtime: python\ninvoke: http\n", 200, "request"),
        ('runtime: python\ninvoke: "cloudevent"\n', 400, ""),
        (None, 400, ""),
    ],
)
def test_function_file_says_how_it_is_invoked(
    described: str | None, status: int, text: str, tmp_path: Path
) -> None:
    files = {"func.py": HTTP_WITH_EVENTS} | ({"func.yaml": described} if described else {})
    with pristine_imports():
        response = answer(deployed(tmp_path / "hello", files))
    assert response.status_code == status
    assert text in response.text


PACKAGE = {
    "func.yaml": "specVersion: 0.36.0\nname: greeter\nruntime: python\ninvoke: cloudevent\n",
    "function/__init__.py": "from .func import new\n",
    "function/func.py": (
        "from cloudevents.core.v1.event import CloudEvent\n"
        "def new():\n    return Function()\n"
        "class Function:\n"
        "    async def handle(self, scope, receive, send):\n"
        "        got = scope['event'].get_data()\n"
        "        await send(CloudEvent({'type': 'out', 'source': 'function'}, {'got': got}))\n"
    ),
    "tests/test_func.py": "",
    "pyproject.toml": "",
}


@pytest.mark.parametrize("left_out", ["", "func.yaml", "function/__init__.py"])
def test_project_of_func_is_found_in_its_layout(left_out: str, tmp_path: Path) -> None:
    files = {name: content for name, content in PACKAGE.items() if name != left_out}
    with pristine_imports():
        response = answer(deployed(tmp_path / "hello", files), "POST", content=b'"x"', headers=JSON)
    assert response.json()["data"] == {"got": "x"}


def test_flavour_is_that_of_the_middleware_which_the_module_imports(tmp_path: Path) -> None:
    serving = f"from func_python.http import serve\n{HTTP_WITH_EVENTS}\nif __name__ == '__main__': serve(handle)\n"
    with pristine_imports():
        assert answer(deployed(tmp_path / "hello", {"func.py": serving})).text == "request"


def test_application_that_was_loaded_is_served_as_it_is() -> None:
    application = FunctionApplication(handle, "function.py:1")
    with served(application) as made:
        assert made is application


def test_large_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.functions.subjects.BODY_BYTES_LIMIT", 10)
    response: httpx.Response = answer(constructor(Replies), "POST", content=b'"aaaaaaaaaa"', headers=JSON)
    assert response.status_code == 413

"""WSGI applications run as they are: PEP 3333 holds, streams flow both ways, no thread outlives its request."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.foreign import Client, answer, http_scope, lived, served
from support.functions import DEADLINE, reached, request, run
from upwell.functions.asgi import Scope
from upwell.functions.environ import build_environ
from upwell.functions.errors import InvalidResult
from upwell.functions.foreign import foreign_application
from upwell.functions.threads import ThreadPool

Environ = dict[str, Any]
TEXT = [("Content-Type", "text/plain")]


def echo(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["wsgi.input"].read()]


def test_request_is_answered() -> None:
    response = answer(echo, "POST", content=b"body")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/plain")
    assert response.text == "POST body"


def test_application_runs_in_a_thread_of_the_pool() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return [threading.current_thread().name.encode()]

    assert answer(application).text.startswith("upwell-function")


class Application:
    def __call__(self, env: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return [b"instance"]

    def method(self, environ: Environ, start: Any) -> Iterable[bytes]:
        start("200 OK", TEXT)
        return [b"method"]


class Iterated:
    """The form of PEP 3333 in which the class is the application and its instance the response."""

    def __init__(self, environ: Environ, start_response: Any) -> None:
        self.start = start_response

    def __iter__(self) -> Iterator[bytes]:
        self.start("200 OK", TEXT)
        yield b"class"


@pytest.mark.parametrize(
    ("target", "text"), [(Application(), "instance"), (Application().method, "method"), (Iterated, "class")]
)
def test_application_may_be_any_callable(target: object, text: str) -> None:
    assert answer(target).text == text


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


async def asynchronous(environ: Any, start_response: Any) -> None: ...


def one_argument(request: Any) -> None: ...


def two_arguments(data: Any, context: Any) -> None: ...


@pytest.mark.parametrize("target", [asgi, asynchronous, one_argument, two_arguments, "text", dict, print, int])
def test_what_is_no_foreign_function_is_left_to_others(target: object) -> None:
    assert foreign_application(target, ThreadPool(1), "") is None


def test_headers_of_one_name_stay_several() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Latin", "\xe9")])
        return [b""]

    response = answer(application)
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert (b"x-latin", b"\xe9") in response.headers.raw


def test_headers_of_the_connection_are_the_servers() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("X-Kept", "1")])
        return [b"x"]

    assert sorted(answer(application).headers) == ["content-length", "x-kept"]


def test_single_piece_gets_its_length_declared() -> None:
    assert answer(Application()).headers["content-length"] == "8"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_response_that_has_no_body_gets_none(status: str) -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response(status, [])
        return [b"not sent"]

    response = answer(application)
    assert response.content == b""
    assert "content-length" not in response.headers


def test_head_is_answered_without_a_body_and_with_its_length() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    response = answer(application, "HEAD")
    assert (response.content, response.headers["content-length"]) == (b"", "5")


def test_no_more_is_sent_than_the_length_that_was_declared() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        yield b"hel"
        yield b"lo and more"
        yield b"and more"

    assert answer(application).text == "hello"


def test_what_is_written_comes_before_what_is_returned() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"written ")
        return [b"returned"]

    assert answer(application).text == "written returned"


def test_head_waits_for_the_first_piece() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        try:
            raise LookupError("changed its mind")
        except LookupError:
            start_response("500 Oops", [("X-Replaced", "1")], sys.exc_info())
        yield b"failed"

    response = answer(application)
    assert (response.status_code, response.headers["x-replaced"], response.text) == (500, "1", "failed")
    assert "content-type" not in response.headers


def test_error_after_the_first_piece_is_raised_again() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        yield b"first"
        try:
            raise LookupError("too late")
        except LookupError:
            start_response("500 Oops", [], sys.exc_info())

    with pytest.raises(LookupError, match="too late"):
        answer(application)


def no_start(environ: Environ, start_response: Any) -> Iterable[bytes]:
    return [b"body"]


def no_start_and_no_body(environ: Environ, start_response: Any) -> Iterable[bytes]:
    return []


def starts_twice(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


def returns_text(environ: Environ, start_response: Any) -> Iterable[Any]:
    start_response("200 OK", [])
    return ["text", "more"]


def status_that_is_none(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("OK", [])
    return []


def header_with_a_line_break(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("X-A", "1\r\nX-B: 2")])
    return []


def exits(environ: Environ, start_response: Any) -> Iterable[bytes]:
    sys.exit(3)


@pytest.mark.parametrize(
    ("application", "reason"),
    [
        (no_start, "before it called start_response"),
        (no_start_and_no_body, "before it called start_response"),
        (starts_twice, "start_response twice"),
        (returns_text, "a str where bytes are due"),
        (status_that_is_none, "'OK', which is no status"),
        (header_with_a_line_break, "X-A"),
        (exits, r"exit\(3\)"),
    ],
)
def test_breach_of_the_protocol_is_told(application: object, reason: str) -> None:
    with pytest.raises(InvalidResult, match=reason):
        answer(application)


class Result:
    """A response that counts how often it is closed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks

    def close(self) -> None:
        self.closed += 1


def failing() -> Iterator[bytes]:
    yield b"first"
    raise LookupError("in the middle")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_result_is_closed_once(method: str) -> None:
    result = Result(iter([b"a", b"b"]))
    answer(lambda environ, start_response: (start_response("200 OK", []), result)[1], method)
    assert result.closed == 1


def test_result_that_fails_is_closed_and_its_error_raised() -> None:
    result = Result(failing())
    with pytest.raises(LookupError, match="in the middle"):
        answer(lambda environ, start_response: (start_response("200 OK", []), result)[1])
    assert result.closed == 1


def test_file_is_sent_by_its_wrapper_and_closed(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 100_000)
    opened: list[Any] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        opened.append((tmp_path / "data").open("rb"))
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened[0], 8192)
        return wrapped

    assert len(answer(application).content) == 100_000
    assert opened[0].closed


async def exchange(application: object, client: Client) -> asyncio.Task[None]:
    """The request of a client under way; its thread ends with it."""
    pool = ThreadPool(2)
    made = foreign_application(application, pool, "")
    assert made is not None
    under_way = asyncio.ensure_future(_as_coroutine(made, client))
    under_way.add_done_callback(lambda _: pool.close())
    return under_way


async def _as_coroutine(application: Any, client: Client) -> None:
    await application(client.scope, client.receive, client.send)


CHUNKED = {"method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}


def test_request_is_read_while_it_arrives() -> None:
    seen: list[bytes] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        seen.extend(environ["wsgi.input"])
        start_response("200 OK", TEXT)
        return [b"done"]

    async def scenario() -> None:
        client = Client(CHUNKED)
        under_way = await exchange(application, client)
        client.put(b"one\ntw")
        await reached(lambda: seen == [b"one\n"])
        client.put(b"o\nthree", more=False)
        await asyncio.wait_for(under_way, DEADLINE)
        assert seen == [b"one\n", b"two\n", b"three"]
        assert client.body == b"done"

    run(scenario())


def test_small_request_is_whole_before_a_thread_is_taken() -> None:
    called = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        called.set()
        start_response("200 OK", TEXT)
        return [environ["wsgi.input"].read()]

    async def scenario() -> None:
        client = Client({"method": "POST", "headers": [(b"content-length", b"4")]})
        under_way = await exchange(application, client)
        client.put(b"ab")
        await reached(lambda: client.incoming.empty())
        assert not called.is_set()
        client.put(b"cd", more=False)
        await asyncio.wait_for(under_way, DEADLINE)
        assert client.body == b"abcd"

    run(scenario())


def test_request_may_be_answered_before_it_is_read() -> None:
    async def scenario() -> None:
        client = Client({"method": "POST", "headers": [(b"content-length", b"4"), (b"expect", b"100-continue")]})
        await asyncio.wait_for(await exchange(Application(), client), DEADLINE)
        assert client.body == b"instance"

    run(scenario())


def test_slow_reader_holds_the_application_back() -> None:
    produced: list[int] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        for number in range(100):
            produced.append(number)
            yield b"x"

    async def scenario() -> None:
        client = Client()
        client.taking.clear()
        under_way = await exchange(application, client)
        await reached(lambda: produced == [0])
        client.taking.set()
        await asyncio.wait_for(under_way, DEADLINE)
        assert client.body == b"x" * 100

    run(scenario())


@pytest.mark.parametrize("ending", ["leave", "cancel"])
def test_stream_ends_when_nobody_reads_it_any_more(ending: str) -> None:
    result = Result(iter(lambda: b"x", b""))

    async def scenario() -> None:
        client = Client()
        pool = ThreadPool(1)
        application = foreign_application(
            lambda environ, start_response: (start_response("200 OK", []), result)[1], pool, ""
        )
        under_way = asyncio.ensure_future(_as_coroutine(application, client))
        await reached(lambda: len(client.sent) > 10)
        if ending == "leave":
            client.leave()
            await asyncio.wait_for(under_way, DEADLINE)
        else:
            under_way.cancel()
        await reached(lambda: result.closed == 1 and pool.busy == 0)
        pool.close()

    run(scenario())


def test_application_whose_client_leaves_cannot_read_on() -> None:
    raised: list[Exception] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raised.append(error)
            raise
        return []

    async def scenario() -> None:
        client = Client(CHUNKED)
        under_way = await exchange(application, client)
        client.put(b"part")
        client.leave()
        await asyncio.wait_for(under_way, DEADLINE)
        assert [type(each).__bases__[0] for each in raised] == [ConnectionResetError]
        assert client.sent == []

    run(scenario())


def environ_of(**fields: Any) -> Environ:
    return build_environ(http_scope(**fields), io.BytesIO())


@pytest.mark.parametrize(
    ("raw_path", "path_info"),
    [(b"/a%20b", "/a b"), (b"/%C3%A9", "/\xc3\xa9"), (b"/%FF", "/\xff"), (b"/a%2Fb", "/a/b"), (b"/", "/")],
)
def test_path_is_bytes_read_as_latin_1(raw_path: bytes, path_info: str) -> None:
    environ = environ_of(raw_path=raw_path, query_string=b"q=%C3%A9")
    assert environ["PATH_INFO"] == path_info
    assert environ["REQUEST_URI"] == f"{raw_path.decode()}?q=%C3%A9"


@pytest.mark.parametrize(
    ("root_path", "path", "expected"),
    [
        ("/api", "/api/x", ("/api", "/x")),
        ("/api/", "/api", ("/api", "")),
        ("/api", "/apix", ("/api", "/apix")),
        ("", "/x", ("", "/x")),
    ],
)
def test_mount_point_is_cut_off_the_path(root_path: str, path: str, expected: tuple[str, str]) -> None:
    environ = environ_of(root_path=root_path, path=path, raw_path=None)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == expected


def test_headers_become_variables() -> None:
    environ = environ_of(
        headers=[
            (b"host", b"example.com:8080"),
            (b"content-type", b"text/plain"),
            (b"x-one", b"1"),
            (b"x-one", b"2"),
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"x_one", b"forged"),
        ]
    )
    assert {name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT"))} == {
        "HTTP_HOST": "example.com:8080",
        "CONTENT_TYPE": "text/plain",
        "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"headers": [(b"host", b"example.com:8080")]}, ("example.com", "8080")),
        ({"headers": [(b"host", b"example.com")], "scheme": "https"}, ("example.com", "443")),
        ({"headers": [(b"host", b"example.com:port")]}, ("localhost", "80")),
        ({"headers": []}, ("localhost", "80")),
        ({"server": ("10.0.0.1", 8012)}, ("10.0.0.1", "8012")),
    ],
)
def test_server_has_a_name_and_a_port(fields: Scope, expected: tuple[str, str]) -> None:
    environ = environ_of(**fields)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == expected


def test_environment_is_valid_by_the_standard_librarys_own_check() -> None:
    from wsgiref.validate import validator

    def application(environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return [environ["wsgi.input"].read(4)]

    checked = validator(application)
    assert answer(lambda environ, start_response: checked(environ, start_response)).status_code == 200


def test_websocket_is_refused_and_lifespan_is_lived_through() -> None:
    async def scenario() -> None:
        client = Client({"type": "websocket"})
        client.incoming.put_nowait({"type": "websocket.connect"})
        await asyncio.wait_for(await exchange(echo, client), DEADLINE)
        assert [each["type"] for each in client.sent] == ["websocket.close"]
        with served(echo) as application:
            async with lived(application) as said:
                assert (await request(application)).status_code == 200
        assert [each["type"] for each in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    run(scenario())

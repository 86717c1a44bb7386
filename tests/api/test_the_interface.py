"""What the interface answers over its socket."""

import contextlib
import json
import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import Served, served, service, until
from upwell.functions.errors import Conflict, InvalidInput, NotFound, Unavailable, UpwellError
from upwell.runtime.api.client import Client
from upwell.runtime.api.server import bind_socket
from upwell.runtime.api.shapes import BODY_LIMIT, SOCKET, RefusedBatch
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.http.connect import Endpoint


@pytest.fixture
def interface(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        yield running


def raw(interface: Served, request: bytes) -> tuple[int, dict[str, object]]:
    """Status and JSON of what a client that keeps no rules gets."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(interface.directory / SOCKET))
        connection.sendall(request)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


def test_only_its_user_may_open_the_socket_and_it_goes_with_the_server(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with served(tmp_path):
            mode = (tmp_path / SOCKET).stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
    finally:
        assert os.umask(before) == 0o022, "the umask is as it was"
    assert not (tmp_path / SOCKET).exists()


def test_a_dead_servers_socket_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET))
    with served(tmp_path) as interface:
        assert interface.client.platform().port == 8080


def test_what_stands_in_the_sockets_place_and_cannot_go_is_told(tmp_path: Path) -> None:
    (tmp_path / SOCKET).mkdir()
    with pytest.raises(Unavailable, match="cannot be replaced by a socket") as caught:
        bind_socket(tmp_path)
    assert caught.value.where == str(tmp_path / SOCKET)


def test_a_directory_deeper_than_a_sockets_path_may_be_is_served_and_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    with served(deep) as interface:
        assert interface.client.platform().directory == str(deep)
    assert not (deep / SOCKET).exists()


def test_no_platform_is_told_with_the_socket_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Client(tmp_path).platform()
    assert str(tmp_path / SOCKET) in str(caught.value)
    assert f"upwell up --data {tmp_path}" in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_batch_is_applied_and_told_by_object(interface: Served) -> None:
    first = interface.client.apply([service("one"), service("two")], images={"hello": '{"path": "/x.py"}'})
    assert [(each.kind, each.namespace, each.name, each.action, each.generation) for each in first] == [
        (SERVICE, "default", "one", "created", 1),
        (SERVICE, "default", "two", "created", 1),
    ]
    assert interface.platform.images == {"hello": '{"path": "/x.py"}'}
    again = interface.client.apply([service("one"), service("two", image="other")])
    assert [(each.action, each.generation) for each in again] == [("unchanged", 1), ("configured", 2)]


def test_a_dry_run_changes_nothing(interface: Served) -> None:
    assert interface.client.apply([service("one")], dry_run=True)[0].action == "created"
    assert interface.client.list(SERVICE) == []


def test_a_refused_batch_names_manifest_and_fields_and_stores_nothing(interface: Served) -> None:
    with pytest.raises(RefusedBatch) as caught:
        interface.client.apply([service("fine"), service("wrong", containerConcurrency=-1, timeoutSeconds="x")])
    assert [(fault.index, fault.path[-1]) for fault in caught.value.faults] == [
        (1, "containerConcurrency"),
        (1, "timeoutSeconds"),
    ]
    assert caught.value.exit_code == 2
    assert interface.client.list(SERVICE) == []


def test_objects_are_listed_by_namespace_and_label_and_read_and_removed(interface: Served) -> None:
    other = service("hello")
    other["metadata"] |= {"namespace": "team", "labels": {"tier": "front"}}
    interface.client.apply([service("hello"), other])
    assert [each["metadata"]["namespace"] for each in interface.client.list(SERVICE)] == ["default", "team"]
    assert len(interface.client.list(SERVICE, "team")) == 1
    assert len(interface.client.list(SERVICE, labels={"tier": "front"})) == 1
    assert interface.client.list(SERVICE, "default", {"tier": "front"}) == []
    assert interface.client.get(SERVICE, "team", "hello")["metadata"]["labels"] == {"tier": "front"}
    interface.client.delete(SERVICE, "team", "hello")
    with pytest.raises(NotFound):
        interface.client.get(SERVICE, "team", "hello")
    with pytest.raises(NotFound):
        interface.client.delete(SERVICE, "team", "hello")


def test_many_objects_come_whole(interface: Served) -> None:
    names = [f"s{number:03}" for number in range(130)]
    interface.client.apply([service(name) for name in names])
    assert [each["metadata"]["name"] for each in interface.client.list(SERVICE)] == names


def test_replicas_are_told_with_their_phases_and_where_they_stand(interface: Served) -> None:
    replica = Replica(
        "hello-1", "default/hello", Endpoint(path="/x"), ReplicaState.READY, 12.5, pid=7, locality="eu/a"
    )
    replica.phases = {"fork": 1.25}
    interface.platform.running["default/hello"] = (replica,)
    told = {"name": "hello-1", "state": "ready", "pid": 7, "started_at": 12.5, "phases": {"fork": 1.25}}
    assert interface.client.replicas("default", "hello") == [told | {"locality": "eu/a"}]


@pytest.mark.parametrize(
    ("failure", "kind", "exit_code"),
    [
        (Conflict("taken", where="there", hint="do this"), Conflict, 1),
        (InvalidInput("wrong", where="there", hint="do this"), InvalidInput, 2),
        (Unavailable("full", where="there", hint="do this"), Unavailable, 1),
    ],
    ids=["conflict", "invalid", "unavailable"],
)
def test_errors_travel_with_what_where_hint_and_exit_code(
    interface: Served, failure: UpwellError, kind: type[UpwellError], exit_code: int
) -> None:
    interface.platform.failure = failure
    with pytest.raises(kind) as caught:
        interface.client.apply([service("hello")])
    assert str(caught.value) == str(failure)
    assert caught.value.exit_code == exit_code


def test_an_unexpected_failure_is_logged_and_its_text_stays_inside(
    interface: Served, caplog: pytest.LogCaptureFixture
) -> None:
    interface.platform.failure = RuntimeError("a secret")
    with caplog.at_level(logging.ERROR), pytest.raises(UpwellError) as caught:
        interface.client.apply([service("hello")])
    assert str(caught.value) == "internal error"
    assert "a secret" in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status", "said"),
    [
        (post("/v1/apply", b"{"), 400, "no JSON"),
        (post("/v1/apply", b"[]"), 400, "no object"),
        (post("/v1/apply", b'{"manifests": {}}'), 400, "must be a list"),
        (post("/v1/apply", b'{"manifests": [], "images": {"a": 1}}'), 400, "images must map"),
        (post("/v1/apply", b'{"manifests": [7]}'), 400, "not an object"),
        (post("/v1/apply", b'{"manifests": [{"apiVersion": "v1", "kind": "\\ud800"}]}'), 400, "not \ud800"),
        (post("/v1/apply", b"", BODY_LIMIT + 1), 413, "more than 32 MiB"),
        (b"GET /v1/objects/Pod HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "no kind Pod"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "no GET /nowhere"),
        (b"PUT /v1/platform HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "no PUT /v1/platform"),
        (b"GET /v1/logs/default/..%2f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "no GET"),
        (b"GET /v1/logs/../.. HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "'..' is no name"),
        (b"GET /v1/objects/Namespace?label=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "NAME=VALUE"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_the_same_shape(
    interface: Served, request_bytes: bytes, status: int, said: str
) -> None:
    answered, body = raw(interface, request_bytes)
    assert answered == status
    told = body["error"]
    assert isinstance(told, dict)
    assert said in told["what"]


def test_a_body_that_grows_beyond_the_limit_is_refused_while_it_comes(interface: Served) -> None:
    head = b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(interface.directory / SOCKET))
        connection.sendall(head)
        for _ in range(BODY_LIMIT // 0x100000 + 1):
            connection.sendall(piece)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_command_waits_while_more_come_than_are_taken_at_once(tmp_path: Path) -> None:
    def answer(listener: socket.socket) -> None:
        for _ in range(3):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"items":[]}')

    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as others:
        listener.bind(str(tmp_path / SOCKET))
        listener.listen(1)
        for _ in range(2):
            waiting = others.enter_context(socket.socket(socket.AF_UNIX))
            waiting.connect(str(tmp_path / SOCKET))
            waiting.sendall(b"GET")
        late = threading.Timer(0.2, answer, [listener])
        late.start()
        assert Client(tmp_path, 20).replicas("default", "hello") == []
        late.join()


def test_a_stopping_server_answers_what_is_under_way(tmp_path: Path) -> None:
    with served(tmp_path) as interface:
        interface.client.apply([service("hello")])
        lines = interface.client.watch(SERVICE)
        assert next(lines)["object"]["metadata"]["name"] == "hello"
        interface.stop()
        assert [*lines] == [{"synced": True}]
        with pytest.raises(Unavailable):
            interface.client.platform()


def test_nothing_is_left_open_when_a_client_leaves_a_watch(interface: Served) -> None:
    lines = interface.client.watch(SERVICE)
    assert next(lines) == {"synced": True}
    assert interface.watches() == 1
    lines.close()  # type: ignore[attr-defined]  # it is a generator
    until(lambda: interface.watches() == 0, "the watch is closed")

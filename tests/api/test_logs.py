"""What revisions printed, read from files that grow, are cut off, and come later."""

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.api import PATIENCE, Served, served, service
from upwell.functions.errors import InvalidInput, NotFound
from upwell.runtime.api.logs import LogReader, ServiceLogs
from upwell.runtime.api.shapes import LINE_LIMIT
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.cluster.labels import SERVICE_LABEL


def rotate(path: Path) -> None:
    """As the host does with a file that has grown too large."""
    path.with_name(f"{path.name}.1").write_bytes(path.read_bytes())
    path.write_bytes(b"")


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def drain(reader: LogReader) -> list[bytes]:
    found: list[bytes] = []
    while lines := reader.lines():
        found += lines
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hello-00001.log"


def test_lines_come_once_they_are_complete(path: Path) -> None:
    path.write_bytes(b"one\ntw")
    reader = LogReader(path)
    assert reader.lines() == [b"one"]
    assert reader.lines() == []
    append(path, b"o\n\n")
    assert reader.lines() == [b"two", b""]
    append(path, b"end")
    assert reader.lines() == []
    assert reader.rest() == [b"end"]


def test_a_file_that_comes_later_is_read(path: Path) -> None:
    reader = LogReader(path)
    assert reader.lines() == []
    path.write_bytes(b"one\n")
    assert reader.lines() == [b"one"]


def test_nothing_is_lost_when_the_file_is_moved_and_begun_anew(path: Path) -> None:
    path.write_bytes(b"one\n")
    reader = LogReader(path)
    assert reader.lines() == [b"one"]
    append(path, b"two\nthr")
    rotate(path)
    append(path, b"ee\nfour\n")
    assert drain(reader) == [b"two", b"three", b"four"]


def test_a_new_file_longer_than_the_old_one_is_noticed(path: Path) -> None:
    path.write_bytes(b"old\n")
    reader = LogReader(path)
    assert reader.lines() == [b"old"]
    append(path, b"older\n")
    rotate(path)
    append(path, b"a much longer line than all before\n")
    assert drain(reader) == [b"older", b"a much longer line than all before"]


def test_the_old_file_is_read_before_the_new_one(path: Path) -> None:
    path.write_bytes(b"one\n")
    rotate(path)
    append(path, b"two\n")
    assert drain(LogReader(path)) == [b"one", b"two"]


def test_a_truncated_file_without_a_copy_goes_on_at_its_beginning(path: Path) -> None:
    path.write_bytes(b"one\ntwo\n")
    reader = LogReader(path)
    assert drain(reader) == [b"one", b"two"]
    path.write_bytes(b"new\n")
    assert drain(reader) == [b"new"]


def test_a_line_without_an_end_is_given_in_pieces(path: Path) -> None:
    path.write_bytes(b"x" * (3 * LINE_LIMIT + 5) + b"\nshort\n")
    lines = drain(LogReader(path))
    assert b"".join(lines[:-1]) == b"x" * (3 * LINE_LIMIT + 5)
    assert max(map(len, lines)) <= LINE_LIMIT
    assert lines[-1] == b"short"


@given(
    old=st.lists(st.integers(0, 5), max_size=6),
    new=st.lists(st.integers(0, 5), max_size=6),
    tail=st.integers(0, 15),
    ended=st.booleans(),
)
def test_a_tail_is_the_last_lines_of_both_files(
    tmp_path_factory: pytest.TempPathFactory, old: list[int], new: list[int], tail: int, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("logs") / "r.log"
    before = [b"o" * length for length in old]
    after = [b"n" * length for length in new]
    if before:
        path.with_name("r.log.1").write_bytes(b"".join(line + b"\n" for line in before))
    text = b"".join(line + b"\n" for line in after)
    path.write_bytes(text if ended or not after or not after[-1] else text[:-1])
    reader = LogReader(path)
    reader.skip_to_tail(tail)
    lines = drain(reader) + reader.rest()
    assert lines == [*before, *after][max(0, len(before) + len(after) - tail) :]


def test_each_revisions_lines_carry_its_name_and_one_may_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "hello-00002.log").write_bytes(b"second\n")
    (tmp_path / "hello-00001.log").write_bytes(b"first\n\xff\n")
    assert ServiceLogs(tmp_path, None, None).read().decode().splitlines() == [
        '{"revision": "hello-00001", "line": "first"}',
        '{"revision": "hello-00001", "line": "\ufffd"}',
        '{"revision": "hello-00002", "line": "second"}',
    ]
    assert ServiceLogs(tmp_path, "hello-00002", None).read().decode().count("\n") == 1


def test_a_tail_does_not_cut_what_a_later_revision_prints(tmp_path: Path) -> None:
    (tmp_path / "hello-00001.log").write_bytes(b"1\n2\n3\n")
    logs = ServiceLogs(tmp_path, None, 1)
    assert logs.read() == b'{"revision": "hello-00001", "line": "3"}\n'
    (tmp_path / "hello-00002.log").write_bytes(b"a\nb\n")
    assert logs.read().count(b"hello-00002") == 2


@pytest.fixture
def interface(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        running.client.apply([service("hello")])
        (tmp_path / "logs" / "default" / "hello").mkdir(parents=True)
        yield running


def log_of(interface: Served, revision: str) -> Path:
    return interface.directory / "logs" / "default" / "hello" / f"{revision}.log"


def revision(name: str, service_name: str) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": name, "namespace": "default", "labels": {SERVICE_LABEL: service_name}},
        "spec": {},
    }


def told(lines: Iterator[dict[str, Any]]) -> list[str]:
    return [line["line"] for line in lines]


def test_logs_end_with_what_is_there(interface: Served) -> None:
    log_of(interface, "hello-00001").write_bytes(b"one\ntwo\nthree")
    assert told(interface.client.logs("default", "hello")) == ["one", "two", "three"]
    assert told(interface.client.logs("default", "hello", tail=2)) == ["two", "three"]


def test_followed_logs_go_on_until_the_service_is_gone(interface: Served) -> None:
    log = log_of(interface, "hello-00001")
    log.write_bytes(b"one\n")
    lines = interface.client.logs("default", "hello", follow=True)
    assert told(islice(lines, 1)) == ["one"]
    append(log, b"two\n")
    assert told(islice(lines, 1)) == ["two"]
    log_of(interface, "hello-00002").write_bytes(b"three\n")
    assert next(lines) == {"revision": "hello-00002", "line": "three"}
    interface.client.delete(SERVICE, "default", "hello")
    assert told(lines) == []


def test_followed_logs_end_with_the_platform(interface: Served) -> None:
    log_of(interface, "hello-00001").write_bytes(b"one\n")
    lines = interface.client.logs("default", "hello", follow=True)
    assert told(islice(lines, 1)) == ["one"]
    found: list[list[str]] = []
    reader = threading.Thread(target=lambda: found.append(told(lines)))
    reader.start()
    interface.stop()
    reader.join(PATIENCE)
    assert found == [[]]


def test_logs_of_what_does_not_exist_are_refused(interface: Served) -> None:
    interface.run(interface.platform.objects.create(revision("other-00001", "other")))
    with pytest.raises(NotFound):
        next(interface.client.logs("default", "nobody"))
    with pytest.raises(NotFound, match="not found"):
        next(interface.client.logs("default", "hello", revision="hello-00009"))
    with pytest.raises(NotFound, match="has no revision other-00001"):
        next(interface.client.logs("default", "hello", revision="other-00001"))


def test_a_tail_that_is_no_number_is_refused(interface: Served) -> None:
    with pytest.raises(InvalidInput, match="whole number"):
        next(interface.client.logs("default", "hello", tail=-1))

"""The store in SQLite keeps the rules of every store, and what was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from upwell.functions.errors import Conflict, Unavailable
from upwell.runtime.cluster.interface import ObjectChange, ObjectKey
from upwell.runtime.cluster.journaled import Group
from upwell.runtime.cluster.kinds import REVISION, SERVICE
from upwell.runtime.cluster.sqlite import APPLICATION_ID, SqliteJournal, SqliteStore, UnusableStore
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.object_store import CHECKS, Check, owned, service

T = TypeVar("T")
HELLO = ObjectKey(SERVICE, "default", "hello")


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, FakeClock())
    try:
        yield store
    finally:
        await store.aclose()


def in_store(path: Path, scenario: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """What `scenario` returns of the store in `path`, which is closed afterwards."""

    async def run() -> T:
        async with asyncio.timeout(20), opened(path) as store:
            return await scenario(store)

    return asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.db"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_store_in_sqlite_keeps_the_rules_of_every_store(check: Check, path: Path) -> None:
    in_store(path, check)


# Restarts


def test_objects_uids_and_versions_are_there_after_a_restart(path: Path) -> None:
    async def before(store: SqliteStore) -> tuple[object, object, int]:
        hello = await store.create(service("hello"))
        revision = await store.create(owned(hello, "hello-00001"))
        hello = await store.update_status(hello | {"status": {"url": "http://ünïcode"}})
        gone = await store.create(service("gone"))
        await store.delete(ObjectKey.of(gone))
        return hello, revision, int(gone["metadata"]["resourceVersion"])

    async def after(store: SqliteStore) -> tuple[object, object, int]:
        (revision,) = await store.list(REVISION, labels={"serving.knative.dev/service": "hello"})
        found = await store.get(HELLO), revision
        latest = await store.create(service("new"))
        await store.delete(HELLO)
        assert await store.list(REVISION) == []
        return *found, int(latest["metadata"]["resourceVersion"])

    *objects, deleted = in_store(path, before)
    *found, version = in_store(path, after)
    assert found == objects
    assert version > deleted + 1, "the deletion was a version too"


def test_a_writer_from_before_a_restart_is_refused_if_it_is_stale(path: Path) -> None:
    async def before(store: SqliteStore) -> dict[str, object]:
        read = await store.create(service("hello"))
        await store.update(read | {"spec": service("hello", "second")["spec"]})
        return read

    async def after(store: SqliteStore) -> None:
        with pytest.raises(Conflict):
            await store.update(stale | {"spec": service("hello", "third")["spec"]})

    stale = in_store(path, before)
    in_store(path, after)


# Writes on their way


class Gate(SqliteJournal):
    """A disk that is as slow as the test wants."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open = threading.Event()
        self.groups: list[int] = []

    def _write(self, group: Group) -> None:
        assert self.open.wait(10)
        self.groups.append(len(group.contents))
        super()._write(group)


class GatedStore(SqliteStore):
    def __init__(self, path: Path) -> None:
        self.gate = Gate(path)
        super(SqliteStore, self).__init__(FakeClock(), self.gate)


def test_what_is_not_committed_is_not_seen_and_holds_nobody_up(path: Path) -> None:
    async def scenario() -> None:
        store = GatedStore(path)
        async with contextlib.aclosing(store.watch(SERVICE)) as changes:
            await anext(changes)
            write = asyncio.create_task(store.create(service("hello")))
            told = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.05)
            assert await store.get(HELLO) is None
            assert await store.list(SERVICE) == []
            assert not write.done()
            assert not told.done()
            store.gate.open.set()
            created = await write
            assert await told == ObjectChange(HELLO, created)
            assert await store.get(HELLO) == created
        await store.aclose()

    asyncio.run(scenario())


def test_writes_that_meet_a_commit_under_way_are_committed_together(path: Path) -> None:
    async def scenario() -> list[int]:
        store = GatedStore(path)
        writes = [asyncio.create_task(store.create(service(f"hello-{n}"))) for n in range(100)]
        await asyncio.sleep(0)
        store.gate.open.set()
        await asyncio.gather(*writes)
        await store.aclose()
        return store.gate.groups

    assert asyncio.run(scenario()) == [1, 99]


def test_a_write_whose_caller_left_before_it_was_decided_is_dropped_and_the_others_are_done(path: Path) -> None:
    async def scenario() -> list[str]:
        store = GatedStore(path)
        writes = [asyncio.create_task(store.create(service(name))) for name in ("a", "b", "c")]
        await asyncio.sleep(0)
        writes[0].cancel()
        writes[1].cancel()
        store.gate.open.set()
        await asyncio.gather(*writes, return_exceptions=True)
        found = [manifest["metadata"]["name"] for manifest in await store.list(SERVICE)]
        await store.aclose()
        return found

    assert asyncio.run(scenario()) == ["a", "c"], "the first was on its way to the disk"


def test_writes_take_effect_in_the_order_in_which_they_were_asked_for(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        owner = await store.create(service("hello"))
        revision = owned(owner, "hello-00001")
        await asyncio.gather(
            store.create(service("other")),
            store.create(revision),
            store.delete(HELLO),
            store.create(service("hello", "again")),
        )
        assert await store.get(ObjectKey.of(revision)) is None
        again = await store.get(HELLO)
        assert again is not None
        assert again["metadata"]["uid"] != owner["metadata"]["uid"]

    in_store(path, scenario)


def test_the_end_waits_for_what_was_asked_for_and_takes_nothing_more(path: Path) -> None:
    async def scenario() -> None:
        store = SqliteStore(path, FakeClock())
        writes = [asyncio.create_task(store.create(service(f"hello-{n}"))) for n in range(10)]
        await asyncio.sleep(0)
        await store.aclose()
        assert all(write.done() for write in writes)
        with pytest.raises(Unavailable, match="closed"):
            await store.create(service("late"))

    asyncio.run(scenario())
    assert len(in_store(path, lambda store: store.list(SERVICE))) == 10


# Failing commits


def test_a_commit_that_fails_is_told_to_its_writers_and_changes_nothing(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        hello = await store.create(service("hello"))
        async with contextlib.aclosing(store.watch(SERVICE)) as changes:
            for _ in range(2):
                await anext(changes)
            blocker = "CREATE TRIGGER blocker BEFORE INSERT ON objects BEGIN SELECT RAISE(ABORT, 'broken'); END"
            connection = store._journal._connection  # type: ignore[attr-defined]
            connection.execute(blocker)
            writes = (
                store.update(hello | {"spec": service("hello", "second")["spec"]}),
                store.create(service("new")),
                store.create(service("new")),
                store.apply_all([service("a"), service("b")]),
                store.update(hello),
            )
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert all(isinstance(result, Unavailable) for result in results), results
            assert "objects.db" in str(results[0])
            assert await store.list(SERVICE) == [hello]
            connection.execute("DROP TRIGGER blocker")
            changed = await store.update(hello | {"spec": service("hello", "second")["spec"]})
            assert await anext(changes) == ObjectChange(HELLO, changed)

    in_store(path, scenario)


# Files that cannot be used


def test_a_file_that_is_no_database_is_named_and_left_as_it_is(path: Path) -> None:
    path.write_text("these are my notes\n" * 100)
    with pytest.raises(UnusableStore, match=r"objects\.db: is no file of objects"):
        SqliteStore(path, FakeClock())
    assert path.read_text().startswith("these are my notes")


def test_a_database_of_another_program_is_named_and_left_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE objects (mine TEXT)")
    content = path.read_bytes()
    with pytest.raises(UnusableStore, match="belongs to another program"):
        SqliteStore(path, FakeClock())
    assert path.read_bytes() == content


def test_a_file_of_a_newer_version_is_refused_with_both_versions(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(UnusableStore, match="its format is 7, this one knows 1"):
        SqliteStore(path, FakeClock())


def test_a_damaged_file_is_named(path: Path) -> None:
    async def fill(store: SqliteStore) -> None:
        await store.apply_all([service(f"hello-{n}", "x" * 500) for n in range(100)])

    in_store(path, fill)
    content = bytearray(path.read_bytes())
    content[8192:20480] = b"\x5a" * 12288
    path.write_bytes(content)
    with pytest.raises(UnusableStore, match=r"objects\.db: .*damaged"):
        SqliteStore(path, FakeClock())


def test_a_damaged_object_is_told_with_the_file(path: Path) -> None:
    in_store(path, lambda store: store.create(service("hello")))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE objects SET data = x'7b'")
        connection.commit()
    with pytest.raises(UnusableStore, match=r"objects\.db: an object in it is damaged"):
        SqliteStore(path, FakeClock())


def test_a_file_that_is_open_already_is_refused(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await store.create(service("hello"))
        with pytest.raises(UnusableStore, match="another process has it open"):
            SqliteStore(path, FakeClock())

    in_store(path, scenario)


def test_a_folder_in_its_place_is_told(path: Path) -> None:
    path.mkdir()
    with pytest.raises(UnusableStore, match=r"objects\.db: cannot be opened"):
        SqliteStore(path, FakeClock())

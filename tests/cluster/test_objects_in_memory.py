"""The store in memory keeps the rules of every store, and some of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from upwell.functions.errors import Conflict
from upwell.runtime.cluster.interface import SYNCED, ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import REVISION, SERVICE, type_of
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.cluster.watching import decode
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.object_store import CHECKS, Check, check_object_store, owned, service

HELLO = ObjectKey(SERVICE, "default", "hello")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_store_in_memory_keeps_the_rules_of_every_store(check: Check) -> None:
    asyncio.run(asyncio.wait_for(_checked(check), 10))


async def _checked(check: Check) -> None:
    await check(MemoryStore(FakeClock()))


class ForgetfulStore(MemoryStore):
    """Writes whatever comes, however stale."""

    async def update(self, manifest: dict[str, object]) -> dict[str, object]:
        metadata = dict(manifest["metadata"])  # type: ignore[call-overload]
        metadata.pop("resourceVersion", None)
        return await super().update(manifest | {"metadata": metadata})


def test_the_suite_finds_a_store_that_breaks_a_rule() -> None:
    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[ObjectStore]:
        yield ForgetfulStore(FakeClock())

    with pytest.raises(AssertionError, match="Conflict was not raised"):
        asyncio.run(check_object_store(make))


def test_a_type_is_named_with_its_group() -> None:
    assert type_of({"apiVersion": "serving.knative.dev/v1", "kind": "Service"}) == SERVICE
    assert type_of({"apiVersion": "v1", "kind": "Service"}) == "Service"


def test_a_writer_without_a_version_is_not_refused() -> None:
    async def scenario() -> None:
        objects = MemoryStore(FakeClock())
        await objects.create(service("hello"))
        await objects.update(service("hello", "second"))
        written = await objects.update(service("hello", "third"))
        assert written["metadata"]["generation"] == 3
        with pytest.raises(Conflict, match="exists already"):
            await objects.create(service("hello"))

    asyncio.run(scenario())


def test_a_slow_watcher_sees_the_latest_state_of_each_object_once() -> None:
    async def scenario() -> None:
        objects = MemoryStore(FakeClock())
        await objects.create(service("old", "0"))
        async with contextlib.aclosing(objects.watch(SERVICE)) as changes:
            first = await anext(changes)
            assert isinstance(first, ObjectChange)
            assert first.key.name == "old"
            for number in range(1, 100):
                await objects.update(service("old", str(number)))
            await objects.create(service("new"))
            assert await anext(changes) is SYNCED
            seen = [await anext(changes), await anext(changes)]
            assert [change.key.name for change in seen if isinstance(change, ObjectChange)] == ["old", "new"]
            assert isinstance(seen[0], ObjectChange)
            assert seen[0].manifest == await objects.get(seen[0].key)
            assert repr(objects) == "<MemoryStore 2 objects, 1 watches>"
        assert repr(objects) == "<MemoryStore 2 objects, 0 watches>"

    asyncio.run(scenario())


def test_a_change_of_what_was_there_is_told_before_the_mark() -> None:
    async def scenario() -> None:
        objects = MemoryStore(FakeClock())
        await objects.create(service("a"))
        await objects.create(service("b"))
        async with contextlib.aclosing(objects.watch(SERVICE)) as changes:
            await anext(changes)
            await objects.delete(ObjectKey(SERVICE, "default", "b"))
            assert await anext(changes) == ObjectChange(ObjectKey(SERVICE, "default", "b"), None)
            assert await anext(changes) is SYNCED

    asyncio.run(scenario())


def test_a_list_by_label_decodes_what_it_finds_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reconcile costs must not grow with what others have deployed."""
    decoded = []

    def counting(data: bytes) -> dict[str, object]:
        decoded.append(data)
        return decode(data)

    async def scenario() -> None:
        objects = MemoryStore(FakeClock())
        for number in range(50):
            owner = await objects.create(service(f"hello-{number}"))
            await objects.create(owned(owner, f"hello-{number}-00001"))
        monkeypatch.setattr("upwell.runtime.cluster.journaled.decode", counting)
        monkeypatch.setattr("upwell.runtime.cluster.transaction.decode", counting)
        found = await objects.list(REVISION, "default", labels={"serving.knative.dev/service": "hello-7"})
        assert [revision["metadata"]["name"] for revision in found] == ["hello-7-00001"]
        assert len(decoded) == 1
        await objects.delete(ObjectKey(SERVICE, "default", "hello-7"))
        assert len(decoded) == 3
        assert len(await objects.list(REVISION)) == 49

    asyncio.run(scenario())

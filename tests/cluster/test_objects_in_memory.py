"""The rules that every `ObjectStore` keeps, tried on the one in memory."""

import asyncio
import contextlib

import pytest

from upwell.functions.errors import Conflict, NotFound
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.testing.clock import FakeClock

HELLO = ObjectKey("Service", "default", "hello")


def service(name: str = "hello", **spec: object) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def store() -> MemoryStore:
    return MemoryStore(FakeClock())


def test_a_created_object_has_identity_generation_and_time() -> None:
    created = asyncio.run(store().create(service(a=1)))
    metadata = created["metadata"]
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"].endswith("Z")
    assert len(metadata["uid"]) == 36
    assert metadata["resourceVersion"] == "1"


def test_creating_twice_is_a_conflict() -> None:
    async def scenario() -> None:
        objects = store()
        await objects.create(service())
        with pytest.raises(Conflict, match="exists already"):
            await objects.create(service())

    asyncio.run(scenario())


def test_the_generation_grows_with_the_spec_and_not_with_labels_or_status() -> None:
    async def scenario() -> list[int]:
        objects = store()
        read = await objects.create(service(a=1))
        generations = [read["metadata"]["generation"]]
        read["metadata"]["labels"] = {"team": "x"}
        read = await objects.update(read)
        generations.append(read["metadata"]["generation"])
        read = await objects.update_status(read | {"status": {"ok": True}})
        generations.append(read["metadata"]["generation"])
        read["spec"] = {"a": 2}
        read = await objects.update(read)
        generations.append(read["metadata"]["generation"])
        assert read["status"] == {"ok": True}
        assert read["metadata"]["labels"] == {"team": "x"}
        return generations

    assert asyncio.run(scenario()) == [1, 1, 1, 2]


def test_a_stale_writer_is_refused_and_one_without_a_version_is_not() -> None:
    async def scenario() -> None:
        objects = store()
        first = await objects.create(service(a=1))
        await objects.update(service(a=2))
        with pytest.raises(Conflict, match="changed since"):
            await objects.update(first | {"spec": {"a": 3}})
        with pytest.raises(Conflict):
            await objects.update_status(first | {"status": {"late": True}})
        stored = await objects.get(HELLO)
        assert stored is not None
        assert stored["spec"] == {"a": 2}

    asyncio.run(scenario())


def test_a_write_that_changes_nothing_makes_no_version_and_wakes_nobody() -> None:
    async def scenario() -> None:
        objects = store()
        created = await objects.create(service(a=1))
        async with contextlib.aclosing(objects.watch("Service")) as changes:
            await anext(changes)
            again = await objects.update(service(a=1))
            assert again["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
            await objects.delete(HELLO)
            assert await anext(changes) == ObjectChange(HELLO, None)

    asyncio.run(scenario())


def test_what_is_handed_out_is_a_copy() -> None:
    async def scenario() -> None:
        objects = store()
        read = await objects.create(service(items=[1]))
        read["spec"]["items"].append(2)
        stored = await objects.get(HELLO)
        assert stored is not None
        assert stored["spec"]["items"] == [1]

    asyncio.run(scenario())


def test_missing_objects_are_none_to_read_and_errors_to_write() -> None:
    async def scenario() -> None:
        objects = store()
        assert await objects.get(HELLO) is None
        for attempt in (objects.update(service()), objects.update_status(service()), objects.delete(HELLO)):
            with pytest.raises(NotFound):
                await attempt

    asyncio.run(scenario())


def test_lists_are_by_kind_and_namespace_in_order_of_names() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        objects = store()
        for name in ("b", "a"):
            await objects.create(service(name))
        other = service("c")
        other["metadata"]["namespace"] = "team"
        await objects.create(other)
        await objects.create(service("d") | {"kind": "Revision"})
        here = [found["metadata"]["name"] for found in await objects.list("Service", "default")]
        everywhere = [found["metadata"]["name"] for found in await objects.list("Service")]
        return here, everywhere

    assert asyncio.run(scenario()) == (["a", "b"], ["a", "b", "c"])


def test_deleting_an_owner_deletes_what_it_controls_down_to_the_last() -> None:
    async def scenario() -> None:
        objects = store()
        owner = await objects.create(service())

        def owned(kind: str, by: Manifest, *, controller: bool = True) -> Manifest:
            reference = {"kind": by["kind"], "uid": by["metadata"]["uid"], "controller": controller}
            child = service(kind.lower()) | {"kind": kind}
            child["metadata"]["ownerReferences"] = [reference]
            return child

        revision = await objects.create(owned("Revision", owner))
        await objects.create(owned("Deployment", revision))
        await objects.create(owned("Ingress", owner, controller=False))
        await objects.delete(HELLO)
        assert await objects.list("Revision") == []
        assert await objects.list("Deployment") == []
        assert len(await objects.list("Ingress")) == 1

    asyncio.run(scenario())


def test_a_watch_begins_with_what_is_there_and_a_slow_one_sees_the_latest_state_once() -> None:
    async def scenario() -> None:
        objects = store()
        await objects.create(service("old", n=0))
        async with contextlib.aclosing(objects.watch("Service")) as changes:
            first = await anext(changes)
            assert first.key.name == "old"
            for n in range(1, 100):
                await objects.update(service("old", n=n))
            await objects.create(service("new"))
            seen = [await anext(changes), await anext(changes)]
            assert [change.key.name for change in seen] == ["old", "new"]
            assert seen[0].manifest is not None
            assert seen[0].manifest["spec"] == {"n": 99}
            assert repr(objects) == "<MemoryStore 2 objects, 1 watches>"
        assert repr(objects) == "<MemoryStore 2 objects, 0 watches>"

    asyncio.run(scenario())

"""What every `ObjectStore` must do, as checks that any implementation can be put through.

Each check is an async function that takes an empty store and raises AssertionError; `check_object_store` runs them
all, each on a store of its own. They write valid Knative Services and what belongs to them into the namespace
`default`, read versions as opaque, and wait for what a server may do in its own time, for `PATIENCE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from upwell.functions.errors import Conflict, NotFound, UpwellError
from upwell.runtime.cluster.interface import SYNCED, Manifest, ObjectChange, ObjectKey, ObjectStore, Synced
from upwell.runtime.cluster.kinds import INGRESS, REVISION, SERVICE

PATIENCE_SECONDS: Final = 10.0
_LABEL: Final = "serving.knative.dev/service"


def service(name: str, image: str = "hello", labels: dict[str, str] | None = None) -> Manifest:
    """A small Knative Service."""
    template = {"spec": {"containers": [{"image": image}]}}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"template": template},
    }


def owned(owner: Manifest, name: str, *, controller: bool = True) -> Manifest:
    """A Revision that names `owner`."""
    reference: dict[str, Any] = {name: owner[name] for name in ("apiVersion", "kind")}
    reference |= {name: owner["metadata"][name] for name in ("name", "uid")}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {_LABEL: owner["metadata"]["name"]},
            "ownerReferences": [reference | {"controller": controller}],
        },
        "spec": {"containers": [{"image": "hello"}]},
    }


async def check_creation_sets_identity_generation_and_time(store: ObjectStore) -> None:
    """A created object is complete, and read back as it was returned."""
    created = await store.create(service("hello"))
    metadata = created["metadata"]
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["uid"]
    assert metadata["resourceVersion"]
    assert await store.get(ObjectKey.of(created)) == created


async def check_a_name_is_taken_once(store: ObjectStore) -> None:
    """Creating what exists is a Conflict; the same name in another type is not."""
    created = await store.create(service("hello"))
    await _raises(Conflict, store.create(service("hello", "other")))
    revision = await store.create(owned(created, "hello"))
    assert ObjectKey.of(revision) != ObjectKey.of(created)


async def check_types_are_told_apart_by_their_group(store: ObjectStore) -> None:
    """A Service of Knative's is none of Kubernetes' core, although both are called Service."""
    created = await store.create(service("hello"))
    assert ObjectKey.of(created).kind == SERVICE
    assert await store.get(ObjectKey("Service", "default", "hello")) is None
    assert await store.list("Service", "default") == []


async def check_the_generation_grows_with_the_spec_alone(store: ObjectStore) -> None:
    """Neither labels nor a status make a generation, and an update leaves the status."""
    read = await store.create(service("hello"))
    read["metadata"]["labels"] = {"team": "x"}
    read = await store.update(read)
    assert read["metadata"]["generation"] == 1
    read = await store.update_status(read | {"status": {"observedGeneration": 1}})
    assert read["metadata"]["generation"] == 1
    read = await store.update(read | {"spec": service("hello", "other")["spec"]})
    assert read["metadata"]["generation"] == 2
    assert read["status"]["observedGeneration"] == 1
    assert read["metadata"]["labels"] == {"team": "x"}


async def check_a_status_write_changes_the_status_alone(store: ObjectStore) -> None:
    """A spec that comes along with it is passed over."""
    read = await store.create(service("hello"))
    changed = read | {"spec": service("hello", "other")["spec"], "status": {"observedGeneration": 1}}
    await store.update_status(changed)
    stored = await _present(store, ObjectKey.of(read))
    assert stored["spec"] == read["spec"]
    assert stored["status"]["observedGeneration"] == 1


async def check_a_stale_writer_is_refused(store: ObjectStore) -> None:
    """Both kinds of writes raise Conflict on an old version, and change nothing."""
    first = await store.create(service("hello"))
    second = await store.update(first | {"spec": service("hello", "second")["spec"]})
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    await _raises(Conflict, store.update(first | {"spec": service("hello", "third")["spec"]}))
    await _raises(Conflict, store.update_status(first | {"status": {"observedGeneration": 7}}))
    assert await _present(store, ObjectKey.of(first)) == second


async def check_what_is_missing_is_none_to_read_and_an_error_to_write(store: ObjectStore) -> None:
    """NotFound for update, update_status and delete."""
    assert await store.get(ObjectKey(SERVICE, "default", "absent")) is None
    await _raises(NotFound, store.update(service("absent")))
    await _raises(NotFound, store.update_status(service("absent") | {"status": {}}))
    await _raises(NotFound, store.delete(ObjectKey(SERVICE, "default", "absent")))


async def check_what_is_handed_out_is_a_copy(store: ObjectStore) -> None:
    """Changing it changes nothing in the store."""
    read = await store.create(service("hello"))
    read["spec"]["template"]["spec"]["containers"].clear()
    stored = await _present(store, ObjectKey.of(read))
    assert len(stored["spec"]["template"]["spec"]["containers"]) == 1


async def check_lists_are_by_type_namespace_and_labels_in_order(store: ObjectStore) -> None:
    """A label that was taken away does not find the object any more."""
    for name, team in (("b", "x"), ("a", "x"), ("c", "y")):
        await store.create(service(name, labels={"team": team, "app": name}))
    assert await _names(store, {}) == ["a", "b", "c"]
    assert await _names(store, {"team": "x"}) == ["a", "b"]
    assert await _names(store, {"team": "x", "app": "b"}) == ["b"]
    assert await _names(store, {"team": "z"}) == []
    assert await store.list(SERVICE, "elsewhere", labels={"team": "x"}) == []
    assert await store.list(REVISION, "default", labels={"team": "x"}) == []
    changed = await _present(store, ObjectKey(SERVICE, "default", "a"))
    changed["metadata"]["labels"] = {"team": "y", "app": "a"}
    await store.update(changed)
    assert await _names(store, {"team": "x"}) == ["b"]
    assert await _names(store, {"team": "y"}) == ["a", "c"]
    await store.delete(ObjectKey(SERVICE, "default", "b"))
    assert await _names(store, {"team": "x"}) == []


async def check_deletion_takes_what_is_controlled_down_to_the_last(store: ObjectStore) -> None:
    """What names the deleted object without being controlled by it stays, and so does everything else."""
    owner = await store.create(service("hello"))
    other = await store.create(service("other"))
    revision = await store.create(owned(owner, "hello-00001"))
    await store.create(owned(revision, "grandchild"))
    await store.create(owned(owner, "acquaintance", controller=False))
    await store.create(owned(other, "other-00001"))
    async with contextlib.aclosing(store.watch(REVISION)) as changes:
        assert sorted(await _until_synced(changes)) == ["acquaintance", "grandchild", "hello-00001", "other-00001"]
        await store.delete(ObjectKey.of(owner))
        gone = {(await _next(changes)).key.name for _ in range(2)}
        assert gone == {"hello-00001", "grandchild"}
    left = [revision["metadata"]["name"] for revision in await store.list(REVISION, "default")]
    assert left == ["acquaintance", "other-00001"]


async def check_nothing_stays_that_is_made_for_an_owner_who_is_gone(store: ObjectStore) -> None:
    """Refused at once or removed soon; one who came under the same name later is another owner."""
    gone = await store.create(service("hello"))
    await store.delete(ObjectKey.of(gone))
    revision = owned(gone, "hello-00001")
    with contextlib.suppress(NotFound):
        await store.create(revision)
    await _absent(store, ObjectKey.of(revision))
    await store.create(service("hello"))
    with contextlib.suppress(NotFound):
        await store.create(revision)
    await _absent(store, ObjectKey.of(revision))


async def check_a_watch_tells_what_is_there_then_synced_then_changes(store: ObjectStore) -> None:
    """Of the types that were asked for alone."""
    first = await store.create(service("first"))
    async with contextlib.aclosing(store.watch(SERVICE, INGRESS)) as changes:
        assert await _until_synced(changes) == ["first"]
        await store.create(owned(first, "unwatched"))
        second = await store.create(service("second"))
        assert await _next(changes) == ObjectChange(ObjectKey.of(second), second)
        await store.delete(ObjectKey.of(first))
        assert await _next(changes) == ObjectChange(ObjectKey.of(first), None)


async def check_a_watch_of_nothing_is_synced_at_once(store: ObjectStore) -> None:
    """So that whoever waits for the mark is not held up by an empty store."""
    async with contextlib.aclosing(store.watch(SERVICE)) as changes:
        assert await _until_synced(changes) == []


async def check_a_slow_watcher_sees_the_latest_state(store: ObjectStore) -> None:
    """However many changes it missed, the last thing it hears of an object is what is stored."""
    async with contextlib.aclosing(store.watch(SERVICE)) as changes:
        await _until_synced(changes)
        manifest = await store.create(service("hello"))
        for number in range(20):
            spec = service("hello", f"image-{number}")["spec"]
            manifest = await store.update(manifest | {"spec": spec})
        change = await _next(changes)
        while change.manifest != manifest:
            change = await _next(changes)


async def check_a_write_that_changes_nothing_wakes_nobody(store: ObjectStore) -> None:
    """Nor does it make a version, so that writing what is there comes to rest."""
    created = await store.create(service("hello"))
    async with contextlib.aclosing(store.watch(SERVICE)) as changes:
        await _until_synced(changes)
        again = await store.update(created)
        assert again["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
        await store.delete(ObjectKey.of(created))
        assert (await _next(changes)).manifest is None


async def check_a_watch_can_be_of_one_namespace_or_one_name(store: ObjectStore) -> None:
    """It tells of nothing else, neither of what is there nor of what changes."""
    here, there = service("hello"), service("hello")
    there["metadata"]["namespace"] = "elsewhere"
    for manifest in (here, there, service("other")):
        await store.create(manifest)
    async with (
        contextlib.aclosing(store.watch(SERVICE, namespace="default", name="hello")) as of_one,
        contextlib.aclosing(store.watch(SERVICE, namespace="elsewhere")) as of_namespace,
        contextlib.aclosing(store.watch(SERVICE, name="hello")) as of_name,
        contextlib.aclosing(store.watch(SERVICE, namespace="default", name="absent")) as of_nothing,
    ):
        assert await _until_synced(of_one) == ["hello"]
        assert await _until_synced(of_namespace) == ["hello"]
        assert await _until_synced(of_name) == ["hello", "hello"]
        assert await _until_synced(of_nothing) == []
        await store.delete(ObjectKey(SERVICE, "default", "other"))
        await store.delete(ObjectKey.of(there))
        await store.delete(ObjectKey.of(here))
        await store.create(service("absent"))
        assert await _next(of_one) == ObjectChange(ObjectKey.of(here), None)
        assert await _next(of_namespace) == ObjectChange(ObjectKey.of(there), None)
        assert await _next(of_name) == ObjectChange(ObjectKey.of(there), None)
        assert await _next(of_name) == ObjectChange(ObjectKey.of(here), None)
        assert (await _next(of_nothing)).key.name == "absent"


async def check_what_is_applied_together_is_written_together_or_not_at_all(store: ObjectStore) -> None:
    """New objects are created, those that exist updated; one that is refused takes the others with it."""
    stale = await store.create(service("a"))
    current = await store.update(stale | {"spec": service("a", "second")["spec"]})
    await _raises(Conflict, store.apply_all([service("b"), stale | {"spec": service("a", "third")["spec"]}]))
    assert await store.list(SERVICE) == [current]
    a, b = await store.apply_all([current | {"spec": service("a", "third")["spec"]}, service("b")])
    assert (a["metadata"]["generation"], b["metadata"]["generation"]) == (3, 1)
    assert a["metadata"]["uid"] == stale["metadata"]["uid"]
    assert await store.list(SERVICE) == [a, b]
    assert list(await store.apply_all([a, b])) == [a, b]
    assert list(await store.apply_all([])) == []


async def check_of_writers_who_meet_one_wins(store: ObjectStore) -> None:
    """Also when none has waited for another: all others are refused, and what is stored is the winner's."""
    created = await store.create(service("hello"))
    writes = (store.update(created | {"spec": service("hello", f"image-{n}")["spec"]}) for n in range(10))
    results = await asyncio.gather(*writes, return_exceptions=True)
    (written,) = (result for result in results if isinstance(result, dict))
    assert sum(isinstance(result, Conflict) for result in results) == len(results) - 1
    assert await _present(store, ObjectKey.of(created)) == written
    attempts = (store.create(service("new", f"image-{n}")) for n in range(10))
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == len(results) - 1


Check = Callable[[ObjectStore], Awaitable[None]]

CHECKS: Final[tuple[Check, ...]] = (
    check_creation_sets_identity_generation_and_time,
    check_a_name_is_taken_once,
    check_types_are_told_apart_by_their_group,
    check_the_generation_grows_with_the_spec_alone,
    check_a_status_write_changes_the_status_alone,
    check_a_stale_writer_is_refused,
    check_what_is_missing_is_none_to_read_and_an_error_to_write,
    check_what_is_handed_out_is_a_copy,
    check_lists_are_by_type_namespace_and_labels_in_order,
    check_deletion_takes_what_is_controlled_down_to_the_last,
    check_nothing_stays_that_is_made_for_an_owner_who_is_gone,
    check_a_watch_tells_what_is_there_then_synced_then_changes,
    check_a_watch_of_nothing_is_synced_at_once,
    check_a_slow_watcher_sees_the_latest_state,
    check_a_write_that_changes_nothing_wakes_nobody,
    check_a_watch_can_be_of_one_namespace_or_one_name,
    check_what_is_applied_together_is_written_together_or_not_at_all,
    check_of_writers_who_meet_one_wins,
)


async def check_object_store(make_store: Callable[[], AbstractAsyncContextManager[ObjectStore]]) -> None:
    """Put stores that `make_store` makes, each empty, through all checks; raises the first AssertionError."""
    for check in CHECKS:
        async with make_store() as store:
            await check(store)


async def _raises(error: type[UpwellError], attempt: Awaitable[object]) -> None:
    try:
        await attempt
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


async def _present(store: ObjectStore, key: ObjectKey) -> Manifest:
    manifest = await store.get(key)
    assert manifest is not None, f"{key} is not there"
    return manifest


async def _absent(store: ObjectStore, key: ObjectKey) -> None:
    """Now or soon."""
    watched = store.watch(key.kind, namespace=key.namespace, name=key.name)
    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(watched) as changes:
        async for _ in changes:
            if await store.get(key) is None:
                return


async def _names(store: ObjectStore, labels: dict[str, str]) -> list[str]:
    return [found["metadata"]["name"] for found in await store.list(SERVICE, "default", labels=labels)]


async def _until_synced(changes: AsyncGenerator[ObjectChange | Synced]) -> list[str]:
    """The names of what was there."""
    names = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while isinstance(change := await anext(changes), ObjectChange):
            names.append(change.key.name)
    assert change is SYNCED
    return names


async def _next(changes: AsyncGenerator[ObjectChange | Synced]) -> ObjectChange:
    async with asyncio.timeout(PATIENCE_SECONDS):
        change = await anext(changes)
    assert isinstance(change, ObjectChange), "told of SYNCED twice"
    return change

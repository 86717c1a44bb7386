"""Whatever is written at once and whatever fails: readers, watchers and the journal agree."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.functions.errors import Conflict, NotFound, Unavailable, UpwellError
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, Synced
from upwell.runtime.cluster.journaled import Group, JournaledStore
from upwell.runtime.cluster.kinds import REVISION, SERVICE
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.object_store import owned, service

NAMES = st.sampled_from(["a", "b", "c"])
IMAGES = st.sampled_from(["x", "y"])


@dataclass
class SlowJournal:
    """Keeps groups a while after they came; some it cannot keep."""

    fates: list[bool]
    kept: dict[ObjectKey, bytes] = field(default_factory=dict)
    version: int = 0

    def commit(self, group: Group, done: Callable[[UpwellError | None], None]) -> None:
        asyncio.get_running_loop().call_soon(self._settle, group, done)

    def _settle(self, group: Group, done: Callable[[UpwellError | None], None]) -> None:
        if self.fates and not self.fates.pop(0):
            done(Unavailable("the disk is full"))
            return
        assert group.version > self.version, "a version is given out once"
        self.version = group.version
        for key, data in group.contents.items():
            if data is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = data
        done(None)

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Step:
    """One write of some that are made at the same moment."""

    verb: str
    name: str
    image: str
    stale: bool


STEPS = st.builds(
    Step,
    verb=st.sampled_from(["create", "own", "update", "status", "delete", "apply"]),
    name=NAMES,
    image=IMAGES,
    stale=st.booleans(),
)


async def make(store: JournaledStore, step: Step, read: Manifest | None) -> Any:
    key = ObjectKey(SERVICE, "default", step.name)
    written = service(step.name, step.image)
    if read is not None and step.stale:
        written["metadata"]["resourceVersion"] = read["metadata"]["resourceVersion"]
    if step.verb == "create":
        return await store.create(written)
    if step.verb == "own":
        owner = read or written | {"metadata": written["metadata"] | {"uid": "nobody"}}
        return await store.create(owned(owner, f"{step.name}-{step.image}"))
    if step.verb == "update":
        return await store.update(written)
    if step.verb == "status":
        return await store.update_status(written | {"status": {"image": step.image}})
    if step.verb == "apply":
        return await store.apply_all([written, service("d", step.image)])
    return await store.delete(key)


class Mirror:
    """What a watcher makes of what it is told."""

    def __init__(self) -> None:
        self.objects: dict[ObjectKey, Manifest] = {}

    async def follow(self, changes: AsyncGenerator[ObjectChange | Synced]) -> None:
        async for change in changes:
            if isinstance(change, ObjectChange) and change.manifest is not None:
                known = self.objects.get(change.key)
                assert known is None or version(change.manifest) > version(known), "time runs backwards"
                self.objects[change.key] = change.manifest
            elif isinstance(change, ObjectChange):
                self.objects.pop(change.key, None)


def version(manifest: Manifest) -> int:
    return int(manifest["metadata"]["resourceVersion"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(STEPS, min_size=1, max_size=6), max_size=12), st.lists(st.booleans(), max_size=20))
def test_readers_watchers_and_the_journal_agree_whatever_is_written_and_fails(
    rounds: list[list[Step]], fates: list[bool]
) -> None:
    async def scenario() -> None:
        journal = SlowJournal(fates)
        store = JournaledStore(FakeClock(), journal)
        mirror = Mirror()
        async with contextlib.aclosing(store.watch(SERVICE, REVISION)) as changes:
            following = asyncio.create_task(mirror.follow(changes))
            for steps in rounds:
                read = {step.name: await store.get(ObjectKey(SERVICE, "default", step.name)) for step in steps}
                attempts = (make(store, step, read[step.name]) for step in steps)
                results = await asyncio.gather(*attempts, return_exceptions=True)
                for result in results:
                    assert not isinstance(result, BaseException) or isinstance(
                        result, (Conflict, NotFound, Unavailable)
                    )
                await asyncio.sleep(0)
                await agree(store, journal, mirror)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await store.aclose()
        again = JournaledStore(FakeClock(), journal, journal.kept.items(), journal.version)
        assert await everything(again) == mirror.objects

    asyncio.run(scenario())


async def agree(store: JournaledStore, journal: SlowJournal, mirror: Mirror) -> None:
    objects = await everything(store)
    assert {key: json.loads(data) for key, data in journal.kept.items()} == objects
    assert mirror.objects == objects
    for key, manifest in objects.items():
        assert await store.get(key) == manifest
        for name, value in manifest["metadata"]["labels"].items():
            assert manifest in await store.list(key.kind, "default", labels={name: value})


async def everything(store: JournaledStore) -> dict[ObjectKey, Manifest]:
    return {ObjectKey.of(found): found for kind in (SERVICE, REVISION) for found in await store.list(kind)}


@given(st.lists(st.tuples(st.integers(0, 4), IMAGES), min_size=2, max_size=12))
def test_of_writers_who_read_the_same_version_exactly_one_is_served(writers: list[tuple[int, str]]) -> None:
    """However long each lets the loop turn before it writes."""

    async def scenario() -> None:
        store = JournaledStore(FakeClock(), SlowJournal([]))
        read = await store.create(service("a", "first"))

        async def write(turns: int, image: str, number: int) -> Manifest:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await store.update(read | {"spec": service("a", f"{image}-{number}")["spec"]})

        attempts = (write(turns, image, number) for number, (turns, image) in enumerate(writers))
        results = await asyncio.gather(*attempts, return_exceptions=True)
        (served,) = (result for result in results if isinstance(result, dict))
        assert [type(result) for result in results].count(Conflict) == len(writers) - 1
        assert await store.get(ObjectKey.of(read)) == served
        assert served["metadata"]["generation"] == 2

    asyncio.run(scenario())

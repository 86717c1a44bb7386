"""What the data plane did at once stands in the store soon after, the latest state once, whatever went wrong."""

import asyncio
from collections.abc import Callable

import pytest

from upwell.functions.errors import Conflict, Unavailable
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import DEPLOYMENT
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.cluster.recorder import DeploymentState, Recorder
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

KEY = ObjectKey(DEPLOYMENT, "default", "hello-00001-deployment")


def deployment() -> Manifest:
    metadata = {"name": KEY.name, "namespace": KEY.namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 0}}


def state(wanted: int, *, available: bool | None = True) -> DeploymentState:
    return DeploymentState(wanted, wanted, wanted, available, "MinimumReplicasAvailable", "")


class FailingStore(MemoryStore):
    """Raises what it is told to at the next status writes."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.failures: list[Exception] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def update_status(self, manifest: Manifest) -> Manifest:
        if self.failures:
            self.meanwhile()
            raise self.failures.pop(0)
        return await super().update_status(manifest)


async def settle(recorder: Recorder, seconds: float = 60) -> None:
    running = asyncio.create_task(recorder.run())
    await asyncio.sleep(seconds)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def written(objects: MemoryStore) -> Manifest:
    manifest = await objects.get(KEY)
    assert manifest is not None
    return manifest


def test_the_latest_note_is_written_once() -> None:
    async def scenario() -> Manifest:
        objects = MemoryStore(FakeClock())
        created = await objects.create(deployment())
        recorder = Recorder(objects)
        for wanted in range(1, 6):
            recorder.note(KEY, state(wanted))
        await settle(recorder)
        found = await written(objects)
        versions = int(found["metadata"]["resourceVersion"]) - int(created["metadata"]["resourceVersion"])
        assert versions == 2, "one write of the spec and one of the status"
        assert repr(recorder) == "<Recorder 0 notes to write>"
        return found

    found = run_fake(scenario())
    assert found["spec"]["replicas"] == 5
    assert found["status"]["readyReplicas"] == 5
    assert found["status"]["observedGeneration"] == 2
    assert found["status"]["conditions"][0]["status"] == "True"


def test_before_the_function_is_loaded_there_is_no_condition() -> None:
    assert "conditions" not in state(1, available=None).status()
    failed = DeploymentState(1, 0, 0, False, "ImportFailed", "no module named x").status()
    assert failed["conditions"] == [
        {"type": "Available", "status": "False", "reason": "ImportFailed", "message": "no module named x"}
    ]


def test_a_note_of_what_was_deleted_is_dropped_and_the_next_is_written() -> None:
    async def scenario() -> int:
        objects = MemoryStore(FakeClock())
        recorder = Recorder(objects)
        recorder.note(KEY._replace(name="gone"), state(1))
        await objects.create(deployment())
        recorder.note(KEY, state(3))
        await settle(recorder)
        assert repr(recorder) == "<Recorder 0 notes to write>"
        return int((await written(objects))["spec"]["replicas"])

    assert run_fake(scenario()) == 3


@pytest.mark.parametrize("failure", [Conflict("stale"), Unavailable("the disk is full"), RuntimeError("a defect")])
def test_what_could_not_be_written_is_written_later(failure: Exception) -> None:
    async def scenario() -> Manifest:
        objects = FailingStore()
        await objects.create(deployment())
        objects.failures = [failure, failure, failure]
        recorder = Recorder(objects)
        recorder.note(KEY, state(2))
        await settle(recorder)
        return await written(objects)

    assert run_fake(scenario())["status"]["readyReplicas"] == 2


def test_a_note_made_while_an_older_one_is_written_is_not_lost() -> None:
    async def scenario() -> Manifest:
        objects = FailingStore()
        await objects.create(deployment())
        recorder = Recorder(objects)
        objects.failures = [Conflict("stale")]
        objects.meanwhile = lambda: recorder.note(KEY, state(4))
        recorder.note(KEY, state(2))
        await settle(recorder)
        return await written(objects)

    assert run_fake(scenario())["status"]["readyReplicas"] == 4


def test_a_write_that_keeps_failing_is_told_of_loudly(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        objects = FailingStore()
        await objects.create(deployment())
        objects.failures = [Unavailable("the disk is full")] * 3
        recorder = Recorder(objects)
        recorder.note(KEY, state(2))
        await settle(recorder)

    run_fake(scenario())
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 3
    assert all("the disk is full" in record.getMessage() for record in errors)

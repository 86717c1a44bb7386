"""What the data plane did at once stands in the store soon after, the latest state once."""

import asyncio

from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.cluster.recorder import DeploymentState, Recorder
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake

KEY = ObjectKey("Deployment", "default", "hello-00001-deployment")


def deployment() -> Manifest:
    metadata = {"name": KEY.name, "namespace": KEY.namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 0}}


def state(wanted: int, *, available: bool | None = True) -> DeploymentState:
    return DeploymentState(wanted, wanted, wanted, available, "MinimumReplicasAvailable", "")


async def settle(recorder: Recorder) -> None:
    running = asyncio.create_task(recorder.run())
    await asyncio.sleep(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_the_latest_note_is_written_once() -> None:
    async def scenario() -> Manifest:
        objects = MemoryStore(FakeClock())
        created = await objects.create(deployment())
        recorder = Recorder(objects)
        for wanted in range(1, 6):
            recorder.note(KEY, state(wanted))
        await settle(recorder)
        written = await objects.get(KEY)
        assert written is not None
        versions = int(written["metadata"]["resourceVersion"]) - int(created["metadata"]["resourceVersion"])
        assert versions == 2, "one write of the spec and one of the status"
        return written

    written = run_fake(scenario())
    assert written["spec"]["replicas"] == 5
    assert written["status"]["readyReplicas"] == 5
    assert written["status"]["observedGeneration"] == 2
    assert written["status"]["conditions"][0]["status"] == "True"


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
        written = await objects.get(KEY)
        assert written is not None
        return int(written["spec"]["replicas"])

    assert run_fake(scenario()) == 3

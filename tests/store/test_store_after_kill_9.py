"""A store whose process was killed with SIGKILL opens, with all that was acknowledged and nothing by halves."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import REVISION, SERVICE
from upwell.runtime.cluster.sqlite import SqliteStore
from upwell.runtime.testing.clock import FakeClock

WRITER = Path(__file__).with_name("writer.py")
TOGETHER = ("left", "middle", "right")
KILLS = 8


@dataclass
class Acknowledged:
    """What the killed processes have said, all of them taken together."""

    together: int = -1
    made: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    version: int = 0

    def read(self, lines: Sequence[str]) -> None:
        self.together = -1
        for what, name, *version in (line.split() for line in lines if line.endswith("\n")):
            if what == "together":
                self.together = int(name)
            elif what != "owned":
                (self.made if what == "made" else self.deleted).add(name)
            self.version = max(self.version, *map(int, version), 0)


def kill_a_writer(path: Path, seed: int, seconds: float) -> list[str]:
    """Run a writer, kill it `seconds` after its first acknowledged write; the lines that it wrote."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(path), str(seed)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        timer = threading.Timer(seconds, os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        lines = [first, *process.stdout.readlines()]
        timer.join()
    assert process.returncode == -signal.SIGKILL
    return lines


async def found(path: Path) -> tuple[list[Manifest], list[Manifest], int]:
    """Services and Revisions, and a version that is given out now."""
    store = SqliteStore(path, FakeClock())
    services, revisions = await store.list(SERVICE), await store.list(REVISION)
    marker = {"apiVersion": "v1", "kind": "Marker", "metadata": {"name": "m", "namespace": "default"}}
    written = await store.create(marker)
    await store.delete(ObjectKey.of(marker))
    await store.aclose()
    return services, revisions, int(written["metadata"]["resourceVersion"])


@pytest.mark.parametrize("seed", [random.SystemRandom().randrange(1 << 30)])
def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path: Path, seed: int) -> None:
    """The seed stands in the test's name, and so in the report of a failure."""
    chosen = random.Random(seed)
    path = tmp_path / "objects.db"
    acknowledged = Acknowledged()
    for kill in range(KILLS):
        acknowledged.read(kill_a_writer(path, seed + kill, chosen.random() * 0.4))
        services, revisions, version = asyncio.run(found(path))
        by_name = {each["metadata"]["name"]: each for each in services}
        together = {image(by_name[name]) for name in TOGETHER if name in by_name}
        assert len(together) <= 1, "some of those that are written together are older than the others"
        assert len([name for name in TOGETHER if name in by_name]) in (0, 3)
        if acknowledged.together >= 0:
            assert int(together.pop().split()[0]) >= acknowledged.together
        missing = acknowledged.made - acknowledged.deleted - set(by_name)
        assert missing <= in_doubt(acknowledged)
        assert len(missing) <= 2 * (kill + 1), "two writers were about to delete one each"
        assert not acknowledged.deleted & by_name.keys()
        owners = {each["metadata"]["uid"] for each in services}
        assert {owner_of(revision) for revision in revisions} <= owners, "deleted by halves"
        assert version > acknowledged.version


def in_doubt(acknowledged: Acknowledged) -> set[str]:
    """Those that the process was about to delete: their deletion may stand although nobody was told."""
    return {name for name in acknowledged.made if int(name.rpartition("-")[2]) % 2}


def image(manifest: Manifest) -> str:
    text: str = manifest["spec"]["template"]["spec"]["containers"][0]["image"]
    return text


def owner_of(manifest: Manifest) -> str:
    uid: str = manifest["metadata"]["ownerReferences"][0]["uid"]
    return uid

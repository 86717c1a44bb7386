"""A process that writes to a store until it is killed, and says on standard output what was acknowledged.

`python writer.py FILE SEED` changes three objects together, again and again, and makes and deletes others beside
that. A line is printed as soon as a write has returned, and never before.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.interface import ObjectKey
from upwell.runtime.cluster.sqlite import SqliteStore
from upwell.runtime.testing.object_store import owned, service

TOGETHER = ("left", "middle", "right")


async def write(path: Path, seed: int) -> None:
    """Until killed."""
    chosen = random.Random(seed)
    store = SqliteStore(path, SystemClock())

    async def together() -> None:
        number = 0
        while True:
            image = f"{number} {'x' * chosen.randrange(5000)}"
            written = await store.apply_all([service(name, image) for name in TOGETHER])
            say("together", str(number), max(object["metadata"]["resourceVersion"] for object in written))
            number += 1

    async def alone(prefix: str) -> None:
        number = 0
        while True:
            name = f"{prefix}-{seed}-{number}"
            owner = await store.create(service(name))
            say("made", name, owner["metadata"]["resourceVersion"])
            if number % 2:
                await store.create(owned(owner, f"{name}-00001"))
                say("owned", name)
                await store.delete(ObjectKey.of(owner))
                say("deleted", name)
            number += 1

    await asyncio.gather(together(), alone("a"), alone("b"))


def say(*words: str) -> None:
    """One line, at once."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))

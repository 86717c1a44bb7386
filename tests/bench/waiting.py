"""Waiting on a platform through its interface, until what was applied is so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from upwell.runtime.api.client import Client
from upwell.runtime.api.shapes import Outcome
from upwell.runtime.cluster.kinds import SERVICE

POLL_SECONDS: Final = 0.02


def until(reached: Callable[[], bool], what: str, seconds: float) -> None:
    """Return once `reached`. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


def until_current(client: Client, applied: Sequence[Outcome], seconds: float) -> None:
    """Return once the generations of services that were applied are ready. Raises TimeoutError."""
    waiting = {each.name: each.generation for each in applied}
    deadline = time.monotonic() + seconds
    for line in client.watch(SERVICE, remaining=lambda: max(0.001, deadline - time.monotonic())):
        service = line.get("object")
        if service is not None and _is_ready(service, waiting):
            waiting.pop(service["metadata"]["name"], None)
        if not waiting:
            return


def until_in_force(client: Client, policies: Sequence[dict[str, Any]], seconds: float) -> None:
    """Return once each of these policies says that it acts somewhere. Raises TimeoutError."""
    for policy in policies:
        group = policy["apiVersion"].partition("/")[0]
        kind, metadata = f"{policy['kind']}.{group}", policy["metadata"]

        def acts(kind: str = kind, namespace: str = metadata["namespace"], name: str = metadata["name"]) -> bool:
            conditions = client.get(kind, namespace, name).get("status", {}).get("conditions", ())
            return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

        until(acts, f"{kind} {metadata['name']} acts on nothing", seconds)


def until_replicas(client: Client, revision: str, count: int, seconds: float) -> list[dict[str, Any]]:
    """The replicas of a revision of the namespace `default` once `count` are ready. Raises TimeoutError."""

    def ready() -> list[dict[str, Any]]:
        return [each for each in client.replicas("default", revision) if each["state"] == "ready"]

    until(lambda: len(ready()) >= count, f"{count} replicas of {revision}", seconds)
    return ready()


def _is_ready(service: dict[str, Any], generations: dict[str, int]) -> bool:
    wanted = generations.get(service["metadata"]["name"], 0)
    status = service.get("status", {})
    if status.get("observedGeneration", 0) < wanted:
        return False
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))

"""From stored objects to the data plane: routes to the gateway, revisions to gateway and autoscaler.

In a cluster gateway and autoscaler are processes of their own and each follows the objects itself; `follow` is
what they run, over whatever store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

from upwell.runtime.cluster.deployments import DEFAULT_TIMEOUT_SECONDS
from upwell.runtime.cluster.interface import Manifest, ObjectKey, ObjectStore
from upwell.runtime.control.ingress import route_table
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import RouteTable


class RouteTarget(Protocol):
    """What is told of routes and of revisions' limits: the gateway."""

    def set_routes(self, routes: RouteTable) -> None:
        """All routes as they are now."""
        ...

    def set_revision(self, revision: str, limits: RevisionLimits) -> None:
        """A revision is new or its limits changed."""
        ...

    def remove_revision(self, revision: str) -> None:
        """A revision is gone."""
        ...


class ScaleTarget(Protocol):
    """What is told of revisions: the autoscaler."""

    def set_revision(self, revision: str, manifest: Manifest) -> None:
        """A revision is new or its settings changed."""
        ...

    def remove_revision(self, revision: str) -> None:
        """A revision is gone."""
        ...


async def follow(
    objects: ObjectStore,
    gateway: RouteTarget,
    autoscaler: ScaleTarget,
    burst_threshold: Callable[[Manifest], int],
) -> None:
    """Keep gateway and autoscaler told of every Revision and Ingress, until cancelled.

    `burst_threshold` says how many requests one replica of a revision takes before the autoscaler is poked.
    """
    ingresses: dict[ObjectKey, Manifest] = {}
    async with contextlib.aclosing(objects.watch("Revision", "Ingress")) as changes:
        async for change in changes:
            if change.key.kind == "Ingress":
                if change.manifest is None:
                    ingresses.pop(change.key, None)
                else:
                    ingresses[change.key] = change.manifest
                gateway.set_routes(route_table(ingresses.values()))
                continue
            revision = f"{change.key.namespace}/{change.key.name}"
            if change.manifest is None:
                gateway.remove_revision(revision)
                autoscaler.remove_revision(revision)
            else:
                autoscaler.set_revision(revision, change.manifest)
                gateway.set_revision(revision, _limits(change.manifest, burst_threshold(change.manifest)))


def _limits(revision: Manifest, burst_threshold: int) -> RevisionLimits:
    spec = revision["spec"]
    return RevisionLimits(
        container_concurrency=int(spec.get("containerConcurrency") or 0),
        timeout_seconds=float(spec.get("timeoutSeconds") or DEFAULT_TIMEOUT_SECONDS),
        burst_threshold=max(1, burst_threshold),
    )

"""What the platform asks of a cluster, be it this machine or Kubernetes.

A cluster stores objects and tells of their changes, and it runs replicas of revisions and tells of theirs. All
calls are made from one event loop. Object calls may wait for a server; `scale` and `replicas` never wait, since
they stand between a held request and the replica that will answer it.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from upwell.runtime.cluster.kinds import type_of
from upwell.runtime.http.connect import Endpoint

Manifest = dict[str, Any]
"""One object as it is written in YAML: apiVersion, kind, metadata, spec, status."""


class ObjectKey(NamedTuple):
    """Names one object. `kind` is its type with the API group, as in `upwell.runtime.cluster.kinds`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @classmethod
    def of(cls, manifest: Manifest) -> ObjectKey:
        """The key of `manifest`, whose metadata must carry a name, and a namespace unless its kind has none."""
        metadata = manifest["metadata"]
        return cls(type_of(manifest), metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """An object as it is now, or None once it is gone. Watches coalesce: only the latest state is told."""

    key: ObjectKey
    manifest: Manifest | None


class Synced(enum.Enum):
    """The mark in a watch between what was there when it began and what changed since."""

    SYNCED = enum.auto()


SYNCED: Final = Synced.SYNCED


class ObjectStore(Protocol):
    """Objects with optimistic concurrency, as the Kubernetes API serves them.

    A manifest handed out is the caller's own copy. Writers send back the `metadata.resourceVersion` they read. A
    write that returned is durable as far as the store is, and was not seen before; any may raise Unavailable, and
    has changed nothing then.
    """

    async def get(self, key: ObjectKey) -> Manifest | None:
        """The object, or None."""
        ...

    async def list(
        self, kind: str, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """The objects of `kind`, in one namespace or in all, that carry all of `labels`; ordered by key.

        With `labels` it costs what it finds, not what the store holds.
        """
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Store a new object with its uid, generation 1 and creation time set.

        Raises Conflict if it exists, and NotFound when the owner that is to control it does not: one that was
        deleted meanwhile leaves nothing behind. (A store may also take it and remove it by itself.)
        """
        ...

    async def update(self, manifest: Manifest) -> Manifest:
        """Replace spec and metadata; the generation grows when the spec differs; the status stays as stored.

        Raises NotFound, and Conflict when `resourceVersion` is given and stale.
        """
        ...

    async def update_status(self, manifest: Manifest) -> Manifest:
        """Replace the status alone. Raises NotFound, and Conflict when `resourceVersion` is given and stale."""
        ...

    async def apply_all(self, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """Create each object, or update it if it exists: all of them or none. The objects as they are stored.

        Raises what `update` raises, of the first that cannot be written.
        """
        ...

    async def delete(self, key: ObjectKey) -> None:
        """Remove the object and whatever names it as its controlling owner. Raises NotFound."""
        ...

    def watch(
        self, *kinds: str, namespace: str | None = None, name: str | None = None
    ) -> AsyncGenerator[ObjectChange | Synced]:
        """Every object of these kinds once, then SYNCED, then every change; ends when the iterator is closed.

        `namespace` and `name` narrow it to objects of that namespace or name.
        What a watcher has not heard of by SYNCED does not exist: only then may it act on absence.
        """
        ...


class ReplicaState(enum.Enum):
    """Where a replica stands in its life; it only moves downwards in this list."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Replica:
    """One running copy of a revision. Changed by its cluster alone, in place, before observers are told."""

    name: str
    revision: str
    endpoint: Endpoint
    state: ReplicaState
    started_at: float
    """Unix seconds of the decision to start it."""
    ready_at: float | None = None
    pid: int | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each phase of its start, in order."""
    locality: str = ""
    """`REGION/ZONE/SUBZONE` of where it runs, without the trailing parts that are not known."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a replica ended."""

    revision: str
    replica: str
    reason: str
    expected: bool
    """True when it was told to end."""
    was_ready: bool


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Replicas of a revision keep ending before they are ready."""

    revision: str
    reason: str
    attempts: int
    """How many in a row have failed; however many replicas an attempt started, it counts once."""
    retry_at: float
    """Unix seconds of the next attempt."""
    traceback: str = ""
    """What the import of its source raised, for the eyes of the one who deployed it; empty for other reasons."""


class ClusterObserver(Protocol):
    """Is told of replicas, synchronously, so that a draining replica gets no further request."""

    def replica_changed(self, replica: Replica) -> None:
        """The replica is new or its state moved on."""
        ...

    def replica_exited(self, exit: Exit) -> None:
        """The replica ended; `replica_changed` with GONE came before."""
        ...

    def start_failed(self, failure: StartFailure) -> None:
        """Replicas could not be started and the next attempt is put off."""
        ...


class Cluster(Protocol):
    """Objects, watch, scale, replicas, exits: the seam between the platform and where it runs."""

    @property
    def objects(self) -> ObjectStore:
        """The objects."""
        ...

    def scale(self, revision: str, replicas: int, *, reason: str) -> None:
        """Run this many replicas of the revision `namespace/name` from now on. Never waits, never raises for
        a revision that is not there (any more)."""
        ...

    def replace(self, replica: Replica, *, reason: str) -> None:
        """Put another replica in the place of one that does not answer, and end it."""
        ...

    def replicas(self, revision: str) -> tuple[Replica, ...]:
        """The replicas that are not gone."""
        ...

    def observe(self, observer: ClusterObserver) -> None:
        """Tell `observer` of everything from now on."""
        ...

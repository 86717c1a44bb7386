"""What the local cluster needs of a host: templates to fork, and the processes that come of them.

`upwell.runtime.host.launcher.HostLauncher` is the one that runs processes; in `upwell.runtime.testing.launcher` is
one whose processes do what a test says.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from upwell.autoscaler.stats import Report
from upwell.runtime.host.process import ExitStatus
from upwell.runtime.host.source import Source
from upwell.runtime.host.templates import LoadResult, TemplateState


class Process(Protocol):
    """A replica's process, from the wish for it to its end."""

    @property
    def pid(self) -> int | None:
        """None until it exists."""
        ...

    def drain(self) -> None:
        """Have it finish what it accepted and end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class ProcessObserver(Protocol):
    """Is told of one replica's process."""

    def ready(self, process: Process, phases: Mapping[str, float]) -> None:
        """It serves; `phases` are milliseconds, in order."""
        ...

    def report(self, process: Process, report: Report) -> None:
        """Its load over a span."""
        ...

    def update(self, process: Process, metrics: Mapping[str, Any]) -> None:
        """Its totals, when they have changed."""
        ...

    def stuck(self, process: Process) -> None:
        """A handler goes on although its request timed out."""
        ...

    def unhealthy(self, process: Process, reason: str) -> None:
        """Its liveness probe has failed: it is to be replaced."""
        ...

    def exited(self, process: Process, status: ExitStatus) -> None:
        """It ended. Told exactly once, and last."""
        ...


class LoadedTemplate(Protocol):
    """A revision's imported function, or the import that is under way; of a program, its trial."""

    @property
    def source(self) -> Source:
        """What it imports or starts."""
        ...

    @property
    def state(self) -> TemplateState:
        """Where it stands."""
        ...

    @property
    def loaded(self) -> asyncio.Future[LoadResult]:
        """Raises LoadFailed when the source cannot be served, Unavailable when its process was lost meanwhile."""
        ...

    def start_replica(self, name: str, listener: socket.socket, observer: ProcessObserver) -> Process:
        """Start a replica on `listener`, which is taken over. Returns at once; raises UpwellError."""
        ...

    def close(self) -> None:
        """End its process; its replicas live on."""
        ...


class Loader(Protocol):
    """What makes templates."""

    def load(self, source: Source) -> LoadedTemplate:
        """Begin to import a function, or to try a program."""
        ...

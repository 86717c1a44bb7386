"""Objects that live as long as the process: the store without a journal."""

from __future__ import annotations

from collections.abc import Callable

from upwell.functions.errors import UpwellError
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.journaled import Group, JournaledStore


class NoJournal:
    """Keeps nothing, at once."""

    def commit(self, group: Group, done: Callable[[UpwellError | None], None]) -> None:
        """See `Journal`."""
        done(None)

    async def aclose(self) -> None:
        """See `Journal`."""


class MemoryStore(JournaledStore):
    """An `ObjectStore` that lives as long as the process. A write is done before its call first waits."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, NoJournal())

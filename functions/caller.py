"""The other end of one request, as its handler sees it: somebody who may leave before the answer is complete."""

from __future__ import annotations

from collections.abc import Callable

from upwell.functions.sdk import Cancellation
from upwell.functions.threads import ThreadPool


class Disconnected(Exception):
    """The caller left; nobody is there to answer."""


class Caller:
    """Lives as long as its request is handled. Its loop's thread calls `left` once, or never.

    `on_leave` ends what is being done for the caller, and is set anew as that changes. `pool` has the threads that
    sync generators run in.
    """

    __slots__ = ("_cancellation", "gone", "on_leave", "pool")

    def __init__(self, on_leave: Callable[[], object], pool: ThreadPool) -> None:
        self.on_leave = on_leave
        self.pool = pool
        self.gone = False
        self._cancellation: Cancellation | None = None

    @property
    def cancellation(self) -> Cancellation:
        """For the function's context; made when it is first asked for."""
        if self._cancellation is None:
            self._cancellation = Cancellation()
        return self._cancellation

    def left(self) -> None:
        """The connection was lost."""
        self.gone = True
        self.give_up()
        self.on_leave()

    def give_up(self) -> None:
        """Tell the function's context that nobody waits for the answer."""
        if self._cancellation is not None:
            self._cancellation.set()

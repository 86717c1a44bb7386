"""Keep-alive connections to one endpoint.

A pool belongs to one event loop. Connections are reused last in, first out, so that surplus ones grow idle and
are closed. Nothing waits on the hot path: `take` gives an idle connection or None; then the user waits in a
bounded queue and is served by whichever comes first, a connection opened for it or one that another lets go.
Openers are tasks of the pool; at most `max_connecting` run at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from upwell.runtime.clock import Clock
from upwell.runtime.http.connect import ConnectFailed, Endpoint, connect
from upwell.runtime.http.settings import HttpSettings
from upwell.runtime.http.upstream_connection import UpstreamConnection, User
from upwell.runtime.timers import Timer, TimerWheel


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Connections and waiting users now, and totals since the pool was made.

    `dropped_total` counts idle connections that the other side closed or sent unasked bytes on.
    """

    idle: int
    active: int
    connecting: int
    waiting: int
    opened_total: int
    reused_total: int
    dropped_total: int
    failed_total: int


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What is asked of a pool's connections beyond the settings; times in seconds, None and 0 for nothing."""

    connect_timeout: float | None = None
    idle: float | None = None
    """Without a request; a longer one than the settings' stands for nothing, since a back end may close then."""
    uses: int = 0
    """Requests on one connection."""
    age: float | None = None
    """After which a connection takes no further request."""


NO_LIMITS = PoolLimits()


class UpstreamPool:
    """Connections to `endpoint`. Use `take` or `wait`; `retire` or `aclose` at its end."""

    __slots__ = (
        "_connecting",
        "_connections",
        "_dropped",
        "_failed",
        "_idle",
        "_idle_timer",
        "_limits",
        "_opened",
        "_openers",
        "_retired",
        "_reused",
        "_unbound",
        "_waiting",
        "clock",
        "endpoint",
        "settings",
        "wheel",
    )

    def __init__(self, endpoint: Endpoint, settings: HttpSettings, clock: Clock, wheel: TimerWheel) -> None:
        self.endpoint = endpoint
        self.settings = self._unbound = settings
        self._limits = NO_LIMITS
        self.clock = clock
        self.wheel = wheel
        self._idle: list[UpstreamConnection] = []
        self._connections: set[UpstreamConnection] = set()
        self._waiting: deque[tuple[User, Timer]] = deque()
        self._openers: set[asyncio.Task[None]] = set()
        self._connecting = 0
        self._retired = False
        self._idle_timer: Timer | None = None
        self._opened = 0
        self._reused = 0
        self._dropped = 0
        self._failed = 0

    def bound(self, limits: PoolLimits) -> None:
        """Keep to these limits, in the place of those before, from the next use of a connection on."""
        own = self._unbound
        self._limits = limits
        self.settings = replace(
            own,
            connect_timeout=own.connect_timeout if limits.connect_timeout is None else limits.connect_timeout,
            upstream_idle=own.upstream_idle if limits.idle is None else min(limits.idle, own.upstream_idle),
        )

    def take(self) -> UpstreamConnection | None:
        """The idle connection used last, or None."""
        if not self._idle:
            return None
        self._reused += 1
        return self._idle.pop()

    def wait(self, user: User) -> str:
        """Have `user.connected` or `user.connect_failed` called later; or say at once why not, in the result.

        An empty result means that it waits, at most `connect_timeout`.
        """
        if self._retired:
            return "the endpoint is retired"
        if len(self._waiting) >= self.settings.max_waiting:
            self._forget_left()
            if len(self._waiting) >= self.settings.max_waiting:
                return "too many requests wait for a connection"
        timer = self.wheel.schedule(self.settings.connect_timeout, self._expire)
        self._waiting.append((user, timer))
        self._open_more()
        return ""

    def release(self, connection: UpstreamConnection) -> None:
        """Called by a connection whose exchange is complete and that may be used again."""
        if self._retired or (self._limits is not NO_LIMITS and self._is_spent(connection)):
            connection.close()
            return
        while self._waiting:
            user, timer = self._waiting.popleft()
            timer.cancel()
            if user.waiting:
                self._reused += connection.served > 0
                user.connected(connection)
                return
        connection.idle_since = self.clock.monotonic()
        self._idle.append(connection)
        if self._idle_timer is None:
            self._idle_timer = self.wheel.schedule(self.settings.upstream_idle, self._close_expired)

    def _is_spent(self, connection: UpstreamConnection) -> bool:
        uses, age = self._limits.uses, self._limits.age
        if uses and connection.served >= uses:
            return True
        return age is not None and self.clock.monotonic() - connection.opened_at >= age

    def gone(self, connection: UpstreamConnection) -> None:
        """Called by a connection that is closed."""
        self._connections.discard(connection)
        self.drop(connection)
        self._open_more()

    def drop(self, connection: UpstreamConnection) -> None:
        """Called by a connection that nobody uses and that cannot be used again."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._dropped += 1

    def close_idle(self) -> None:
        """Close the connections that nobody uses now."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def retire(self) -> None:
        """Take no new use; those waiting fail, those under way end, and their connections close after them."""
        self._retired = True
        self.close_idle()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        for opener in self._openers:
            opener.cancel()
        self._fail_waiting("the endpoint is retired")

    def abandon(self, cause: str) -> None:
        """Retire, and cut off what is under way, but for answers whose client holds them up: of these there may
        be more to read although the endpoint is gone."""
        self.retire()
        for connection in list(self._connections):
            if not connection.reading_paused:
                connection.cut_off(cause)

    async def aclose(self) -> None:
        """Retire, cut off what is under way, and wait for the openers to end."""
        self.retire()
        for connection in list(self._connections):
            connection.cut_off("the endpoint is closed")
        if self._openers:
            await asyncio.wait(self._openers)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            idle=len(self._idle),
            active=len(self._connections) - len(self._idle),
            connecting=self._connecting,
            waiting=sum(user.waiting for user, _ in self._waiting),
            opened_total=self._opened,
            reused_total=self._reused,
            dropped_total=self._dropped,
            failed_total=self._failed,
        )

    def __repr__(self) -> str:
        figures = self.statistics()
        state = "retired, " if self._retired else ""
        return (
            f"<UpstreamPool {self.endpoint} [{state}idle {figures.idle}, active {figures.active}, "
            f"connecting {figures.connecting}, waiting {figures.waiting}]>"
        )

    # Opening.

    def _open_more(self) -> None:
        if self._retired:
            return
        while self._connecting < min(len(self._waiting), self.settings.max_connecting):
            self._connecting += 1
            opener = asyncio.get_running_loop().create_task(self._open())
            self._openers.add(opener)
            opener.add_done_callback(self._openers.discard)

    async def _open(self) -> None:
        try:
            connection = await connect(self.endpoint, self._connection, self.settings.connect_timeout)
        except ConnectFailed as error:
            self._connecting -= 1
            self._failed += 1
            self._could_not_open(error)
            self._open_more()
            return
        except BaseException:
            self._connecting -= 1
            raise
        self._connecting -= 1
        self._opened += 1
        self._connections.add(connection)
        if connection.closed:
            self.gone(connection)
        else:
            self.release(connection)
            self._open_more()  # whoever still waits may need more connections than are opened at a time

    def _connection(self) -> UpstreamConnection:
        return UpstreamConnection(self)

    def _could_not_open(self, error: ConnectFailed) -> None:
        if error.definite:
            self._fail_waiting(error.what)
            return
        while self._waiting:
            user, timer = self._waiting.popleft()
            timer.cancel()
            if user.waiting:
                user.connect_failed(error.what)
                return

    def _fail_waiting(self, cause: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for user, timer in waiting:
            timer.cancel()
            if user.waiting:
                user.connect_failed(cause)

    def _expire(self) -> None:
        """Whose time is up stands first in the queue: all wait equally long."""
        if self._waiting:
            user, timer = self._waiting.popleft()
            timer.cancel()
            if user.waiting:
                user.connect_failed(f"no connection within {self.settings.connect_timeout:g} s")

    def _forget_left(self) -> None:
        for user, timer in self._waiting:
            if not user.waiting:
                timer.cancel()
        self._waiting = deque(entry for entry in self._waiting if entry[0].waiting)

    def _close_expired(self) -> None:
        self._idle_timer = None
        limit = self.settings.upstream_idle
        now = self.clock.monotonic()
        expired = 0
        for connection in self._idle:
            if now - connection.idle_since < limit:
                break
            expired += 1
        closing, self._idle = self._idle[:expired], self._idle[expired:]
        for connection in closing:
            connection.close()
        if self._idle:
            left = self._idle[0].idle_since + limit - now
            self._idle_timer = self.wheel.schedule(left, self._close_expired)

"""Which functions are kept imported and ready to fork, and which are imported next.

A template that a replica was started from is used; one that was only to show that its function can be imported is
proven. When there are more than the capacity, proven ones go first, the oldest of them first unless more wait to
be proven, then the least recently used: what is deployed never displaces what is called. A template that is still
importing, or that a starting replica waits for, is never evicted: the cap is exceeded for that time and `trim`
comes back to it. Eviction is therefore never felt by a request that is under way.

Only so many imports run at a time. Those that replicas wait for have places of their own and go before proofs, so
that a request waits neither for the thousand functions that were deployed with its own nor for the slowest one.
Those that take long, a program that never listens or an import that hangs, give up their places after a while to
some that wait, so that a few such do not hold up all others for a minute each.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from upwell.functions.errors import UpwellError
from upwell.runtime.cluster.processes import LoadedTemplate, Loader
from upwell.runtime.host.source import Source
from upwell.runtime.host.templates import TemplateState

USABLE: Final = (TemplateState.LOADING, TemplateState.LOADED, TemplateState.FRESH)

PATIENCE_SECONDS: Final = 3.0
"""Nearly all imports take less; what takes longer mostly waits for something else than a processor."""
SLOW_FACTOR: Final = 4
"""So many times the places may be given up: each is a process that may use memory."""


class TemplateCache:
    """The templates of one machine by revision.

    At most `loads` imports that replicas wait for run at a time, and proofs only while fewer imports than that
    run; slow ones are not counted, of which there are at most `SLOW_FACTOR` times as many. `busy` says whether a
    starting replica waits for a revision's template; `loading` is told of each that begins to import, `unloadable`
    of a proof that could not begin; `room` of a revision whose `take` had to wait.
    """

    def __init__(
        self,
        loader: Loader,
        capacity: int,
        loads: int,
        *,
        busy: Callable[[str], bool],
        loading: Callable[[LoadedTemplate], None],
        unloadable: Callable[[str, Exception], None],
        room: Callable[[str], None],
    ) -> None:
        self._loader = loader
        self._capacity = capacity
        self._loads = loads
        self._busy = busy
        self._began = loading
        self._unloadable = unloadable
        self._room = room
        self._used: OrderedDict[str, LoadedTemplate] = OrderedDict()
        self._proven: OrderedDict[str, LoadedTemplate] = OrderedDict()
        self._importing: dict[LoadedTemplate, asyncio.TimerHandle] = {}
        self._slow: set[LoadedTemplate] = set()
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._unproven: OrderedDict[str, Source] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used) + len(self._proven)

    def __repr__(self) -> str:
        return (
            f"<TemplateCache {len(self._used)} used, {len(self._proven)} proven, "
            f"{len(self._importing)} importing, {len(self._waiting)} waiting, {len(self._unproven)} to prove>"
        )

    def take(self, source: Source) -> LoadedTemplate | None:
        """The template of a revision, now the most recently used; loaded anew if it was evicted or has failed.

        None while too many are loading: `room` tells when to ask again. Raises what loading raises.
        """
        revision = source.revision
        template = self._find(revision)
        if template is None:
            if self._taken_loads() >= self._loads:
                self._waiting[revision] = None
                return None
            template = self._load(source)
        self._unproven.pop(revision, None)
        self._waiting.pop(revision, None)
        self._proven.pop(revision, None)
        self._used[revision] = template
        self._used.move_to_end(revision)
        self.trim()
        return template

    def prove(self, source: Source) -> None:
        """Import a revision's function once, when its turn comes, to see whether it can be."""
        if self._find(source.revision) is None:
            self._unproven[source.revision] = source
            self._begin_waiting()

    def has_room(self) -> bool:
        """Whether one more can be kept without another being evicted."""
        return len(self) + len(self._unproven) < self._capacity

    def forget(self, revision: str) -> None:
        """Close the template of a revision, if there is one, and do not load it any more."""
        self._waiting.pop(revision, None)
        self._unproven.pop(revision, None)
        template = self._used.pop(revision, None) or self._proven.pop(revision, None)
        if template is not None:
            template.close()

    def discard(self, template: LoadedTemplate) -> bool:
        """Drop a template whose load failed. False when it is not kept any more: it was closed, or replaced."""
        revision = template.source.revision
        for kept in (self._used, self._proven):
            if kept.get(revision) is template:
                del kept[revision]
                return True
        return False

    def trim(self) -> None:
        """Evict down to the capacity, passing over what is in use and what was used last.

        While many are proven one after the other, the one proven just now goes, before it has forked a standby.
        """
        surplus = len(self) - self._capacity
        newest = next(reversed(self._used), None)
        proven = list(self._proven.items())
        if self._unproven:
            proven.reverse()
        for kept, candidates in ((self._proven, proven), (self._used, list(self._used.items()))):
            for revision, template in candidates:
                if surplus <= 0:
                    return
                if template.state is TemplateState.LOADING or revision == newest or self._busy(revision):
                    continue
                del kept[revision]
                template.close()
                surplus -= 1

    def _find(self, revision: str) -> LoadedTemplate | None:
        template = self._used.get(revision) or self._proven.get(revision)
        return template if template is not None and template.state in USABLE else None

    def _taken_loads(self) -> int:
        """Places that imports have which replicas wait for."""
        importing = self._importing.keys() - self._slow
        return sum(self._used.get(template.source.revision) is template for template in importing)

    def _load(self, source: Source) -> LoadedTemplate:
        template = self._loader.load(source)
        self._await(template)
        self._began(template)
        template.loaded.add_done_callback(lambda loaded: self._ended(template))
        return template

    def _await(self, template: LoadedTemplate) -> None:
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._take_long, template)
        self._importing[template] = timer

    def _take_long(self, template: LoadedTemplate) -> None:
        if len(self._slow) >= SLOW_FACTOR * self._loads:
            self._await(template)
            return
        self._slow.add(template)
        self._begin_waiting()

    def _ended(self, template: LoadedTemplate) -> None:
        self._importing.pop(template).cancel()
        self._slow.discard(template)
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self._waiting and self._taken_loads() < self._loads:
            revision, _ = self._waiting.popitem(last=False)
            self._room(revision)
        while self._unproven and not self._waiting and len(self._importing) - len(self._slow) < self._loads:
            revision, source = self._unproven.popitem(last=False)
            self._used.pop(revision, None)  # one that has failed, or was lost
            try:
                self._proven[revision] = self._load(source)
            except (UpwellError, OSError) as error:
                self._unloadable(revision, error)
                return

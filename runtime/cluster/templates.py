"""Which functions are kept imported and ready to fork: a cap, the least recently used out first.

A template that is still importing, or that a starting replica waits for, is never evicted: the cap is exceeded for
that time and `trim` comes back to it. Eviction is therefore never felt by a request that is under way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from upwell.runtime.cluster.processes import LoadedTemplate, Loader
from upwell.runtime.host.source import FunctionSource
from upwell.runtime.host.templates import TemplateState

USABLE: Final = (TemplateState.LOADING, TemplateState.LOADED, TemplateState.FRESH)


class TemplateCache:
    """The templates of one machine by revision."""

    def __init__(
        self,
        loader: Loader,
        capacity: int,
        *,
        busy: Callable[[str], bool],
        loading: Callable[[LoadedTemplate], None],
    ) -> None:
        self._loader = loader
        self._capacity = capacity
        self._busy = busy
        self._loading = loading
        self._templates: OrderedDict[str, LoadedTemplate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._templates)

    def take(self, source: FunctionSource) -> LoadedTemplate:
        """The template of a revision, now the most recently used; loaded anew if it was evicted or has failed."""
        template = self._templates.pop(source.revision, None)
        if template is None or template.state not in USABLE:
            template = self._loader.load(source)
            self._loading(template)
        self._templates[source.revision] = template
        self.trim()
        return template

    def forget(self, revision: str) -> None:
        """Close the template of a revision, if there is one."""
        template = self._templates.pop(revision, None)
        if template is not None:
            template.close()

    def discard(self, template: LoadedTemplate) -> bool:
        """Drop a template whose load failed. False when it is not kept any more: it was closed, or replaced."""
        revision = template.source.revision
        if self._templates.get(revision) is not template:
            return False
        del self._templates[revision]
        return True

    def trim(self) -> None:
        """Evict down to the capacity, passing over what is in use."""
        surplus = len(self._templates) - self._capacity
        newest = next(reversed(self._templates), None)
        for revision, template in list(self._templates.items()):
            if surplus <= 0:
                return
            if template.state is TemplateState.LOADING or revision == newest or self._busy(revision):
                continue
            del self._templates[revision]
            template.close()
            surplus -= 1

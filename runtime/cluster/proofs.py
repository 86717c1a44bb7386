"""Which sources are known to be importable, so that the same code deployed under many names is imported once.

Code is the same when bundle, module and callable are and the environment differs in nothing but the names that the
platform gives: a bundle is an address of its content. A program is no import and is always tried. What is known is
forgotten with the process, the oldest first when there is much of it; forgetting costs an import and no more.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import Final

from upwell.runtime.host.source import FunctionSource, Source

MOST_KNOWN: Final = 4096
NAMES: Final = frozenset({"K_REVISION", "K_CONFIGURATION", "K_SERVICE", "SERVING_NAMESPACE", "SERVING_REVISION"})


class Proofs:
    """The code that was imported without an error."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Proofs {len(self._known)} known>"

    def add(self, source: Source) -> None:
        """It could be imported."""
        if isinstance(source, FunctionSource):
            self._known[_digest(source)] = None
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def discard(self, source: Source) -> None:
        """It could not."""
        if isinstance(source, FunctionSource):
            self._known.pop(_digest(source), None)

    def cover(self, source: Source) -> bool:
        """Whether the same code could be imported."""
        return isinstance(source, FunctionSource) and _digest(source) in self._known


def _digest(source: FunctionSource) -> bytes:
    environment = sorted(item for item in source.environment.items() if item[0] not in NAMES)
    code = [str(source.root), source.module, source.attribute, environment, source.memory_bytes]
    return hashlib.blake2b(json.dumps(code).encode(), digest_size=16).digest()

"""Python's garbage collector in a process that serves requests and holds a platform's objects.

With its default thresholds the collector runs whenever 700 objects more were made than let go, which is a few
dozen requests under way at once, and every so often it goes through all that the process holds: with a thousand
routes that was a tenth of a request's cost. Requests leave no cycles behind, so it seldom has anything to find.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (10_000, 20, 50)
"""Far above what requests under way come to; a pass over so many young objects takes about a millisecond."""


def settle() -> None:
    """What is here now stays, so that no pass looks at it again; from now on passes are rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)

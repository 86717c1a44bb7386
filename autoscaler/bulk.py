"""The decision of `kpa` and `bounds`, for many revisions at once.

The same steps in the same order as the decision of one, each on columns: what an `if` chooses there is chosen by a
mask here. Every float is computed by the same operations on the same doubles, so results are equal to the last bit;
a property test and the golden data hold both to that. Only for revisions scaled by concurrency or requests per
second alone, and only for ticks: pokes and further metrics go one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, State
from upwell.autoscaler.records import Records
from upwell.autoscaler.slabs import FloatArray, IntArray
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.window import MaxWindow


class BulkInputs(NamedTuple):
    """What is known of n revisions at one moment; as `Inputs`, each field of shape (n,)."""

    stable: FloatArray
    panic: FloatArray
    ready: IntArray
    starting: IntArray
    missing: npt.NDArray[np.uint8]
    """Codes: places in `records.MISSING`, so 0 where demand is known."""


class SettingsColumns:
    """What `decide` needs of the settings of each row; grows itself."""

    def set(self, row: int, settings: RevisionSettings) -> None:
        """Hold `settings` for a row from now on."""
        raise NotImplementedError


class StateColumns:
    """State, activity and request path of each row; grows itself."""

    def get(self, row: int) -> tuple[State, Activity, RequestPath]:
        """What a row was set to, or came to by `store`."""
        raise NotImplementedError

    def set(self, row: int, state: State, activity: Activity, path: RequestPath | None = None) -> None:
        """Set a row; its path stays as it was when None is given (as by `RequestPath()` for one never set)."""
        raise NotImplementedError

    def set_path(self, row: int, path: RequestPath) -> None:
        """Set how requests reach a row's revision."""
        raise NotImplementedError

    def delay(self, row: int) -> MaxWindow | None:
        """The scale-down delay in a row's state."""
        raise NotImplementedError

    def store(self, rows: IntArray, records: Records) -> None:
        """Take over the next state and activity from decisions of `decide`. Rows are unique."""
        raise NotImplementedError


def decide(
    settings: SettingsColumns, states: StateColumns, rows: IntArray, inputs: BulkInputs, now: float | FloatArray
) -> Records:
    """The decisions of `rows` at `now` (Unix seconds; one time or one each), in the order of `rows`.

    Nothing is changed: `states.store` takes over what follows.
    """
    raise NotImplementedError

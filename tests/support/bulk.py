"""Rows of revisions decided at once, beside the same revisions decided one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.bulk import BulkInputs, decide
from upwell.autoscaler.columns import SettingsColumns, StateColumns
from upwell.autoscaler.decision import Activity, Decision, Inputs, State
from upwell.autoscaler.records import MISSING, Records, decode
from upwell.autoscaler.spec import RevisionSettings


def columns_of(inputs: Sequence[Inputs]) -> BulkInputs:
    return BulkInputs(
        np.array([each.stable for each in inputs], np.float64),
        np.array([each.panic for each in inputs], np.float64),
        np.array([each.ready for each in inputs], np.int64),
        np.array([each.starting for each in inputs], np.int64),
        np.array([MISSING.index(each.missing) for each in inputs], np.uint8),
    )


@dataclass
class Rows:
    """Revisions in columns; `decide` carries the state on."""

    settings: SettingsColumns = field(default_factory=SettingsColumns)
    states: StateColumns = field(default_factory=StateColumns)

    def decide(self, rows: Sequence[int], inputs: Sequence[Inputs], now: Sequence[float]) -> Records:
        numbers = np.array(rows, np.int64)
        records = decide(self.settings, self.states, numbers, columns_of(inputs), np.array(now))
        self.states.store(numbers, records)
        return records

    def decisions(self, rows: Sequence[int], inputs: Sequence[Inputs], now: Sequence[float]) -> list[Decision]:
        records = self.decide(rows, inputs, now)
        return [
            decode(record, f"ns/{row}", delay=self.states.delay(row))
            for row, record in zip(rows, records, strict=True)
        ]


def decided_alone(
    settings: RevisionSettings,
    before: tuple[State, Activity, RequestPath],
    inputs: Inputs,
    now: float,
    revision: str,
) -> Decision:
    state, activity, path = before
    wished = kpa.decide(settings, state, inputs, now)
    return bounds.bound(settings, activity, wished, path, now, revision=revision)

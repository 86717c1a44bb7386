"""What a benchmark is told: how long it may take, and where it may write."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

ROOT: Final = Path(__file__).resolve().parents[2]
"""The repository, from which benchmarks and their helper processes run."""
FUNCTIONS: Final = Path(__file__).resolve().parent / "functions"

_Value = TypeVar("_Value")


class Effort(enum.Enum):
    """How much is measured."""

    QUICK = "quick"
    """Enough to see that everything works."""
    DEFAULT = "default"
    ALL = "all"
    """With what takes long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`directory` is the benchmark's own and is removed after it; `progress` shows where it stands."""

    effort: Effort
    directory: Path
    progress: Callable[[str], None]
    minutes: float = 10.0
    """How long a soak takes."""

    def choose(self, *, quick: _Value, default: _Value, everything: _Value | None = None) -> _Value:
        """The amount for this effort; `everything` is what `--all` takes, by default the same as without."""
        if self.effort is Effort.QUICK:
            return quick
        return default if self.effort is Effort.DEFAULT or everything is None else everything

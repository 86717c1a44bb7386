"""What benchmarks report: rows with a baseline and a goal, the table people read and the JSON machines read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
}
HEADINGS: Final = ("name", "value", "unit", "baseline", "baseline value", "ratio", "goal", "holds")
_RIGHT: Final = frozenset({"value", "baseline value", "ratio", "goal"})


def meets(goal: str, value: float) -> bool:
    """Whether `value` meets a goal such as ``<= 60``. Raises ValueError for anything that is no goal."""
    comparison, _, bound = goal.partition(" ")
    if comparison not in _COMPARISONS:
        raise ValueError(f"{goal!r} is no goal; it starts with one of {', '.join(_COMPARISONS)}")
    return _COMPARISONS[comparison](value, float(bound))


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, in `unit`. A row without a goal informs and always holds; `baseline` says what
    `baseline_value` was measured on."""

    name: str
    value: float
    unit: str
    baseline: str | None = None
    baseline_value: float | None = None
    goal: str | None = None

    @property
    def ratio(self) -> float | None:
        """Value over baseline, where there is one."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def holds(self) -> bool:
        """Whether the goal is met."""
        return self.goal is None or meets(self.goal, self.value)

    def to_json(self) -> dict[str, Any]:
        """The row with the keys that readers of the JSON file know."""
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "baseline": self.baseline,
            "baseline_value": None if self.baseline_value is None else round(self.baseline_value, 4),
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "goal": self.goal,
            "holds": self.holds,
        }


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could not be measured here, and what makes it measurable."""

    name: str
    remedy: str


@dataclass(slots=True)
class Result:
    """All that one benchmark found; `notes` say how it measured."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def render(rows: Iterable[Row]) -> str:
    """Rows under headings, in columns."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in (HEADINGS, *cells)) for column in range(len(HEADINGS))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(_line(line, widths) for line in (HEADINGS, rule, *cells))


def to_json(machine: dict[str, Any], results: Iterable[Result]) -> dict[str, Any]:
    """The content of the JSON file. What was skipped has no figure and so no row."""
    return {"machine": machine, "rows": [row.to_json() for result in results for row in result.rows]}


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        number(row.value),
        row.unit,
        row.baseline or "",
        "" if row.baseline_value is None else number(row.baseline_value),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        row.goal or "",
        "" if row.goal is None else "yes" if row.holds else "NO",
    )


def number(value: float) -> str:
    """A figure with three or four digits that count."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [
        cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
        for heading, cell, width in zip(HEADINGS, cells, widths, strict=True)
    ]
    return "  ".join(aligned).rstrip()

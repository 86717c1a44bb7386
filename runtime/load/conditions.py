"""What a run must not come to: `failed>1%`, `p99>250ms`, `limited>0`, `succeeded<95%`, `unsent>0`, `rate<90`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from upwell.functions.errors import InvalidSettings
from upwell.runtime.load.outcomes import Outcome
from upwell.runtime.load.plan import EVERYTHING, Load
from upwell.runtime.load.report import ClassReport, LoadReport, Spread

_SHAPE: Final = re.compile(r"(?:([^\s:]+):)?([a-z0-9.]+)\s*([<>])\s*(\d+(?:\.\d+)?)\s*(%|ms|s|)")
_COUNTS: Final = frozenset({*Outcome, "unsent", "late"})
_DURATIONS: Final[Mapping[str, str]] = {
    **{f"p{percent}": f"p{percent}".replace(".", "") for percent in ("50", "75", "90", "95", "99", "99.9")},
    "mean": "mean",
    "max": "greatest",
}
_TO_MILLISECONDS: Final = {"ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True)
class Condition:
    """A figure and the limit that it must keep."""

    text: str
    class_name: str
    figure: str
    is_above: bool
    """It is violated above the limit, else below."""
    limit: float
    unit: str

    def check(self, load: Load) -> None:
        """Raises InvalidSettings for a class that the run will have none of, before it begins."""
        if self.class_name not in (EVERYTHING, *(each.name for each in load.classes)):
            hint = "Name it with --class, or leave the class out."
            where = f"--fail-on {self.text}"
            raise InvalidSettings(f"there is no class {self.class_name}", where=where, hint=hint)

    def violated(self, report: LoadReport) -> str | None:
        """What the figure is, in words, when it does not keep the limit."""
        classes = {each.name: each for each in (report.total, *report.classes)}
        # Alone, a class is all there is, and the report has no part for it.
        value = self._value(classes.get(self.class_name, report.total))
        violated = value > self.limit if self.is_above else value < self.limit
        return f"{self.text}: it is {value:.6g}{self.unit and ' '}{self.unit}" if violated else None

    def _value(self, of: ClassReport) -> float:
        if self.figure == "rate":
            return of.rate
        if self.figure in _DURATIONS:
            value = getattr(_spread(of), _DURATIONS[self.figure])
            return float(value) / _TO_MILLISECONDS[self.unit]
        count = of.outcomes.get(self.figure)
        if count is None:
            count = of.unsent if self.figure == "unsent" else of.late
        everything = of.requests + of.unsent
        return 100.0 * count / max(1, everything) if self.unit == "%" else count


def _spread(of: ClassReport) -> Spread:
    """Of what succeeded; where nothing did, of all."""
    return of.durations.get(Outcome.SUCCEEDED) or of.durations[EVERYTHING]


def read_condition(text: str) -> Condition:
    """`[CLASS:]FIGURE>LIMIT` or `<`. Raises InvalidSettings."""
    found = _SHAPE.fullmatch(text.strip())
    hint = "Write it as failed>1%, limited>0, p99>250ms, rate<90 or guest:failed>5%."
    if found is None:
        raise InvalidSettings(f"{text!r} is no condition", where="--fail-on", hint=hint)
    name, figure, sign, limit, unit = found.groups()
    units = _units(figure)
    if unit not in units:
        known = ", ".join(each or "a number alone" for each in units) or "none: there is no such figure"
        raise InvalidSettings(f"{text!r} has the wrong unit: {figure} takes {known}", where="--fail-on", hint=hint)
    return Condition(text.strip(), name or EVERYTHING, figure, sign == ">", float(limit), unit)


def _units(figure: str) -> tuple[str, ...]:
    if figure in _DURATIONS:
        return tuple(_TO_MILLISECONDS)
    if figure == "rate":
        return ("",)
    return ("", "%") if figure in _COUNTS else ()

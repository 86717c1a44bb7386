"""Tables as kubectl prints them: columns aligned, three spaces between, nothing drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

import click

GAP: Final = "   "
_COLOURS: Final = {"True": "green", "False": "red", "Unknown": "yellow"}


class Table:
    """Lines of aligned cells, whatever they hold. Rows that come later are aligned with those before."""

    def __init__(self, headers: Sequence[str]) -> None:
        self._headers = headers
        self._widths = [len(header) for header in headers]

    def header(self, rows: Sequence[Sequence[str]] = ()) -> str:
        """The first line, with columns as wide as `rows` need."""
        self._widen(rows)
        return self._line(self._headers, lambda cell: cell)

    def lines(self, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """A line for each row. The words of conditions are coloured, for terminals."""
        self._widen(rows)
        for row in rows:
            yield self._line(row, _painted)

    def _widen(self, rows: Sequence[Sequence[str]]) -> None:
        for row in rows:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]

    def _line(self, cells: Sequence[str], paint: Callable[[str], str]) -> str:
        last = max((at for at, cell in enumerate(cells) if cell), default=0)
        cells = [printable(cell) for cell in cells[: last + 1]]
        shown = [
            paint(cell) + " " * (width - len(cell))
            for cell, width in zip(cells[:last], self._widths[:last], strict=True)
        ]
        return GAP.join([*shown, paint(cells[last])])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """A whole table."""
    made = Table(headers)
    return "\n".join(indent + line for line in (made.header(rows), *made.lines(rows)))


def printable(text: str) -> str:
    """Nothing that a terminal would take for an order, in as many characters."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _painted(cell: str) -> str:
    return click.style(cell, fg=_COLOURS[cell]) if cell in _COLOURS else cell


def age(stamp: str | None, now: float) -> str:
    """How long ago `stamp` was, as kubectl writes it: two units while the first is small, else one."""
    if not stamp:
        return ""
    return duration(now - datetime.fromisoformat(stamp).timestamp())


def duration(seconds: float) -> str:
    """A length of time as kubectl writes it."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    return f"{days}d" if days < 730 else _two(days // 365, "y", days % 365, "d")


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"

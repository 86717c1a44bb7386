"""Traffic from a file: access logs (this platform's own, common, combined) and tables of arrivals or of rates.

Which of them a file is, its first lines tell: JSON objects, the bracketed time of a web server's log, or columns.
What cannot be read is refused with the file and the line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.access_logs import is_web_log, read_json_log, read_web_log
from upwell.runtime.simulate.arrivals import Arrivals, Moments
from upwell.runtime.simulate.defaults import TRACES
from upwell.runtime.simulate.generators import generate, is_generator
from upwell.runtime.simulate.quantities import LONGEST_SECONDS
from upwell.runtime.simulate.tables import read_table
from upwell.runtime.simulate.trace import MAX_FUNCTIONS, Trace, ordered

MAX_LINE: Final = 1 << 20
RELATIVE_BELOW: Final = 1e8
"""Times that are less are seconds from some beginning, not Unix time, which was past this in 1973."""


def load_trace(text: str, seed: int) -> Trace:
    """The trace that `--trace` names: a generator's, or a file's. Raises InvalidInput."""
    if is_generator(text):
        return generate(text, seed)
    try:
        with Path(text).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            found = _read(file, text, seed)
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}", where=text or "--trace", hint=_hint(text)
        ) from error
    return _trace(text, found, seed)


def _hint(text: str) -> str:
    kind, colon, _ = text.partition(":")
    alike = difflib.get_close_matches(kind, [each.partition(":")[0] for each in TRACES], n=1) if colon else []
    meant = next((each for each in TRACES if each.startswith(f"{alike[0]}:")), "") if alike else ""
    return f"Did you mean {meant}?" if meant else f"Name a file, or a generator as {TRACES[0]}."


def _read(file: TextIO, name: str, seed: int) -> Arrivals:
    lines = _numbered(file, name)
    first = next(lines, None)
    if first is None:
        raise InvalidInput("no requests in it", where=name)
    lines = _again(first, lines)
    if first[1].startswith("{"):
        return read_json_log(lines, name)
    if is_web_log(first[1]):
        return read_web_log(lines, name)
    return read_table(lines, name, seed)


def _numbered(file: TextIO, name: str) -> Iterator[tuple[int, str]]:
    """The lines with something in them."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InvalidInput(f"longer than {MAX_LINE} characters", where=f"{name}:{number}")
        text = line.strip().removeprefix("\ufeff")
        if text:
            yield number, text


def _again(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _trace(name: str, found: Arrivals, seed: int) -> Trace:
    if not found.times:
        raise InvalidInput("no requests in it", where=name)
    times, service = np.array(found.times), np.array(found.service)
    if len(found.functions) > MAX_FUNCTIONS:
        raise InvalidInput(f"{len(found.functions)} functions are more than {MAX_FUNCTIONS}", where=name)
    if found.moments is Moments.WHOLE_SECONDS:
        times = times + np.random.default_rng([seed, 0]).random(len(times))
    earliest = float(times.min() if found.began is None else found.began)
    latest = max(float(times.max()), found.ended)
    began = 0.0 if earliest >= 0 and latest < RELATIVE_BELOW else float(np.floor(earliest))
    if latest - began > LONGEST_SECONDS:
        raise InvalidInput("spans more than a year", where=name, hint="Times are in seconds.")
    length = round(latest - began, 6)
    function = np.array(found.function, np.int64)
    return ordered(Path(name).name, tuple(found.functions), times - began, function, service, length, began)

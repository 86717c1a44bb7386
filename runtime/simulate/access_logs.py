"""Access logs as traces: this platform's JSON lines, and the common and combined formats of web servers.

A line of ours is written when a request is over: it came `duration_ms` before, and what is left of that after
`wait_ms` is its time at a replica. Web servers' lines say neither, and their times are whole seconds: when in its
second a request came is drawn by the seed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.arrivals import Arrivals, Moments, parse_amount, parse_time

WEB_FUNCTION: Final = "default/requests"
_WEB: Final = re.compile(
    r"\S+ \S+ .{1,512}?\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\]"
    r' ".*" \d{3} ',
    re.ASCII,
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def read_json_log(lines: Iterator[tuple[int, str]], name: str) -> Arrivals:
    """The requests of our own access log that were routed to a revision; other lines of the log are passed over.

    Raises InvalidInput, with the line, for a request that does not say when it was or how long it took.
    """
    found = Arrivals()
    for number, text in lines:
        # In the same stream may be what the platform and functions say besides.
        if text.startswith("{") and '"access"' in text:
            where = f"{name}:{number}"
            try:
                entry = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise InvalidInput("is no JSON object", where=where) from error
            if entry.get("revision"):
                _add(found, entry, where)
    return found


def _add(found: Arrivals, entry: Mapping[str, Any], where: str) -> None:
    ended = parse_time(entry["time"]) if isinstance(entry.get("time"), str) else None
    duration, waited = parse_amount(entry.get("duration_ms")), parse_amount(entry.get("wait_ms"))
    if ended is None or duration is None or waited is None:
        raise InvalidInput("a request needs time, duration_ms and wait_ms", where=where)
    service = max(0.0, duration - waited) / 1000 if entry.get("replica") else math.nan
    found.add(ended - duration / 1000, str(entry["revision"]), service, where)
    found.ended = max(found.ended, ended)


def is_web_log(line: str) -> bool:
    """Whether a web server has written this line, in the common format or the combined one."""
    return _WEB.match(line) is not None


def read_web_log(lines: Iterator[tuple[int, str]], name: str) -> Arrivals:
    """The requests of one server's log, as one function. Raises InvalidInput, with the line, for what is none."""
    found = Arrivals(moments=Moments.WHOLE_SECONDS)
    for number, text in lines:
        match = _WEB.match(text)
        time = _moment(match) if match else None
        if time is None:
            raise InvalidInput("is no line of a common or combined access log", where=f"{name}:{number}")
        found.add(time, WEB_FUNCTION, math.nan, f"{name}:{number}")
    if found.times:
        found.began, found.ended = min(found.times), max(found.times) + 1
    return found


def _moment(match: re.Match[str]) -> float | None:
    day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    try:
        zone = timezone(-offset if sign == "-" else offset) if offset else UTC
        number = _MONTHS.index(month) + 1
        moment = datetime(int(year), number, int(day), int(hour), int(minute), int(second), tzinfo=zone)
    except ValueError:
        return None
    return moment.timestamp()

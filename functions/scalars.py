"""JSON's own values as Python's, strictly, and text as the types that are written as text.

Each converter raises ValueError with a text for the caller, which says what was expected.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"
_DATE_PATTERN = re.compile(_DATE, re.ASCII)
_TIME_PATTERN = re.compile(_TIME, re.ASCII)
_DATETIME_PATTERN = re.compile(f"{_DATE}T{_TIME}", re.ASCII)
_DECIMAL_PATTERN = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d{1,9})?", re.ASCII)


def described(value: object) -> str:
    """What kind of JSON value this is, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    for kind, name in ((str, "a string"), (int, "an integer"), (float, "a number"), (list, "an array")):
        if isinstance(value, kind):
            return name
    return "an object"


def decode_any(value: Any) -> Any:
    """Whatever it is."""
    return value


def _wrong(expected: str, value: object) -> ValueError:
    return ValueError(f"expected {expected}, got {described(value)}")


def _exactly(kind: type, expected: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise _wrong(expected, value)

    return convert


def _text(value: Any) -> str:
    if type(value) is not str:
        raise _wrong("a string", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("expected valid Unicode, got half of a surrogate pair") from None
    return value


def _float(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise _wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("expected a number of double precision, got a larger one")
    return number


def _decimal(value: Any) -> Decimal:
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return Decimal(str(value))
    if type(value) is str and _DECIMAL_PATTERN.fullmatch(value):
        return Decimal(value)
    raise ValueError("expected a decimal number, or one in a string")


def _written(pattern: re.Pattern[str], parse: Callable[[str], Any], expected: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not str:
            raise _wrong(expected, value)
        if pattern.fullmatch(value):
            try:
                return parse(value)
            except ValueError:
                pass
        raise ValueError(f"expected {expected}")

    return convert


def _bytes(value: Any) -> bytes:
    try:
        if type(value) is str:
            return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        pass
    raise ValueError("expected a string of base64")


SCALARS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): _exactly(type(None), "null"),
    bool: _exactly(bool, "a boolean"),
    int: _exactly(int, "an integer"),
    float: _float,
    str: _text,
    dict: _exactly(dict, "an object"),
    list: _exactly(list, "an array"),
    bytes: _bytes,
    datetime: _written(_DATETIME_PATTERN, datetime.fromisoformat, "a time such as 2024-02-29T12:00:00Z"),
    date: _written(_DATE_PATTERN, date.fromisoformat, "a date such as 2024-02-29"),
    time: _written(_TIME_PATTERN, time.fromisoformat, "a time of day such as 12:00:00"),
    UUID: _written(re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), UUID, "a UUID"),
    Decimal: _decimal,
}
"""By type: a function from a JSON value to that type."""

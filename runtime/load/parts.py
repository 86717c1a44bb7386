"""The parts of a request as people give them: checked, and encoded where they could not stand in one.

What they may not be is refused here, before anything is sent.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from upwell.functions.errors import InvalidSettings

Field = tuple[str, str]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ATTRIBUTE: Final = re.compile("[a-z0-9]+")
_TARGET_SAFE: Final = "%/:?#[]@!$&'()*+,;=~"
_EVENT_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def check_method(method: str) -> None:
    """Raises InvalidSettings for what is none."""
    if not _TOKEN.fullmatch(method):
        raise InvalidSettings(f"{method!r} is no method", where="--method")


def read_field(text: str, flag: str) -> Field:
    """`NAME: VALUE`. Raises InvalidSettings for what is none."""
    name, colon, value = text.partition(":")
    value = value.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name) or not _is_field_value(value):
        raise InvalidSettings(f"{text!r} is no NAME: VALUE", where=flag)
    return name, value


def _is_field_value(value: str) -> bool:
    return all(" " <= each <= "~" or each == "\t" for each in value)


def encode_target(target: str) -> str:
    """A path and query, percent-encoded where they are not so already."""
    return quote(os.fsencode(target), safe=_TARGET_SAFE)


def content_type(body: bytes) -> str:
    """What a body seems to be, of which nobody says it."""
    try:
        json.loads(body.decode())
    except UnicodeDecodeError:
        return "application/octet-stream"
    except (ValueError, RecursionError):
        return "text/plain; charset=utf-8"
    return "application/json"


def encode_attribute(value: str) -> str:
    """Of an event in binary mode: what no header carries is percent-encoded there."""
    return quote(value, safe=_EVENT_SAFE)


def event_fields(attributes: Mapping[str, str]) -> list[Field]:
    """The headers of an event in binary mode. Raises InvalidSettings for what is no attribute."""
    for name, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(name):
            raise InvalidSettings(f"{name!r} cannot name an attribute: a-z and 0-9", where="--extension")
        if not value or not value.isprintable():
            raise InvalidSettings(f"{value!r} cannot be the {name} of an event", where="--event")
    return [(f"ce-{name}", encode_attribute(value)) for name, value in attributes.items()]

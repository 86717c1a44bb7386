"""Attributes of CloudEvents that came in a body: structured (one event) or batched (a list of them).

Only what policies match is read: the attributes, as the strings that they would be in `ce-` headers. Binary events
need none of this, since theirs are headers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

Attributes = Mapping[str, str]
"""By name in lower case, without the prefix `ce-`."""

STRUCTURED: Final = b"application/cloudevents+json"
BATCHED: Final = b"application/cloudevents-batch+json"
MOST_EVENTS: Final = 1000
"""Of a batch whose attributes are read."""
_NOT_ATTRIBUTES: Final = frozenset({"data", "data_base64"})


def carries_events(content_type: bytes | None) -> bool:
    """Whether a body of this type holds events whose attributes are in it."""
    if content_type is None:
        return False
    return content_type.partition(b";")[0].strip().lower() in (STRUCTURED, BATCHED)


def read_attributes(body: bytes) -> list[Attributes]:
    """The attributes of each event in a structured or batched body; none of what is no event."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return []
    events = parsed if isinstance(parsed, list) else [parsed]
    return [_attributes(event) for event in events[:MOST_EVENTS] if isinstance(event, dict)]


def _attributes(event: dict[str, object]) -> Attributes:
    return {
        name.lower(): _text(value)
        for name, value in event.items()
        if name not in _NOT_ATTRIBUTES and isinstance(value, str | int | bool)
    }


def _text(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

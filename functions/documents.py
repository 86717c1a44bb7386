"""YAML documents as JSON values, with the line that each of them stands on.

The values are built from the parser's events and not by PyYAML's constructor. That bounds what a hostile file can
cost (its depth, its size, what its aliases unfold to) before it costs it, refuses a key that stands twice, keeps
timestamps as the strings that the API has, and leaves nothing that JSON lacks. Scalars are told apart as YAML 1.1
has it and Kubernetes reads it, but for numbers to base 60, which stay text.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import yaml

from upwell.functions.errors import InvalidManifest

SIZE_LIMIT = 16 * 1024 * 1024  # characters
DEPTH_LIMIT = 100
NODES_LIMIT = 100_000  # in one document, each alias counted as what it unfolds to

Path: TypeAlias = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset({"yes", "true", "on"})
# After backslashes that escape each other.
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
# The C parser where PyYAML was built with it: ten times as fast.
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and the line of each field in it, counted from 1; `()` is the whole."""

    value: Any
    lines: dict[Path, int]


def read_documents(text: str, source: str) -> Iterator[Document]:
    """The documents of a YAML text; `source` names it in errors.

    Raises InvalidManifest, with `source:line`, for what is no YAML or no JSON value and for what is too large.
    """
    if len(text) > SIZE_LIMIT:
        raise InvalidManifest(f"larger than {SIZE_LIMIT >> 20} MiB", where=source, hint="Split the file.")
    try:
        events = yaml.parse(_with_characters(text), Loader=_PARSER)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield _Reader(events, source).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise InvalidManifest(f"not valid YAML: {error.problem or error.context}", where=where) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise InvalidManifest("not valid YAML: it holds what is no text", where=source) from error


def _with_characters(text: str) -> str:
    """JSON escapes a character beyond the first 65,536 as two, which YAML does not take: they are replaced."""
    if _PAIR.search(text) is None:
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _PAIR.sub(lambda found: found[1] + str(json.loads(f'"{found[2]}"')), text)


class _Reader:
    """Reads one document from the events that follow its start."""

    def __init__(self, events: Iterator[yaml.Event], source: str) -> None:
        self._events = events
        self._source = source
        self._resolve: Callable[..., str] = yaml.resolver.Resolver().resolve
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._lines: dict[Path, int] = {}
        self._size = 0

    def document(self) -> Document:
        return Document(self._value(next(self._events), ()), self._lines)

    def _value(self, event: yaml.Event, path: Path) -> Any:
        self._grow(1, event)
        self._lines.setdefault(path, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._unfold(event)
        if len(path) >= DEPTH_LIMIT:
            self._refuse(event, f"nested deeper than {DEPTH_LIMIT}")
        size = self._size
        if isinstance(event, yaml.ScalarEvent):
            value: Any = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, "seq")
            value = self._sequence(path)
        elif isinstance(event, yaml.MappingStartEvent):
            self._check_tag(event, "map")
            value = self._mapping(path)
        else:
            self._refuse(event, "a value is missing")
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._size - size + 1)
        return value

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        members: dict[str, Any] = {}
        merged: list[Any] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if self._is_merge(event):
                merged.append(self._merged(event, (*path, "<<")))
                continue
            key = self._key(event)
            if key in members:
                self._refuse(event, f"the key {key!r} is there twice")
            self._lines[*path, key] = _line(event)
            members[key] = self._value(next(self._events), (*path, key))
        for source in (each for sources in merged for each in sources):
            members = source | members
        return members

    def _key(self, event: yaml.Event) -> str:
        key = self._scalar(event) if isinstance(event, yaml.ScalarEvent) else None
        if not isinstance(key, str):
            self._refuse(event, "a key must be a string; put it in quotes")
        self._grow(1, event)
        return key

    def _is_merge(self, event: yaml.Event) -> bool:
        return isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]

    def _merged(self, key: yaml.Event, path: Path) -> list[dict[str, Any]]:
        """What `<<` brings in, the later ones first to be overridden."""
        value = self._value(next(self._events), path)
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in sources):
            self._refuse(key, "<< takes a mapping or a list of mappings")
        return sources

    def _unfold(self, event: yaml.AliasEvent) -> Any:
        if event.anchor not in self._anchors:
            self._refuse(event, f"there is no anchor {event.anchor!r} before this alias")
        value, size = self._anchors[event.anchor]
        self._grow(size, event)
        return copy.deepcopy(value)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        tag = event.tag
        if tag is None:
            tag = self._resolve(yaml.ScalarNode, event.value, event.implicit)
        kind = tag.removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return event.value.lower() in _TRUE
        if kind in ("int", "float"):
            return self._number(event, kind)
        if kind not in ("str", "timestamp", "merge", "value", "!"):
            self._refuse(event, f"the tag {tag} is not allowed")
        return event.value

    def _number(self, event: yaml.ScalarEvent, kind: str) -> int | float | str:
        text = event.value.replace("_", "").lower()
        if ":" in text:
            return event.value
        try:
            number = _integer(text) if kind == "int" else float(text.replace(".inf", "inf").replace(".nan", "nan"))
            is_finite = math.isfinite(number)
        except (ValueError, OverflowError):  # an integer may be beyond what a float holds
            self._refuse(event, f"{event.value[:40]!r} is no number that can be read")
        if not is_finite:
            self._refuse(event, f"{event.value!r} is no number that JSON has")
        return number

    def _check_tag(self, event: yaml.CollectionStartEvent, expected: str) -> None:
        if event.tag not in (None, "!", _TAG + expected):
            self._refuse(event, f"the tag {event.tag} is not allowed")

    def _grow(self, size: int, event: yaml.Event) -> None:
        self._size += size
        if self._size > NODES_LIMIT:
            self._refuse(event, f"more than {NODES_LIMIT} values in one document, its aliases unfolded")

    def _refuse(self, event: yaml.Event, what: str) -> NoReturn:
        raise InvalidManifest(what, where=f"{self._source}:{_line(event)}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _integer(text: str) -> int:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    for prefix, base in (("0b", 2), ("0x", 16)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    return sign * int(digits, 8 if digits.startswith("0") and digits != "0" else 10)

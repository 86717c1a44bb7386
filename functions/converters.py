"""The steps of reading typed values from JSON, which `upwell.functions.decoding` puts together.

Each is a function from a JSON value to one of its type; what does not fit raises Misfit, with every fault in it.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from upwell.functions.scalars import decode_any, described

FAULTS_LIMIT = 20
"""Faults that are told of one body; who sent more of them learns of the rest next time."""

Decode = Callable[[Any], Any]


class Fault(NamedTuple):
    """What is wrong at one place; the path holds the names of members and the numbers of items."""

    path: tuple[str | int, ...]
    message: str

    def field(self) -> str:
        """The path as a person writes it: `items[0].price`; empty for the whole."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".")


class Misfit(Exception):
    """A value that is not of its type."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)[:FAULTS_LIMIT]
        super().__init__("; ".join(f"{fault.field()}: {fault.message}" for fault in self.faults))


def read_object(members: list[tuple[str, Decode, bool]], make: Callable[..., Any]) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not dict:
            raise unfit(f"expected an object, got {described(value)}")
        faults: list[Fault] = []
        arguments: dict[str, Any] = {}
        for name, decode_member, required in members:
            if name in value:
                try:
                    arguments[name] = decode_member(value[name])
                except Misfit as misfit:
                    faults += below(name, misfit)
            elif required:
                faults.append(Fault((name,), "is missing"))
        if faults:
            raise Misfit(faults)
        try:
            return make(**arguments)
        except (ValueError, AssertionError) as error:  # the author's own check, whose text is not for callers
            raise unfit("is not valid") from error

    return decode


def read_items(decode_item: Decode, make: Callable[[Iterable[Any]], Any]) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not list:
            raise unfit(f"expected an array, got {described(value)}")
        if decode_item is decode_any and make is list:
            return value
        items = read_each((decode_item, each) for each in value)
        try:
            return items if make is list else make(items)
        except TypeError as error:
            raise unfit("expected an array of what can stand in a set") from error

    return decode


def read_each(pairs: Iterable[tuple[Decode, Any]]) -> list[Any]:
    faults: list[Fault] = []
    items: list[Any] = []
    for index, (decode, value) in enumerate(pairs):
        try:
            items.append(decode(value))
        except Misfit as misfit:
            faults += below(index, misfit)
    if faults:
        raise Misfit(faults)
    return items


def read_choice(members: Iterable[Any]) -> Decode:
    """Of an enumeration's values or a Literal's; 1, 1.0 and true are different ones."""
    known: dict[tuple[type, object], Any] = {}
    for member in members:
        value = member.value if isinstance(member, enum.Enum) else member
        if not isinstance(value, str | int | float | bool | None):
            raise TypeError(f"{value!r} is no JSON value")
        known[(str if isinstance(value, str) else type(value), value)] = member
    expected = " or ".join(_shown(value) for _, value in known)

    def decode(value: Any) -> Any:
        try:
            return known[(type(value), value)]
        except (KeyError, TypeError):
            raise unfit(f"expected {expected}") from None

    return decode


def read_optional(decode: Decode) -> Decode:
    return lambda value: None if value is None else decode(value)


def read_scalar(convert: Callable[[Any], Any]) -> Decode:
    def decode(value: Any) -> Any:
        try:
            return convert(value)
        except ValueError as error:
            raise unfit(str(error)) from None  # the text is ours: see scalars

    return decode


def read_integer_name(name: str) -> int:
    try:
        if str(int(name)) == name:
            return int(name)
    except ValueError:
        pass
    raise unfit("expected the name to be an integer")


def unfit(message: str) -> Misfit:
    return Misfit([Fault((), message)])


def below(part: str | int, misfit: Misfit) -> list[Fault]:
    return [Fault((part, *fault.path), fault.message) for fault in misfit.faults]


def _shown(value: object) -> str:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)

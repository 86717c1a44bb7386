"""From JSON values to what annotations ask for: dataclasses and the types of the standard library.

`decoder` reads an annotation once and returns a function for it. It is strict: an integer is no text, a boolean no
integer, nothing is missing but what has a default. Members that a dataclass does not have are ignored, so that
callers may know more than the function. Each fault is told by its path and by what was expected there, never by
the text of an exception that the user's own code raised.

Pure, and of the standard library alone: a replica whose function takes a dataclass imports nothing for it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from upwell.functions.converters import (
    Decode,
    Fault,
    Misfit,
    below,
    read_choice,
    read_each,
    read_integer_name,
    read_items,
    read_object,
    read_optional,
    read_scalar,
    unfit,
)
from upwell.functions.scalars import SCALARS, decode_any, described

_LISTS = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_SETS = (set, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class Undecodable(Exception):
    """An annotation that no JSON value becomes; the text names the member and its type."""


def decoder(annotation: object) -> Decode:
    """A function from a JSON value, as `json.loads` gives it, to a value of this type; it raises Misfit.

    Raises Undecodable. Of a union the first member that fits is taken.
    """
    return _Reader().read(annotation, "")


def name_of(annotation: object) -> str:
    """The type as its author wrote it, more or less."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


class _Reader:
    """Reads annotations into decoders; holds those of classes, which may contain themselves."""

    def __init__(self) -> None:
        self._classes: dict[type, list[Decode]] = {}

    def read(self, annotation: object, where: str) -> Decode:
        annotation = _bare(annotation)
        if annotation in (Any, object):
            return decode_any
        if annotation is None or annotation is type(None):
            return read_scalar(SCALARS[type(None)])
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments, where)
        if origin is typing.Literal:
            return self._choice(arguments, annotation, where)
        if isinstance(origin or annotation, type):
            return self._class(origin or annotation, arguments, annotation, where)
        raise _undecodable(annotation, where)

    def _class(self, kind: Any, arguments: tuple[Any, ...], annotation: object, where: str) -> Decode:
        if kind in _LISTS:
            return read_items(self.read(arguments[0] if arguments else Any, f"{where}[]"), list)
        if kind in _SETS or kind is frozenset:
            return read_items(
                self.read(arguments[0] if arguments else Any, f"{where}[]"), set if kind in _SETS else kind
            )
        if kind is tuple:
            return self._tuple(arguments, where, annotation)
        if kind in _MAPPINGS:
            return self._mapping(arguments, where)
        if arguments or not isinstance(kind, type):
            raise _undecodable(annotation, where)
        if kind in SCALARS:
            return read_scalar(SCALARS[kind])
        if issubclass(kind, enum.Enum):
            return self._choice(list(kind), annotation, where)
        if dataclasses.is_dataclass(kind):
            return self._once(kind, where, self._dataclass)
        if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):
            return self._once(kind, where, self._typed_dict)
        raise _undecodable(annotation, where)

    def _once(self, kind: type, where: str, read: Callable[[type, str], Decode]) -> Decode:
        """The class's decoder; within its own members a stand-in that looks it up."""
        if kind in self._classes:
            made = self._classes[kind]
            return made[0] if made else lambda value: made[0](value)
        made = self._classes[kind] = []
        made.append(read(kind, where))
        return made[0]

    def _choice(self, members: Iterable[Any], annotation: object, where: str) -> Decode:
        try:
            return read_choice(members)
        except TypeError as error:
            raise _undecodable(annotation, where) from error

    def _union(self, arguments: tuple[Any, ...], where: str) -> Decode:
        nullable = type(None) in arguments
        members = [each for each in arguments if each is not type(None)]
        decoders = [self.read(each, where) for each in members]
        if len(decoders) == 1:
            return read_optional(decoders[0])
        expected = " or ".join(map(name_of, members))

        def decode(value: Any) -> Any:
            if value is None and nullable:
                return None
            for each in decoders:
                try:
                    return each(value)
                except Misfit:
                    continue
            raise unfit(f"expected {expected}, which {described(value)} like this is not")

        return decode

    def _tuple(self, arguments: tuple[Any, ...], where: str, annotation: object) -> Decode:
        if not arguments and annotation is tuple:
            return read_items(decode_any, tuple)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return read_items(self.read(arguments[0], f"{where}[]"), tuple)
        decoders = [self.read(each, f"{where}[{index}]") for index, each in enumerate(arguments)]
        plural = "item" if len(decoders) == 1 else "items"

        def decode(value: Any) -> Any:
            if type(value) is not list:
                raise unfit(f"expected an array, got {described(value)}")
            if len(value) != len(decoders):
                raise unfit(f"expected an array of {len(decoders)} {plural}, got one of {len(value)}")
            return tuple(read_each(zip(decoders, value, strict=True)))

        return decode

    def _mapping(self, arguments: tuple[Any, ...], where: str) -> Decode:
        key, item = arguments or (Any, Any)
        decode_key, decode_item = self._key(key, where), self.read(item, f"{where}.*")
        if decode_key is None and decode_item is decode_any:
            return read_scalar(SCALARS[dict])

        def decode(value: Any) -> Any:
            if type(value) is not dict:
                raise unfit(f"expected an object, got {described(value)}")
            faults: list[Fault] = []
            decoded: dict[Any, Any] = {}
            for name, member in value.items():
                try:
                    decoded[decode_key(name) if decode_key else name] = decode_item(member)
                except Misfit as misfit:
                    faults += below(name, misfit)
            if faults:
                raise Misfit(faults)
            return decoded

        return decode

    def _key(self, annotation: object, where: str) -> Decode | None:
        annotation = _bare(annotation)
        if annotation in (Any, str):
            return None
        if annotation is int:
            return read_integer_name
        is_enum = isinstance(annotation, type) and issubclass(annotation, enum.Enum)
        if is_enum or typing.get_origin(annotation) is typing.Literal:
            return self.read(annotation, where)
        raise _undecodable(annotation, f"{where} (its keys)")

    def _dataclass(self, kind: Any, where: str) -> Decode:
        hints = _hints(kind, where)
        members: list[tuple[str, Decode, bool]] = []
        for each in dataclasses.fields(kind):
            if each.init:
                missing = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
                members.append((each.name, self.read(hints[each.name], _join(where, each.name)), missing))
        taken = {name for name, _, _ in members}
        for parameter in inspect.signature(kind).parameters.values():
            name, hint, missing = parameter.name, hints.get(parameter.name), parameter.default is parameter.empty
            if isinstance(hint, dataclasses.InitVar):
                members.append((name, self.read(hint.type, _join(where, name)), missing))
            elif missing and name not in taken:
                raise Undecodable(f"{kind.__qualname__} wants {parameter}, which is none of its fields")
        return read_object(members, kind)

    def _typed_dict(self, kind: Any, where: str) -> Decode:
        members: list[tuple[str, Decode, bool]] = []
        for name, hint in _hints(kind, where).items():
            origin = getattr(typing.get_origin(hint), "_name", "")
            required = origin == "Required" or (origin != "NotRequired" and name in kind.__required_keys__)
            inner = typing.get_args(hint)[0] if origin in ("Required", "NotRequired") else hint
            members.append((name, self.read(inner, _join(where, name)), required))
        return read_object(members, dict)


def _bare(annotation: object) -> object:
    """The type behind Annotated, Final, ReadOnly, NewType and `type X = ...`."""
    while True:
        origin = typing.get_origin(annotation)
        if origin in (typing.Annotated, typing.Final) or getattr(origin, "_name", "") == "ReadOnly":
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = getattr(annotation, "__value__")  # noqa: B009  Python 3.12 has it
        else:
            return annotation


def _hints(kind: type, where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception as error:  # annotations are the user's own code
        raise Undecodable(f"the annotations of {kind.__qualname__} cannot be resolved: {error}") from error


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _undecodable(annotation: object, where: str) -> Undecodable:
    place = f"{where} is a {name_of(annotation)}" if where else f"a {name_of(annotation)}"
    return Undecodable(f"{place}, which no JSON value becomes")

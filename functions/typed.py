"""JSON bodies as typed values, by the library that the type belongs to.

A pydantic model anywhere in the annotation makes it pydantic's, a Struct msgspec's; everything else is read by
`upwell.functions.decoding`. Only what the function's own module has imported is used, so that a replica stays as
light as its function. What does not fit is told by field and by what was expected, never with text that the
function's own validators wrote.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from upwell.functions.converters import FAULTS_LIMIT, Fault, Misfit
from upwell.functions.decoding import Undecodable, decoder
from upwell.functions.errors import InvalidInput

ReadJson = Callable[[bytes], Any]

_PYDANTIC = ("pydantic", "pydantic_core", "annotated_types")
_NOT_VALID = "is not valid"
_MSGSPEC_PLACE = re.compile(r"^(?P<message>.*?)(?: - at (?:`|key in `)(?P<path>\$.*)`)?$", re.DOTALL)
_PATH_PART = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class InvalidBody(InvalidInput):
    """A body that is not what the function takes; `faults` name the fields."""

    def __init__(self, what: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(what)
        self.faults = faults


def json_reader(annotation: object) -> ReadJson:
    """A function from JSON to a value of this type, which raises InvalidBody. Raises Undecodable."""
    library = _library(annotation)
    if library == "pydantic":
        return _pydantic_reader(annotation)
    if library == "msgspec":
        return _msgspec_reader(annotation)
    return _plain_reader(annotation)


def is_model_type(annotation: object) -> bool:
    """Whether the annotation names a class of the user's that a body is meant for, be it in a list or Optional."""
    return any(_is_described(each) for each in _parts(annotation, set()))


def _is_described(part: object) -> bool:
    return isinstance(part, type) and (
        dataclasses.is_dataclass(part) or hasattr(part, "__required_keys__") or _library_of(part) is not None
    )


def _plain_reader(annotation: object) -> ReadJson:
    decode = decoder(annotation)

    def read(body: bytes) -> Any:
        value = load_json(body)
        try:
            return decode(value)
        except Misfit as misfit:
            raise _unfit(misfit.faults) from misfit
        except RecursionError:
            raise InvalidBody("the body is nested too deeply") from None

    return read


def load_json(body: bytes) -> Any:
    """A JSON value. Raises InvalidBody, with the place of the fault."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        text = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise InvalidBody(text) from error
    except UnicodeDecodeError as error:
        raise InvalidBody("the body is not JSON: it is not UTF-8") from error
    except RecursionError as error:
        raise InvalidBody("the body is nested too deeply") from error
    except ValueError as error:  # a constant that JSON does not have, or an integer of thousands of digits
        raise InvalidBody("the body is not JSON: it holds a number that JSON has not, or a huge one") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _pydantic_reader(annotation: object) -> ReadJson:
    pydantic: Any = importlib.import_module("pydantic")
    if not hasattr(pydantic, "TypeAdapter"):
        raise Undecodable("pydantic 1 is installed, and bodies are read with pydantic 2")
    try:
        adapter = pydantic.TypeAdapter(annotation)
    except Exception as error:  # pydantic runs the user's code here, and has many errors of its own
        raise Undecodable(f"pydantic cannot read it: {type(error).__name__}: {error}") from error
    validate: Callable[[bytes], Any] = adapter.validate_json
    invalid: type[Exception] = pydantic.ValidationError

    def read(body: bytes) -> Any:
        try:
            return validate(body)
        except invalid as error:
            raise _unfit(tuple(_pydantic_faults(error))) from error

    return read


def _pydantic_faults(error: Any) -> Iterator[Fault]:
    core: Any = importlib.import_module("pydantic_core.core_schema")
    # These two carry what a validator of the user's raised; types that are not in the list are the user's own.
    known = set(typing.get_args(core.ErrorType)) - {"value_error", "assertion_error"}
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        message = each["msg"] if each["type"] in known else _NOT_VALID
        yield Fault(tuple(each["loc"]), message)


def _msgspec_reader(annotation: object) -> ReadJson:
    msgspec: Any = importlib.import_module("msgspec")
    try:
        decode: Callable[[bytes], Any] = msgspec.json.Decoder(annotation).decode
    except Exception as error:  # as with pydantic
        raise Undecodable(f"msgspec cannot read it: {error}") from error
    invalid: type[Exception] = msgspec.ValidationError
    malformed: type[Exception] = msgspec.DecodeError

    def read(body: bytes) -> Any:
        try:
            return decode(body)
        except invalid as error:
            raise _unfit((_msgspec_fault(error),)) from error
        except (malformed, UnicodeDecodeError) as error:
            raise InvalidBody(f"the body is not JSON: {_one_line(error)}") from error
        except RecursionError as error:
            raise InvalidBody("the body is nested too deeply") from error

    return read


def _msgspec_fault(error: Exception) -> Fault:
    found = _MSGSPEC_PLACE.match(str(error))
    path, message = (found["path"] or "", found["message"]) if found else ("", _NOT_VALID)
    parts = [name or (int(index) if index.isdecimal() else index) for name, index in _PATH_PART.findall(path)]
    # With a cause it is what the user's __post_init__ raised, and in its words.
    return Fault(tuple(parts), _NOT_VALID if error.__cause__ else message[:1].lower() + message[1:])


def _one_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _unfit(faults: tuple[Fault, ...]) -> InvalidBody:
    faults = faults[:FAULTS_LIMIT]
    listed = "; ".join(f"{fault.field()}: {fault.message}".removeprefix(": ") for fault in faults)
    return InvalidBody(f"the body does not fit: {listed}", faults)


def _library(annotation: object) -> str | None:
    found = {_library_of(part) for part in _parts(annotation, set())}
    return "pydantic" if "pydantic" in found else "msgspec" if "msgspec" in found else None


def _library_of(part: object) -> str | None:
    """The library whose type, or whose constraint in an Annotated, this is."""
    if hasattr(part, "__pydantic_validator__"):
        return "pydantic"
    for kind in part.__mro__ if isinstance(part, type) else (type(part),):
        top = kind.__module__.partition(".")[0]
        if top in _PYDANTIC:
            return "pydantic"
        if top == "msgspec":
            return "msgspec"
    return None


def _parts(annotation: object, seen: set[int]) -> Iterator[object]:
    """The annotation and all that it is made of, the members of dataclasses and typed dictionaries included."""
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    yield annotation
    yield from (part for each in typing.get_args(annotation) for part in _parts(each, seen))
    yield from getattr(annotation, "__metadata__", ())
    if isinstance(annotation, type) and _has_plain_members(annotation):
        try:
            hints = typing.get_type_hints(annotation, include_extras=True)
        except Exception:  # told by the decoder
            return
        yield from (part for each in hints.values() for part in _parts(each, seen))


def _has_plain_members(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__required_keys__")

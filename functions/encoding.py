"""Returned values as JSON: what Python's encoder knows, and dataclasses, pydantic's and msgspec's types, times.

Libraries are not imported here: whoever returns a pydantic model has imported pydantic.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import sys
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from upwell.functions.errors import InvalidResult
from upwell.functions.signature import derives_from


def is_typed(kind: type) -> bool:
    """Whether values of this class are written as JSON: dataclasses, pydantic's models, msgspec's structs."""
    return dataclasses.is_dataclass(kind) or is_model(kind) or is_struct(kind)


def is_model(kind: type) -> bool:
    """Whether a class is a model of pydantic 2."""
    return hasattr(kind, "model_dump_json") and derives_from(kind, "pydantic", "BaseModel")


def is_struct(kind: type) -> bool:
    """Whether a class is a Struct of msgspec."""
    return hasattr(kind, "__struct_fields__") and derives_from(kind, "msgspec", "Struct")


def encode_json(value: Any) -> bytes:
    """A value as JSON in UTF-8; models are written by their aliases. Raises InvalidResult."""
    kind = type(value)
    if kind is not dict and kind is not list:
        if is_model(kind):
            text: str = value.model_dump_json(by_alias=True)
            return text.encode()
        if is_struct(kind):
            encoded: bytes = sys.modules["msgspec"].json.encode(value)
            return encoded
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(f"the function returned what is not JSON: {error}") from error


def _plain(value: Any) -> Any:
    """What the standard encoder can write in place of a value that it cannot."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(kind)}
    if isinstance(value, datetime | date | time):
        text = value.isoformat()
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _plain_object(value, kind)


def _plain_object(value: Any, kind: type) -> Any:
    if is_model(kind):
        return value.model_dump(mode="json", by_alias=True)
    if is_struct(kind):
        return sys.modules["msgspec"].to_builtins(value)
    raise TypeError(f"a {kind.__qualname__} has no JSON form")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode

"""Schemas of CustomResourceDefinitions, held against objects as an API server in strict validation does."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def violations(value: Any, schema: Mapping[str, Any], path: str = "spec") -> Iterator[str]:
    """What an API server would refuse, as `PATH: WHY`."""
    if value is None and schema.get("nullable"):
        return
    expected = schema.get("type")
    if expected and (
        not isinstance(value, _TYPES[expected]) or (isinstance(value, bool) != (expected == "boolean"))
    ):
        yield f"{path}: is no {expected}"
        return
    yield from _scalar(value, schema, path)
    if schema.get("oneOf") and sum(_fits(value, option) for option in schema["oneOf"]) != 1:
        yield f"{path}: fits not exactly one of the alternatives"
    if isinstance(value, dict):
        yield from _fields(value, schema, path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from violations(item, schema.get("items", {}), f"{path}[{index}]")


def _scalar(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        yield f"{path}: {value!r} is out of range"
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield f"{path}: is too long"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: {value!r} does not fit {schema['pattern']}"


def _fields(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}: is required"
    properties = schema.get("properties", {})
    free = schema.get("x-kubernetes-preserve-unknown-fields")
    for name, item in value.items():
        inner = properties.get(name, schema.get("additionalProperties"))
        if inner is not None:
            yield from violations(item, inner, f"{path}.{name}")
        elif not free:
            yield f"{path}.{name}: is unknown"


def _fits(value: Any, option: Mapping[str, Any]) -> bool:
    if "not" in option:
        return not any(_fits(value, each) for each in option["not"]["anyOf"])
    return all(name in value for name in option["required"])

"""Reads a structure out of one annotation, written as YAML or, what is the same, JSON.

Every scalar stays the text that was written: numbers are read as everywhere else, and a date is no surprise.
"""

from __future__ import annotations

from collections.abc import Collection

LONGEST_TEXT = 16_384
"""Characters of one annotation's structure."""


def parse_structure(text: str) -> object:
    """The lists, mappings and texts of `text`. Raises ValueError for what is no YAML, and for too long a text."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"longer than {LONGEST_TEXT} characters")
    import yaml  # commands read settings too, and few settings have a structure

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506  (makes nothing but texts, lists and mappings)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("neither YAML nor JSON") from error


def members(value: object, where: str, names: Collection[str]) -> dict[str, object]:
    """`value` as a mapping that has no other keys than `names`. Raises ValueError that names `where`."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no mapping")
    for name in value:
        if name not in names:
            raise ValueError(f"{where} has no {str(name)[:64]!r}, only {', '.join(names)}")
    return {str(name): each for name, each in value.items()}


def items(value: object, where: str, most: int) -> list[object]:
    """`value` as a list of one to `most` members. Raises ValueError that names `where`."""
    if not isinstance(value, list):
        raise ValueError(f"{where} is no list")
    if not 0 < len(value) <= most:
        raise ValueError(f"{where} must have one to {most} members, not {len(value)}")
    return value


def text(value: object, where: str) -> str:
    """`value` as a text. Raises ValueError that names `where`."""
    if not isinstance(value, str):
        raise ValueError(f"{where} is no text or number")
    return value

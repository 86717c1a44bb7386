"""One settings object a role; flags, environment variables and documentation are derived from it.

A role's settings are a frozen dataclass whose fields are made with `setting`: the default and the sentence that
explains it stand in one place. `from_environment` reads `UPWELL_<FIELD>`, or the variable that `setting` names;
the command turns each field into a flag of the same name with dashes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from upwell.functions.errors import InvalidSettings

Settings = TypeVar("Settings")

PREFIX = "UPWELL_"


def setting(
    default: Any,
    explanation: str,
    *,
    least: float | None = None,
    most: float | None = None,
    variable: str | None = None,
) -> Any:
    """A field with its default, what it means, why this default included, and the bounds of a number.

    `variable` is the environment variable where others have named it already.
    """
    metadata = {"explanation": explanation, "least": least, "most": most, "named": variable}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Option:
    """A field as the outside sees it."""

    name: str
    type: type
    """int, float, str, bool, or tuple for names with commas between them, or in a JSON array."""
    default: Any
    explanation: str
    least: float | None = None
    most: float | None = None
    named: str | None = None

    @property
    def flag(self) -> str:
        """The command's flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return self.named or PREFIX + self.name.upper()

    def parse(self, text: str, where: str) -> Any:
        """The value in `text`; raises InvalidSettings with `where`."""
        try:
            value = _PARSERS[self.type](text)
        except ValueError as error:
            raise InvalidSettings(
                f"{text!r} is not {self.expected}", where=where, hint=self.explanation
            ) from error
        low = self.least is not None and not value >= self.least  # refuses NaN too
        high = self.most is not None and not value <= self.most
        if low or high:
            raise InvalidSettings(f"{text} is not {self.expected}", where=where, hint=self.explanation)
        return value

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        words[tuple] = "names with commas or in a JSON array"
        bounds = [f"from {self.least:g}"] if self.least is not None else []
        bounds += [f"to {self.most:g}"] if self.most is not None else []
        return " ".join([words.get(self.type, "text"), *bounds])


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _names(text: str) -> tuple[str, ...]:
    if text.lstrip().startswith("["):
        names = json.loads(text)
        if not all(isinstance(name, str) for name in names):
            raise ValueError(text)
        return tuple(names)
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: Mapping[type, Callable[[str], Any]] = {
    int: int,
    float: float,
    str: str,
    bool: _boolean,
    tuple: _names,
}


def options(settings: type[Any]) -> list[Option]:
    """The fields of a settings dataclass that are made with `setting`."""
    hints = get_type_hints(settings)
    return [
        Option(f.name, getattr(hints[f.name], "__origin__", hints[f.name]), f.default, **f.metadata)
        for f in dataclasses.fields(settings)
        if "explanation" in f.metadata
    ]


def from_environment(
    settings: type[Settings], environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from `UPWELL_*` variables, with `overrides` (flags that were given) above them.

    Raises InvalidSettings naming the variable.
    """
    values: dict[str, Any] = {
        option.name: option.parse(environment[option.variable], option.variable)
        for option in options(settings)
        if option.variable in environment
    }
    return settings(**{**values, **(overrides or {})})


def reference(settings: type[Any]) -> str:
    """The settings as a Markdown table: flag, variable, default, meaning."""
    rows = ["| flag | variable | default | |", "|---|---|---|---|"]
    for option in options(settings):
        default = ",".join(map(str, option.default)) if option.type is tuple else str(option.default).lower()
        rows.append(f"| `{option.flag}` | `{option.variable}` | `{default}` | {option.explanation} |")
    return "\n".join(rows) + "\n"

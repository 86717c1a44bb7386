"""Flags derived from a role's settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from upwell.runtime.settings import Option, from_environment, options

Function = TypeVar("Function", bound=Callable[..., Any])
Settings = TypeVar("Settings")


def settings_flags(settings: type[Any], *, only: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """A flag for each field of `settings` (or for those named), passed on as None when it was not given."""
    chosen = [option for option in options(settings) if not only or option.name in only]

    def decorate(function: Function) -> Function:
        for option in reversed(chosen):
            function = _flag(option)(function)
        return function

    return decorate


def _flag(option: Option) -> Callable[[Function], Function]:
    default = ",".join(map(str, option.default)) if option.type is tuple else option.default
    said = f"default: {default}; env: {option.variable}" if default != "" else f"env: {option.variable}"
    explanation = f"{option.explanation}  [{said}]"
    if option.type is bool:
        return click.option(f"{option.flag}/--no-{option.flag[2:]}", option.name, default=None, help=explanation)
    return click.option(
        option.flag, option.name, type=str, default=None, metavar=_metavar(option), help=explanation
    )


def _metavar(option: Option) -> str:
    return {int: "INTEGER", float: "NUMBER", tuple: "A,B"}.get(option.type, "TEXT")


def read_settings(settings: type[Settings], given: dict[str, Any]) -> Settings:
    """Settings from flags above environment above defaults. Raises InvalidSettings naming the flag."""
    by_name = {option.name: option for option in options(settings)}
    overrides = {
        name: by_name[name].parse(value, by_name[name].flag) if isinstance(value, str) else value
        for name, value in given.items()
        if value is not None
    }
    return from_environment(settings, os.environ, overrides)

"""Which of a module's attributes is the function."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Final

from upwell.functions.errors import InvalidFunction
from upwell.functions.sdk import is_hook
from upwell.functions.wsgi import is_wsgi

ENTRY_NAMES: Final = ("app", "application", "new", "handle", "main")
"""In this order; a module's only public callable comes after them."""


def named(module: types.ModuleType, attribute: str, where: str) -> object:
    """What the user named, dots leading further in. Raises InvalidFunction when it is not there or no callable."""
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = ", ".join(sorted(_candidates(module))) or "none"
            raise InvalidFunction(
                f"there is no {attribute}", where=where, hint=f"Public callables there: {names}."
            )
        found = getattr(found, part)
    if not callable(found):
        raise InvalidFunction(f"{attribute} is a {type(found).__name__}, which cannot be called", where=where)
    return found


def pick(module: types.ModuleType, where: str) -> object:
    """What stands out in `module`: a usual name, or the only public callable.

    An application of a framework comes before the functions beside it, which are its views. Raises InvalidFunction
    when nothing or too much fits.
    """
    for name in ENTRY_NAMES:
        if callable(found := getattr(module, name, None)):
            return found
    candidates = _candidates(module)
    applications = [each for each in candidates.values() if _is_application(each, module.__name__)]
    for fitting in (applications, list(candidates.values())):
        if len(fitting) == 1:
            return fitting[0]
    if candidates:
        raise InvalidFunction(
            f"several callables could be the function: {', '.join(sorted(candidates))}",
            where=where,
            hint=f"Name one, as PATH:{min(candidates)}, or call it {', '.join(ENTRY_NAMES[:-1])} or main.",
        )
    raise InvalidFunction(
        "no public callable is defined there",
        where=where,
        hint="Define one, as: async def main(): return 'Hello'",
    )


def _candidates(module: types.ModuleType) -> dict[str, Callable[..., Any]]:
    """Public callables that the module defines itself: functions, and instances that are called on purpose."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and _is_candidate(value, module.__name__)
    }


def _is_candidate(value: object, module: str) -> bool:
    if inspect.isfunction(value):
        return value.__module__ == module and not is_hook(value)
    if inspect.isclass(value) or inspect.isroutine(value):
        return False
    if isinstance(value, functools.partial) or _is_application(value, module):
        return True
    return type(value).__module__ == module and inspect.isfunction(_call_of(value))


def _is_application(value: object, module: str) -> bool:
    """Whether a value is an instance of another module's class that takes requests: ASGI or WSGI."""
    if inspect.isclass(value) or inspect.isroutine(value) or type(value).__module__ == module:
        return False
    call = _call_of(value)
    return inspect.isfunction(call) and (inspect.iscoroutinefunction(call) or is_wsgi(value))


def _call_of(value: object) -> object:
    return getattr(type(value), "__call__", None)  # noqa: B004  the function itself is looked at

"""Istio's match of a string: exact, prefix or regular expression (the whole string, in RE2's syntax)."""

from __future__ import annotations

from collections.abc import Callable

from upwell.functions.api.http_values import StringMatch
from upwell.functions.api.regex import Regex

Matches = Callable[[str], bool]


def present(value: str) -> bool:
    """Any value, also an empty one."""
    return True


def string_match(rule: StringMatch, *, ignore_case: bool = False) -> Matches:
    """What the rule asks of a string. Case can be ignored in exact and prefix matches only, as in Istio."""
    if rule.is_presence:
        return present
    if rule.exact is not None:
        return _exact(rule.exact, ignore_case)
    if rule.prefix is not None:
        return _prefix(rule.prefix, ignore_case)
    assert rule.regex is not None
    return Regex(rule.regex).matches


def _exact(wanted: str, ignore_case: bool) -> Matches:
    if not ignore_case:
        return wanted.__eq__
    folded = wanted.lower()
    return lambda value: value.lower() == folded


def _prefix(wanted: str, ignore_case: bool) -> Matches:
    if not ignore_case:
        return lambda value: value.startswith(wanted)
    folded = wanted.lower()
    return lambda value: value.lower().startswith(folded)

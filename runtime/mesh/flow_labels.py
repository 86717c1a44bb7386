"""Conditions on the flow labels of a request, compiled once so that a request pays only for what they read.

A request's labels as a whole (`PolicyRequest.labels`) cost more than all the rest of a policy, while a condition
mostly reads one header. So each label gets a reader that looks only where it may stand, and falls back to the
whole where that is open: with W3C baggage, whose members are labels of any name, with events in the body, or with
a header that stands twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Final

from upwell.functions.api.regex import Regex
from upwell.functions.api.scheduling import LabelMatcher, MatchExpression, MatchRequirement, searching
from upwell.runtime.mesh.request import PolicyRequest

ReadLabel = Callable[[PolicyRequest], str | None]
"""The value of one label; None where the request has none."""
Condition = Callable[[PolicyRequest], bool]

_HEADER: Final = "http.request.header."
_NO_NAMES: Final[frozenset[bytes]] = frozenset()
_MOST_SPELLINGS: Final = 8
"""Of a header's name, in which `_` may have been `-`: more are not tried one by one."""


def read_label(label: str) -> ReadLabel:
    """A reader that gives the same as `request.labels.get(label)`."""
    if not label.startswith(_HEADER):
        return lambda request: request.labels.get(label)
    parts = label.removeprefix(_HEADER).split("_")
    if 2 ** (len(parts) - 1) > _MOST_SPELLINGS or "-" in label or not label.isascii():
        return lambda request: request.labels.get(label)
    separators = product("-_", repeat=len(parts) - 1)
    names = ["".join(part + mark for part, mark in zip(parts, (*marks, ""), strict=True)) for marks in separators]
    spellings = [name.encode() for name in names]

    def read(request: PolicyRequest) -> str | None:
        head = request.head
        header = head.header
        if request.events or header(b"baggage") is not None or not head.plain(_NO_NAMES):
            return request.labels.get(label)
        found = None
        for spelling in spellings:
            value = header(spelling)
            if value is not None:
                if found is not None:
                    return request.labels.get(label)
                found = value
        return None if found is None else found.decode("latin-1")

    return read


def compile_matcher(matcher: LabelMatcher | None) -> Condition | None:
    """What a matcher asks for, all of it; None when it means every request."""
    if matcher is None or matcher.is_empty:
        return None
    conditions = [_equals(label, value) for label, value in (matcher.match_labels or {}).items()]
    conditions += [_requirement(each) for each in matcher.requirements]
    if matcher.expression is not None:
        conditions.append(_expression(matcher.expression))
    return _all(conditions)


def _all(conditions: list[Condition]) -> Condition:
    if len(conditions) == 1:
        return conditions[0]
    return lambda request: all(condition(request) for condition in conditions)


def _any(conditions: list[Condition]) -> Condition:
    return lambda request: any(condition(request) for condition in conditions)


def _not(condition: Condition) -> Condition:
    return lambda request: not condition(request)


def _equals(label: str, value: str) -> Condition:
    read = read_label(label)
    return lambda request: read(request) == value


def _exists(label: str) -> Condition:
    read = read_label(label)
    return lambda request: read(request) is not None


def _is_one_of(label: str, values: Iterable[str]) -> Condition:
    read = read_label(label)
    wanted = frozenset(values)
    return lambda request: read(request) in wanted


def _holds_match(label: str, pattern: str) -> Condition:
    read = read_label(label)
    matches = Regex(searching(pattern)).matches
    return lambda request: (value := read(request)) is not None and matches(value)


def _requirement(requirement: MatchRequirement) -> Condition:
    """`NotIn` and `DoesNotExist` hold for a request without the label."""
    operator = requirement.operator
    if operator in ("Exists", "DoesNotExist"):
        condition = _exists(requirement.key)
    else:
        condition = _is_one_of(requirement.key, requirement.values or ())
    return condition if operator in ("Exists", "In") else _not(condition)


def _expression(expression: MatchExpression) -> Condition:
    """All of nothing holds, any of nothing does not."""
    if expression.not_ is not None:
        return _not(_expression(expression.not_))
    if expression.all is not None:
        return _all([_expression(each) for each in expression.all.of])
    if expression.any is not None:
        return _any([_expression(each) for each in expression.any.of])
    if expression.label_exists is not None:
        return _exists(expression.label_exists)
    if expression.label_equals is not None:
        return _equals(expression.label_equals.label, expression.label_equals.value)
    assert expression.label_matches is not None, "an expression has one variant"
    return _holds_match(expression.label_matches.label, expression.label_matches.regex)

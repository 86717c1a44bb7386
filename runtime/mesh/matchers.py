"""Alibaba's matchers of requests, made ready to be asked: header fields, the query, the caller's address.

What they mean is said at the models (`functions.api.request_match`). A matcher keeps nothing of a request; its
regular expressions keep a bounded number of steps.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from upwell.functions.api.regex import Regex
from upwell.functions.api.request_match import (
    HeaderMatcher,
    QueryParameterMatcher,
    RemoteAddressMatcher,
    RequestMatcher,
)
from upwell.runtime.mesh.request import PolicyRequest

TextTest = Callable[[str], bool]

_V4_IN_V6: Final = "::ffff:"


class Matcher(Protocol):
    """A condition on a request."""

    def matches(self, request: PolicyRequest) -> bool:
        """Whether the request meets it."""
        ...


def text_test(condition: str, text: str, *, ignore_case: bool = False) -> TextTest:
    """The test that a condition of the models stands for: `exact_match` and so on, `present_match` for any."""
    wanted = text.lower() if ignore_case else text
    tests: dict[str, TextTest] = {
        "exact_match": lambda value: value == wanted,
        "prefix_match": lambda value: value.startswith(wanted),
        "suffix_match": lambda value: value.endswith(wanted),
        "contains_match": lambda value: wanted in value,
        "present_match": lambda value: True,
    }
    test = Regex(text).matches if condition == "regex_match" else tests[condition]
    return (lambda value: test(value.lower())) if ignore_case else test


class HeaderMatch:
    """A condition on a header field or a pseudo header; of several values one has to fit."""

    def __init__(self, matcher: HeaderMatcher) -> None:
        self._name = matcher.name.lower()
        condition, text = matcher.condition
        if matcher.is_exact_match_empty:
            condition = "exact_match"
        self._test = text_test(condition, text)
        self._inverted = bool(matcher.invert_match)
        is_presence = condition == "present_match"
        if is_presence and matcher.present_match is False and not matcher.is_exact_match_empty:
            self._inverted = not self._inverted
        self._when_absent = is_presence and self._inverted

    def matches(self, request: PolicyRequest) -> bool:
        values = request.values(self._name)
        if not values:
            return self._when_absent
        test = self._test
        if len(values) == 1:
            return test(_unicode(values[0])) is not self._inverted
        return any(test(_unicode(value)) for value in values) is not self._inverted


def _unicode(value: str) -> str:
    """A field's value as the policy's author would write it: most beyond ASCII is UTF-8 on the wire."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


class QueryMatch:
    """A condition on a parameter of the query."""

    def __init__(self, matcher: QueryParameterMatcher) -> None:
        self._name = matcher.name
        condition, text = matcher.condition
        self._test = text_test(condition, text, ignore_case=bool(matcher.ignore_case))
        self._wants_absence = condition == "present_match" and not matcher.present_match

    def matches(self, request: PolicyRequest) -> bool:
        value = request.query.get(self._name)
        if value is None or self._wants_absence:
            return value is None and self._wants_absence
        return self._test(value)


class AddressMatch:
    """Whether the caller's address is in a network. An IPv4 address is the same when written as IPv6."""

    def __init__(self, matcher: RemoteAddressMatcher) -> None:
        network = matcher.network
        self._is_v4 = network.version == 4
        self._shift = network.max_prefixlen - network.prefixlen
        self._prefix = int(network.network_address) >> self._shift

    def matches(self, request: PolicyRequest) -> bool:
        client = request.client
        if client[:7].lower() == _V4_IN_V6 and "." in client:
            client = client[7:]
        if (":" not in client) is not self._is_v4:
            return False
        family = socket.AF_INET if self._is_v4 else socket.AF_INET6
        try:
            address = int.from_bytes(socket.inet_pton(family, client.partition("%")[0]), "big")
        except OSError:
            return False
        return address >> self._shift == self._prefix


def request_match(matcher: RequestMatcher) -> Matcher:
    """The conditions of a matcher, which a request must meet together."""
    conditions: list[Matcher] = [HeaderMatch(each) for each in matcher.header_match or ()]
    if matcher.remote_address:
        conditions.append(AddressMatch(matcher.remote_address))
    conditions += [QueryMatch(each) for each in matcher.query_match or ()]
    return conditions[0] if len(conditions) == 1 else AllOf(conditions)


class AllOf:
    """Conditions that a request must meet together."""

    def __init__(self, conditions: Sequence[Matcher]) -> None:
        self._conditions = tuple(conditions)

    def matches(self, request: PolicyRequest) -> bool:
        return all(condition.matches(request) for condition in self._conditions)

"""What Alibaba's policies ask of a request: header fields, parameters of the query, the caller's address.

Of a matcher's conditions one may be set. As in its schema, an empty string and false are the same as not given,
but a `present_match: false` that stands alone asks for absence.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from upwell.functions.api.http_values import FIELD_NAME
from upwell.functions.api.meta import invalid
from upwell.functions.api.policies import SnakeModel
from upwell.functions.api.regex import Regex
from upwell.functions.errors import InvalidInput

PSEUDO_NAMES: Final = frozenset({":authority", ":method", ":path", ":scheme"})
_TEXT_CONDITIONS: Final = ("exact_match", "prefix_match", "suffix_match", "regex_match", "contains_match")


def _check_regex(pattern: str) -> str:
    try:
        Regex(pattern)
    except InvalidInput as error:
        raise invalid(f"{pattern!r} is no expression that can be used: {error.what}") from None
    return pattern


def _check_name(name: str) -> str:
    if name.startswith(":") and name not in PSEUDO_NAMES:
        raise invalid(f"{name!r} is no part of a request: {', '.join(sorted(PSEUDO_NAMES))}")
    if not FIELD_NAME.fullmatch(name.removeprefix(":")):
        raise invalid(f"{name!r} cannot be the name of a header field")
    return name


def _check_address(address: str) -> str:
    try:
        ip_address(address)
    except ValueError:
        raise invalid(
            f"{address!r} is no IP address; the length of a prefix stands in a field of its own"
        ) from None
    return address


RegexText = Annotated[str, AfterValidator(_check_regex)]
HeaderName = Annotated[str, Field(max_length=256), AfterValidator(_check_name)]


class _Matcher(SnakeModel):
    """What matchers of headers and of the query have in common."""

    exact_match: str | None = None
    prefix_match: str | None = None
    suffix_match: str | None = None
    regex_match: RegexText | None = None
    present_match: bool | None = None

    @property
    def conditions(self) -> list[str]:
        """The conditions that are set, by their fields' names; `present_match: false` only where it is alone."""
        found = [name for name in _TEXT_CONDITIONS if getattr(self, name, None)]
        if self.present_match or (self.present_match is not None and not found):
            found.append("present_match")
        return found

    @property
    def condition(self) -> tuple[str, str]:
        """The one condition and its text; that the name is there at all when none is set."""
        name = next(iter(self.conditions), "present_match")
        return name, getattr(self, name) if name in _TEXT_CONDITIONS else ""

    def _check_one(self) -> list[str]:
        found = self.conditions
        if len(found) > 1:
            raise invalid(f"only one condition may be set, and {found[0]} is", found[-1])
        return found


class HeaderMatcher(_Matcher):
    """A condition on a header field, or on `:path` (with the query), `:method`, `:authority` or `:scheme`.

    Without a condition it is enough that the field is there. A field that is not there fails every condition but
    that on its absence, inverted or not, as in Envoy.
    """

    name: HeaderName
    invert_match: bool | None = None
    is_exact_match_empty: bool | None = None
    """The value must be empty: `exact_match` cannot say that."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = self._check_one()
        if self.is_exact_match_empty and found and found != ["present_match"]:
            raise invalid(f"the value cannot be empty and fit {found[0]}", "is_exact_match_empty")
        return self


class QueryParameterMatcher(_Matcher):
    """A condition on a parameter of the query, of one that stands twice on the first."""

    name: Annotated[str, Field(min_length=1, max_length=1024)]
    contains_match: str | None = None
    ignore_case: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = self._check_one()
        if not found:
            raise invalid("one condition must be set: exact_match, prefix_match, present_match, ...")
        if self.ignore_case and found[0] in ("regex_match", "present_match"):
            raise invalid(f"has no meaning for {found[0]}: write (?i) in an expression", "ignore_case")
        return self


class RemoteAddressMatcher(SnakeModel):
    """The caller's address, or all that begin with the same bits."""

    address: Annotated[str, AfterValidator(_check_address)]
    v4_prefix_mask_len: Annotated[int, Field(ge=0, le=32)] | None = None
    v6_prefix_mask_len: Annotated[int, Field(ge=0, le=128)] | None = None

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """All addresses that match; the bits after the prefix do not matter."""
        address = ip_address(self.address)
        length = self.v4_prefix_mask_len if address.version == 4 else self.v6_prefix_mask_len
        return ip_network((address, address.max_prefixlen if length is None else length), strict=False)


class RequestMatcher(SnakeModel):
    """Conditions that a request must meet together."""

    header_match: list[HeaderMatcher] | None = None
    remote_address: RemoteAddressMatcher | None = None
    query_match: list[QueryParameterMatcher] | None = None

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not (self.header_match or self.remote_address or self.query_match):
            raise invalid("at least one of header_match, remote_address and query_match must be given")
        return self

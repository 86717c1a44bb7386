"""Values of Istio's HTTP routes, each with its rule: ports, hosts, names of header fields, matches of strings."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from upwell.functions.api.durations import seconds
from upwell.functions.api.meta import Model, invalid
from upwell.functions.api.names import is_dns_1123_label
from upwell.functions.api.regex import Regex
from upwell.functions.errors import InvalidInput

FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HOST: Final = re.compile(
    r"(\*|(\*\.)?[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?)*)"
)
AUTHORITY: Final = re.compile(r"[^\s/?#@\\\x00-\x1f\x7f]+")
_TARGET: Final = re.compile(r"[\x21-\x7e\x80-\xff]+")
LARGEST_BODY: Final = 1024 * 1024
FRAMING: Final = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that only the proxy itself may write: to set one would break or split a message."""
AUTHORITY_NAMES: Final = frozenset({":authority", "host"})
RETRY_CONDITIONS: Final = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
"""What Envoy takes in x-envoy-retry-on and x-envoy-retry-grpc-on."""
GRPC_STATUSES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By their number."""
_CORS_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"}
)
_STATUS_CODES: Final = frozenset(status.value for status in HTTPStatus)


def _check_port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise invalid(f"{port} is no port: 1 to 65535")
    return port


def _check_status(status: int) -> int:
    if not 200 <= status <= 599:
        raise invalid(f"{status} is no status of an answer: 200 to 599")
    return status


def _check_field_name(name: str) -> str:
    if not FIELD_NAME.fullmatch(name):
        raise invalid(f"{name!r} cannot be the name of a header field")
    return name


def check_match_names(fields: dict[str, StringMatch] | None) -> dict[str, StringMatch] | None:
    for name in fields or {}:
        if not FIELD_NAME.fullmatch(name.removeprefix(":").removeprefix("@request.auth.claims")):
            raise invalid(f"{name!r} cannot be the name of a header field", name)
    return fields


def check_host(host: str) -> str:
    """A host as VirtualServices name them: a domain, a short name, or one that begins with `*.`"""
    if len(host) > 255 or not _HOST.fullmatch(host):
        raise invalid(f"{host!r} is no host: a domain name, or one that begins with '*.'")
    return host


def _check_destination_host(host: str) -> str:
    if host == "*":
        raise invalid("'*' names no service")
    return check_host(host)


def check_authority(authority: str) -> str:
    if not AUTHORITY.fullmatch(authority):
        raise invalid(f"{authority!r} cannot stand in a Host header")
    return authority


def check_target(target: str) -> str:
    if not _TARGET.fullmatch(target):
        raise invalid(f"{target!r} cannot stand in a request's target: percent-encode it")
    return target


def _check_subset(subset: str) -> str:
    if not is_dns_1123_label(subset):
        raise invalid(f"{subset!r} cannot be the name of a subset")
    return subset


def check_namespace(namespace: str) -> str:
    if namespace and not is_dns_1123_label(namespace):
        raise invalid(f"{namespace!r} cannot be the name of a namespace")
    return namespace


def check_scheme(scheme: str) -> str:
    if scheme not in ("", "http", "https"):
        raise invalid(f"{scheme!r} is neither http nor https")
    return scheme


def check_redirect_code(code: int) -> int:
    if code not in (301, 302, 303, 307, 308):
        raise invalid(f"{code} is no redirect that can be sent: 301, 302, 303, 307 or 308")
    return code


def check_cors_method(method: str) -> str:
    if method not in _CORS_METHODS:
        raise invalid(f"{method!r} is no HTTP method that CORS can allow")
    return method


def check_cors_header(name: str) -> str:
    return name if name == "*" else _check_field_name(name)


def check_whole_seconds(text: str) -> str:
    if seconds(text) % 1:
        raise invalid(f"{text!r} is not in whole seconds, which is all that the header can say")
    return text


def check_retry_on(text: str) -> str:
    for condition in conditions_of(text):
        if condition not in RETRY_CONDITIONS and not (condition.isdigit() and int(condition) in _STATUS_CODES):
            raise invalid(f"{condition!r} is neither a condition for retries nor a status code")
    return text


def conditions_of(retry_on: str) -> list[str]:
    """The members of `retryOn`."""
    return [member for each in retry_on.split(",") if (member := each.strip())]


def check_pattern(text: str) -> str:
    """A regular expression in RE2's syntax."""
    try:
        Regex(text)
    except InvalidInput as error:
        raise invalid(f"{text!r} is not taken: {error.what}") from None
    return text


Port = Annotated[int, AfterValidator(_check_port)]
Status = Annotated[int, AfterValidator(_check_status)]
FieldName = Annotated[str, AfterValidator(_check_field_name)]
Authority = Annotated[str, AfterValidator(check_authority)]
Target = Annotated[str, AfterValidator(check_target)]
Pattern = Annotated[str, AfterValidator(check_pattern)]


class StringMatch(Model):
    """One of the three, or none of them: then it is enough that there is a value."""

    exact: str | None = None
    prefix: str | None = None
    regex: Annotated[str, AfterValidator(lambda text: text if text == "*" else check_pattern(text))] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len(self.model_fields_set) > 1:
            raise invalid("only one of exact, prefix and regex may be set", sorted(self.model_fields_set)[-1])
        return self

    @property
    def is_presence(self) -> bool:
        """Whether any value matches; so does `regex: "*"`, which is no regular expression."""
        return (self.exact, self.prefix, self.regex) in ((None, None, None), (None, None, "*"))


class Percent(Model):
    """A share in percent: 0.01 is one request of ten thousand."""

    value: Annotated[float, Field(ge=0, le=100)] | None = None


class PortSelector(Model):
    """A port of a service."""

    number: Port | None = None


class Destination(Model):
    """A service, as seen from the rule's namespace when it is a short name."""

    host: Annotated[str, AfterValidator(_check_destination_host)]
    subset: Annotated[str, AfterValidator(_check_subset)] | None = None
    port: PortSelector | None = None

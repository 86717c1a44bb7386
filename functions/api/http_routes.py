"""The parts of a VirtualService's HTTP routes, as Istio's API has them (networking.istio.io).

Every optional field is None where it is not set, so that an object prints as it was written; what a field means
when it is absent is said where it is read. Validation follows Istio's own, and refuses two things more: header
operations on fields that frame a message, and regular expressions that may take long.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, model_validator
from pydantic.alias_generators import to_camel

from upwell.functions.api.durations import PositiveDuration
from upwell.functions.api.http_values import (
    AUTHORITY,
    AUTHORITY_NAMES,
    FIELD_NAME,
    FIELD_VALUE,
    FRAMING,
    GRPC_STATUSES,
    LARGEST_BODY,
    Authority,
    Destination,
    Pattern,
    Percent,
    Port,
    Status,
    StringMatch,
    Target,
    check_authority,
    check_cors_header,
    check_cors_method,
    check_match_names,
    check_namespace,
    check_redirect_code,
    check_retry_on,
    check_scheme,
    check_target,
    check_whole_seconds,
)
from upwell.functions.api.meta import Model, invalid
from upwell.functions.api.regex_replace import Replacer
from upwell.functions.errors import InvalidInput


class HeaderOperations(Model):
    """What becomes of header fields: removed first, then set, then added to."""

    set: dict[str, str] | None = None
    add: dict[str, str] | None = None
    remove: list[str] | None = None

    def values(self) -> Iterator[tuple[str, str, str]]:
        """`set` or `add`, a name and its value."""
        for operation, fields in (("set", self.set), ("add", self.add)):
            for name, value in (fields or {}).items():
                yield operation, name, value

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        for operation, name, value in self.values():
            self._check_name(name, operation, name)
            if not FIELD_VALUE.fullmatch(value):
                raise invalid("a header field's value cannot hold control characters", operation, name)
        for index, name in enumerate(self.remove or []):
            self._check_name(name, "remove", index)
        return self

    def _check_name(self, name: str, *path: str | int) -> None:
        if name.lower() in FRAMING:
            raise invalid(f"{name!r} frames the message, and is the gateway's own to write", *path)
        if not FIELD_NAME.fullmatch(name) or name.lower() == "host":
            raise invalid(f"{name!r} cannot be the name of a header field to change here", *path)


class RequestHeaderOperations(HeaderOperations):
    """Those on a request may set or add to `host` (or `:authority`), which rewrites it."""

    @property
    def authority(self) -> str | None:
        """What the Host header becomes."""
        found = {operation: value for operation, name, value in self.values() if name.lower() in AUTHORITY_NAMES}
        return found.get("set", found.get("add"))

    def _check_name(self, name: str, *path: str | int) -> None:
        if path[0] == "remove" or name.lower() not in AUTHORITY_NAMES:
            super()._check_name(name, *path)
        else:
            fields = (self.set if path[0] == "set" else self.add) or {}
            if not AUTHORITY.fullmatch(fields[name]):
                raise invalid(f"{fields[name]!r} cannot stand in a Host header", *path)


class HeaderRules(Model):
    """Operations on the two heads."""

    request: RequestHeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPMatchRequest(Model):
    """All that a request must have."""

    name: str | None = None
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: Annotated[dict[str, StringMatch], AfterValidator(check_match_names)] | None = None
    without_headers: Annotated[dict[str, StringMatch], AfterValidator(check_match_names)] | None = None
    query_params: dict[str, StringMatch] | None = None
    ignore_uri_case: bool | None = None
    port: Port | None = None
    source_labels: dict[str, str] | None = None
    source_namespace: Annotated[str, AfterValidator(check_namespace)] | None = None
    gateways: list[str] | None = None
    stat_prefix: str | None = None

    @property
    def is_catch_all(self) -> bool:
        """Whether no request of the host is left for a later route."""
        asked = self.model_fields_set - {"name", "uri", "ignore_uri_case", "stat_prefix"}
        uri = self.uri
        any_path = uri is None or uri.is_presence or uri.prefix in ("", "/") or uri.regex == ".*"
        return any_path and not any(getattr(self, field) for field in asked)


class HTTPRouteDestination(Model):
    """Where a share of the requests goes."""

    destination: Destination
    weight: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    headers: HeaderRules | None = None


class HTTPRedirect(Model):
    """An answer that sends the client elsewhere: what is not set stays the request's."""

    uri: Annotated[str, AfterValidator(lambda text: check_target(text) if text else text)] | None = None
    authority: Annotated[str, AfterValidator(lambda text: check_authority(text) if text else text)] | None = None
    port: Port | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: Annotated[str, AfterValidator(check_scheme)] | None = None
    redirect_code: Annotated[int, AfterValidator(check_redirect_code)] | None = None

    @model_validator(mode="after")
    def _check_target_given(self) -> Self:
        if self.port is not None and self.derive_port is not None:
            raise invalid("only one of port and derivePort may be set", "derivePort")
        if not (self.uri or self.authority or self.scheme or self.port or self.derive_port):
            raise invalid("must say a uri, an authority, a scheme or a port to redirect to")
        return self


Content = bytes
"""Where `bytes` is the name of a field."""


class HTTPBody(Model):
    """The body of a direct response: text, or bytes in base64."""

    string: str | None = None
    bytes: str | None = None

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.string is not None and self.bytes is not None:
            raise invalid("only one of string and bytes may be set", "bytes")
        try:
            size = len(self.content)
        except (Base64Error, ValueError):
            raise invalid("must be base64", "bytes") from None
        if size > LARGEST_BODY:
            raise invalid(f"may be {LARGEST_BODY} bytes, not {size}", "string" if self.bytes is None else "bytes")
        return self

    @property
    def content(self) -> Content:
        """The bytes that are sent."""
        return b64decode(self.bytes, validate=True) if self.bytes is not None else (self.string or "").encode()


class HTTPDirectResponse(Model):
    """An answer in the place of a service's."""

    status: Status
    body: HTTPBody | None = None


class RegexRewrite(Model):
    """Every part of the path that matches is replaced; `\\1` is what the first group matched."""

    match: Pattern
    rewrite: Target

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        try:
            Replacer(self.match, self.rewrite)
        except InvalidInput as error:
            raise invalid(error.what, "rewrite") from None
        return self


class HTTPRewrite(Model):
    """What a service sees in the place of the client's path and host."""

    uri: Target | None = None
    authority: Authority | None = None
    uri_regex_rewrite: RegexRewrite | None = None

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if self.uri is not None and self.uri_regex_rewrite is not None:
            raise invalid("only one of uri and uriRegexRewrite may be set", "uriRegexRewrite")
        if self.uri is None and self.uri_regex_rewrite is None and self.authority is None:
            raise invalid("must say a uri, a uriRegexRewrite or an authority")
        return self


class HTTPRetry(Model):
    """Retries of one request; 0 attempts, which is also the default, are none."""

    attempts: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    per_try_timeout: PositiveDuration | None = None
    retry_on: Annotated[str, AfterValidator(check_retry_on)] | None = None
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: PositiveDuration | None = None

    @model_validator(mode="after")
    def _check_enabled(self) -> Self:
        if not self.attempts:
            for field, name in (
                ("per_try_timeout", "perTryTimeout"),
                ("retry_on", "retryOn"),
                ("retry_remote_localities", "retryRemoteLocalities"),
            ):
                if getattr(self, field):
                    raise invalid("has no effect: attempts is 0, which turns retries off", name)
        return self


class Delay(Model):
    """A wait before a request goes on; without a percentage there is none."""

    fixed_delay: PositiveDuration | None = None
    exponential_delay: str | None = None
    percentage: Percent | None = None
    percent: Annotated[int, Field(ge=0, le=100)] | None = None

    @model_validator(mode="after")
    def _check_fixed(self) -> Self:
        if self.exponential_delay is not None:
            raise invalid("is not supported, in Istio either; use fixedDelay", "exponentialDelay")
        if self.fixed_delay is None:
            raise invalid("required, but missing", "fixedDelay")
        return self


class Abort(Model):
    """An error in the place of an answer; without a percentage there is none."""

    http_status: Status | None = None
    grpc_status: Literal[GRPC_STATUSES] | None = None  # type: ignore[valid-type] # the tuple is constant
    http2_error: str | None = Field(default=None, alias="http2Error")
    percentage: Percent | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.http2_error is not None:
            raise invalid("is not supported, in Istio either; use httpStatus", "http2Error")
        if self.http_status is not None and self.grpc_status is not None:
            raise invalid("only one of httpStatus and grpcStatus may be set", "grpcStatus")
        if self.http_status is None and self.grpc_status is None:
            raise invalid("required, but missing", "httpStatus")
        return self


class HTTPFaultInjection(Model):
    """Faults on purpose: a delay, an error, or one after the other."""

    delay: Delay | None = None
    abort: Abort | None = None

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if self.delay is None and self.abort is None:
            raise invalid("must say a delay or an abort")
        return self


class HTTPMirrorPolicy(Model):
    """Where copies of requests go, and of how many."""

    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(Model):
    """Which other origins a browser may call from (Cross-Origin Resource Sharing)."""

    allow_origin: list[str] | None = None
    allow_origins: list[StringMatch] | None = None
    allow_methods: list[Annotated[str, AfterValidator(check_cors_method)]] | None = None
    allow_headers: list[Annotated[str, AfterValidator(check_cors_header)]] | None = None
    expose_headers: list[Annotated[str, AfterValidator(check_cors_header)]] | None = None
    max_age: Annotated[PositiveDuration, AfterValidator(check_whole_seconds)] | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None

    @model_validator(mode="after")
    def _check_origins(self) -> Self:
        for index, origin in enumerate(self.allow_origins or []):
            if not (origin.exact or origin.prefix or origin.regex):
                raise invalid("must say an exact, prefix or regex that is not empty", "allowOrigins", index)
        return self


class Delegate(Model):
    """Another VirtualService whose routes stand here."""

    name: str | None = None
    namespace: str | None = None


class HTTPRoute(Model):
    """What becomes of the requests that match."""

    name: str | None = None
    match: list[HTTPMatchRequest] | None = None
    route: list[HTTPRouteDestination] | None = None
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HTTPRewrite | None = None
    timeout: PositiveDuration | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: list[HTTPMirrorPolicy] | None = None
    # Istio has had both spellings.
    mirror_percent: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, validation_alias=AliasChoices("mirrorPercent", "mirror_percent")
    )
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: HeaderRules | None = None

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        if self.delegate is not None:
            self._refuse_beside("delegate", "route", "redirect", "direct_response")
        elif self.redirect is not None:
            self._refuse_beside("redirect", "route", "direct_response", "fault", "rewrite")
        elif self.direct_response is not None:
            self._refuse_beside("directResponse", "route", "fault", "rewrite")
        elif not self.route:
            raise invalid("a route, a redirect or a directResponse is required", "route")
        if self.mirror is not None and self.mirrors:
            raise invalid("only one of mirror and mirrors may be set", "mirrors")
        self._check_weights()
        self._check_authority_once()
        return self

    @property
    def takes_all(self) -> bool:
        """Whether it leaves no request to a later route."""
        return not self.match or any(match.is_catch_all for match in self.match)

    def _refuse_beside(self, present: str, *others: str) -> None:
        for other in others:
            if getattr(self, other):
                raise invalid(f"cannot stand together with {present}", to_camel(other))

    def _check_weights(self) -> None:
        routes = self.route or []
        if len(routes) > 1 and not sum(each.weight or 0 for each in routes):
            raise invalid("the weights of several destinations may not all be 0", "route")

    def _check_authority_once(self) -> None:
        operations = self.headers.request if self.headers else None
        if operations is None or operations.authority is None:
            return
        names = [name for _, name, _ in operations.values() if name.lower() in AUTHORITY_NAMES]
        if len(names) > 1 or (self.rewrite and self.rewrite.authority):
            raise invalid("the Host header may be rewritten in one place only", "headers", "request")

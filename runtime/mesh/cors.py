"""Cross-Origin Resource Sharing, as Envoy's filter does it.

A preflight (OPTIONS with an Origin and a method that is asked for) from an allowed origin is answered at the
gateway; one from another origin goes on to the function, unless `unmatchedPreflights` is IGNORE, and then its
answer names no origin. The answer to any other request from an allowed origin names that origin. No request is
refused here for its origin: that is what the browser does.
"""

from __future__ import annotations

from typing import Final

from upwell.functions.api.durations import seconds
from upwell.functions.api.http_routes import CorsPolicy
from upwell.functions.api.http_values import StringMatch
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.mesh.string_match import string_match

_ALLOW_ORIGIN: Final = b"access-control-allow-origin"
_ALLOW_CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")


class Cors:
    """The `corsPolicy` of a route."""

    __slots__ = (
        "_credentials",
        "_expose",
        "_headers",
        "_max_age",
        "_methods",
        "_origins",
        "_policy",
        "_unmatched",
    )

    def __init__(self, policy: str, rule: CorsPolicy) -> None:
        self._policy = policy
        origins = rule.allow_origins
        if origins is None:
            origins = [StringMatch(exact=origin) for origin in rule.allow_origin or []]
        self._origins = [string_match(origin) for origin in origins]
        self._methods = ",".join(rule.allow_methods or []).encode()
        self._headers = ",".join(rule.allow_headers or []).encode()
        self._expose = ",".join(rule.expose_headers or []).encode()
        self._max_age = b"" if rule.max_age is None else str(int(seconds(rule.max_age))).encode()
        self._credentials = bool(rule.allow_credentials)
        self._unmatched = rule.unmatched_preflights == "IGNORE"

    def allowed_origin(self, request: PolicyRequest) -> bytes | None:
        """The request's origin, if it has one that may call."""
        origin = request.head.header(b"origin")
        return origin if origin and self._is_allowed(origin.decode("latin-1")) else None

    def _is_allowed(self, origin: str) -> bool:
        # A rule that matches `*` allows every origin.
        return any(matches("*") or matches(origin) for matches in self._origins)

    def preflight(self, request: PolicyRequest) -> Refusal | None:
        """The answer to a preflight; None for any other request, and for one that goes on to the function."""
        head = request.head
        asked = head.header(b"access-control-request-method")
        if head.method != b"OPTIONS" or not asked or not head.header(b"origin"):
            return None
        origin = self.allowed_origin(request)
        if origin is None and not self._unmatched:
            return None
        headers: Headers = [] if origin is None else [(_ALLOW_ORIGIN, origin)]
        if self._credentials:
            headers.append(_ALLOW_CREDENTIALS)
        asked_headers = head.header(b"access-control-request-headers") or b""
        for name, value, echo in (
            (b"access-control-allow-methods", self._methods, asked),
            (b"access-control-allow-headers", self._headers, asked_headers),
            (b"access-control-max-age", self._max_age, self._max_age),
        ):
            if value:
                headers.append((name, echo if value == b"*" else value))
        reason = "a preflight from an allowed origin" if origin else "a preflight from another origin"
        return Refusal(self._policy, Cause.ANSWERED, "", reason, 200, headers)

    def add_headers(self, origin: bytes, headers: Headers) -> Headers:
        """The fields of the answer to a request from `origin`, which is allowed."""
        put: Headers = [(_ALLOW_ORIGIN, origin)]
        if self._credentials:
            put.append(_ALLOW_CREDENTIALS)
        if self._expose:
            put.append((b"access-control-expose-headers", self._expose))
        names = {name for name, _ in put}
        return [field for field in headers if field[0] not in names] + put

"""Answers that a VirtualService gives in a service's place, as Envoy does: redirects and direct responses."""

from __future__ import annotations

from typing import Final

from upwell.functions.api.http_routes import HTTPDirectResponse, HTTPRedirect
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.http_match import authority_of
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.request import PolicyRequest

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def split_port(authority: str) -> tuple[str, str]:
    """A host and its port, which may be empty; an IPv6 address keeps its brackets."""
    host, colon, port = authority.rpartition(":")
    return (host, port) if colon and port.isdigit() else (authority, "")


class Redirect:
    """The `redirect` of a route."""

    __slots__ = ("_policy", "_rule", "_status")

    def __init__(self, policy: str, rule: HTTPRedirect) -> None:
        self._policy = policy
        self._rule = rule
        self._status = rule.redirect_code or 301

    def answer(self, request: PolicyRequest) -> Refusal:
        """Where the client is sent: the query stays, unless the new path has one of its own."""
        location = f"{self._scheme(request)}://{self._authority(request)}{self._target(request)}"
        headers: Headers = [(b"location", location.encode("latin-1"))]
        return Refusal(self._policy, Cause.ANSWERED, "", "a redirect", self._status, headers)

    def _scheme(self, request: PolicyRequest) -> str:
        return self._rule.scheme or request.scheme

    def _authority(self, request: PolicyRequest) -> str:
        rule, scheme = self._rule, self._scheme(request)
        host, asked_port = split_port(authority_of(request))
        port = self._port(request, asked_port)
        shown = f":{port}" if port and port != _DEFAULT_PORTS.get(scheme) else ""
        return f"{rule.authority}{shown}" if rule.authority else f"{host}{shown}"

    def _port(self, request: PolicyRequest, asked: str) -> str:
        rule = self._rule
        if rule.port is not None:
            return str(rule.port)
        if rule.derive_port == "FROM_REQUEST_PORT":
            return asked or _DEFAULT_PORTS.get(request.scheme, "")
        if rule.derive_port is not None or rule.authority:
            return ""
        # Of another scheme the port means nothing there, if it was the first one's own.
        changed = self._scheme(request) != request.scheme
        return "" if changed and asked == _DEFAULT_PORTS.get(request.scheme, "") else asked

    def _target(self, request: PolicyRequest) -> str:
        target = request.head.origin_target.decode("latin-1")
        new = self._rule.uri
        if not new:
            return target if target.startswith("/") else "/"
        _, mark, query = target.partition("?")
        path = new if new.startswith("/") else f"/{new}"
        return path if "?" in new else f"{path}{mark}{query}"


class DirectResponse:
    """The `directResponse` of a route."""

    __slots__ = ("_refusal",)

    def __init__(self, policy: str, rule: HTTPDirectResponse) -> None:
        body = rule.body.content if rule.body is not None else b""
        headers: Headers = [(b"content-type", b"text/plain")] if body else []
        self._refusal = Refusal(policy, Cause.ANSWERED, "", "a direct response", rule.status, headers, body)

    def answer(self, request: PolicyRequest) -> Refusal:
        """The same for every request."""
        return self._refusal

"""VirtualServices and requests as tests write them."""

from collections.abc import Iterator
from typing import Any

from upwell.functions.api.virtual_service import VirtualService
from upwell.runtime.http.messages import Headers, RequestHead
from upwell.runtime.mesh.http_match import ANY_GATEWAY, Sender
from upwell.runtime.mesh.http_route import HttpRoute, HttpRoutes, RoutePlan
from upwell.runtime.mesh.request import PolicyRequest

POLICY = "VirtualService default/httpbin"
TO_HTTPBIN: dict[str, Any] = {"destination": {"host": "httpbin"}}


def manifest(*http: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A VirtualService for the host `httpbin`."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "httpbin"},
        "spec": {"hosts": ["httpbin"], "http": list(http), **spec},
    }


def virtual_service(*http: dict[str, Any], **spec: Any) -> VirtualService:
    """The same, validated."""
    return VirtualService.model_validate(manifest(*http, **spec))


def to_httpbin(**rule: Any) -> dict[str, Any]:
    """A route to the only destination."""
    return {"route": [TO_HTTPBIN], **rule}


def routes(*http: dict[str, Any], sender: Sender = ANY_GATEWAY, **spec: Any) -> HttpRoutes:
    """Ready to be asked."""
    return HttpRoutes(POLICY, virtual_service(*http, **spec).spec, "default", sender)


def request(
    target: bytes = b"/get",
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    host: bytes = b"httpbin.default.example.com",
    scheme: str = "http",
    events: tuple[dict[str, str], ...] = (),
) -> PolicyRequest:
    """One that came with these header fields after its Host, which may have a port."""
    headers: Headers = [(b"host", host), *fields]
    index: dict[bytes, bytes] = {}
    for name, value in headers:
        index.setdefault(name, value)
    head = RequestHead(method, target, b"1.1", headers, index)
    head.host = host.partition(b":")[0].lower()
    head.path = target.partition(b"?")[0]
    return PolicyRequest(head, scheme=scheme, events=events)


def found(rules: HttpRoutes, asked: PolicyRequest) -> HttpRoute:
    """The route that it takes."""
    route = rules.find(asked)
    assert route is not None
    return route


class Numbers:
    """Random numbers as a test says; none may be drawn that is not said."""

    def __init__(self, *numbers: float) -> None:
        self._numbers: Iterator[float] = iter(numbers)

    def __call__(self) -> float:
        return next(self._numbers)


def plan(rule: dict[str, Any], asked: PolicyRequest | None = None, *numbers: float) -> RoutePlan:
    """What the only route does with a request."""
    asked = asked or request()
    return found(routes(rule), asked).plan(asked, Numbers(*numbers))

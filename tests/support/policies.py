"""Policies as tests write them, and a gateway with a route for them to act on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import yaml

from support.gateway import Stage, stage
from upwell.functions.api.asm import ASMCircuitBreaker, ASMLocalRateLimiter
from upwell.functions.api.destination_rule import DestinationRule
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.scheduling import QuotaSchedulingPolicy
from upwell.functions.api.virtual_service import VirtualService
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import PathRule, RouteTable, RouteTarget, VirtualHost
from upwell.runtime.mesh.settings import MeshSettings

KINDS: Final = {
    model.KIND: model
    for model in (
        ASMLocalRateLimiter,
        ASMCircuitBreaker,
        DestinationRule,
        QuotaSchedulingPolicy,
        VirtualService,
    )
}
ARTICLE: Final = Path(__file__).parents[1] / "golden" / "article"
HTTPBIN: Final = "default/httpbin-00001"


def policy(text: str) -> PolicyResource:
    """The policy that a manifest describes, as the platform would store it."""
    manifest: dict[str, Any] = yaml.safe_load(text)
    model = KINDS[manifest["kind"]]
    lifted, _ = model.lift(manifest)
    return model.model_validate(lifted)


def article(name: str) -> PolicyResource:
    """One of the manifests of the article."""
    return policy((ARTICLE / f"{name}.yaml").read_text())


@contextlib.asynccontextmanager
async def httpbin(
    *policies: PolicyResource,
    name: str = "httpbin",
    limits: RevisionLimits | None = None,
    mesh: MeshSettings | None = None,
    revisions: int = 1,
) -> AsyncIterator[Stage]:
    """A gateway with the policies and a route `default/NAME` for `NAME-00001` and as many more revisions."""
    async with stage(mesh=mesh) as on:
        targets = tuple(RouteTarget(f"default/{name}-{n:05d}", 100 // revisions) for n in range(1, revisions + 1))
        rule = PathRule(b"/", (), targets)
        inside = (f"{name}.default", f"{name}.default.svc", f"{name}.default.svc.cluster.local")
        private = VirtualHost(f"default/{name}", inside, (rule,), is_private=True)
        public = VirtualHost(f"default/{name}", (f"{name}.default.example.com",), (rule,))
        on.gateway.set_policies(policies)
        on.gateway.set_routes(RouteTable([private, public]))
        for target in targets:
            labels = {"serving.knative.dev/service": name}
            on.gateway.set_revision(target.revision, limits or RevisionLimits(), labels)
        yield on


def asking(
    path: bytes = b"/",
    fields: bytes = b"",
    *,
    host: bytes = b"httpbin.default.example.com",
    method: bytes = b"GET",
    body: bytes = b"",
) -> bytes:
    """A request for the route."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (method, path, host, fields, length, body)


def status(answer: bytes) -> int:
    """The status of an answer as it came."""
    return int(answer.split(b" ", 2)[1])

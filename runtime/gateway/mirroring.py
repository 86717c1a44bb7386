"""Which requests are copied, and to whom: the gateway's side of a VirtualService's mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from upwell.runtime.gateway.activator import Backend
from upwell.runtime.gateway.shadow import MOST_AT_ONCE, Shadow
from upwell.runtime.http.chunks import encode_chunk
from upwell.runtime.http.forward import encode_request
from upwell.runtime.http.messages import BodyFraming
from upwell.runtime.mesh.mirror import MirrorTarget, shadow_authority

if TYPE_CHECKING:
    from upwell.runtime.gateway.gateway import Gateway, RevisionEntry
    from upwell.runtime.gateway.policed import PolicedCall

_EXPECT = frozenset({b"expect"})


class Mirroring:
    """Sends copies; counts those that were sent and those that were dropped."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._under_way: dict[str, int] = {}
        self.sent = 0
        self.dropped = 0

    def copy(self, call: PolicedCall, targets: Sequence[MirrorTarget], policy: str) -> None:
        """Send a copy of a request that is over to each of `targets` of a policy, if it can still be copied."""
        exchange = call.exchange
        body = exchange.body
        if body is None or exchange.request.upgrade is not None:
            self.dropped += len(targets)
            return
        for target in targets:
            self._send(call, target, body, policy)

    def _send(self, call: PolicedCall, mirror: MirrorTarget, body: bytes, policy: str) -> None:
        gateway, exchange = self._gateway, call.exchange
        rule, target = gateway.policing.destination(mirror.host, mirror.subset, exchange, policy)
        entry = gateway.revisions.get(target.revision) if target is not None else None
        if rule is None or target is None or entry is None:
            self.dropped += 1
            return
        gateway.begin(entry)
        backend = self._slot(entry, call)
        if backend is None:
            if entry.stats.in_flight > entry.poke_above:
                gateway.poke(entry)
            entry.stats.finish(gateway.clock.now())
            self.dropped += 1
            return
        changes = call.outgoing(call.path._replace(rule=rule, target=target))
        host = shadow_authority(changes.host or exchange.request.host)
        changes = changes._replace(drop=changes.drop | _EXPECT, host=host)
        head = encode_request(exchange.request, changes)
        revision = target.revision
        self._under_way[revision] = self._under_way.get(revision, 0) + 1
        self.sent += 1
        bodiless = exchange.request.method == b"HEAD"
        over = partial(self._over, revision, entry, backend)
        Shadow(backend.pool, head + _framed(exchange.request.framing, body), bodiless=bodiless, over=over).send()

    def _slot(self, entry: RevisionEntry, call: PolicedCall) -> Backend | None:
        revision = entry.activator.revision
        if self._under_way.get(revision, 0) >= MOST_AT_ONCE:
            return None
        return entry.activator.spare(call)

    def _over(self, revision: str, entry: RevisionEntry, backend: Backend, status: int) -> None:
        left = self._under_way[revision] - 1
        if left:
            self._under_way[revision] = left
        else:
            del self._under_way[revision]
        entry.stats.finish(self._gateway.clock.now())
        entry.activator.release(backend)
        self._gateway.serve_waiting(entry.activator)


def _framed(framing: BodyFraming, body: bytes) -> bytes:
    if framing is not BodyFraming.CHUNKED:
        return body
    return (encode_chunk(body) if body else b"") + b"0\r\n\r\n"

"""The probes that a queue layer answers in the handler's place, as Knative's queue-proxy does.

The kubelet, the activator and the autoscaler probe with a user agent of their own and must say in
`K-Network-Probe` that they mean the queue; the network prober says `probe` and wants its hash back. Answers while
the replica drains tell senders to stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from upwell.functions.asgi import Headers, Send

MARK = b"k-network-probe"
HASH = b"k-network-hash"

AGENTS: Final = (b"kube-probe/", b"Knative-Activator-Probe", b"Knative-Autoscaling-Probe")
"""How the user agents of kubelet, activator and autoscaler begin."""
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class ProbeAnswer(NamedTuple):
    """The answer to one probe."""

    status: int
    headers: Headers
    body: bytes


def is_probe_agent(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the kubelet, an activator or an autoscaler asks."""
    return headers.get(b"user-agent", b"").startswith(AGENTS)


def answer(headers: Mapping[bytes, bytes], *, draining: bool) -> ProbeAnswer | None:
    """What to answer; None for a request that is the handler's after all."""
    agent = headers.get(b"user-agent", b"")
    return answer_to(agent, headers.get(MARK, b""), headers.get(HASH, b""), draining=draining)


def answer_to(agent: bytes, mark: bytes, digest: bytes, *, draining: bool) -> ProbeAnswer | None:
    """The same for the values of `User-Agent`, `K-Network-Probe` and `K-Network-Hash`; empty when absent."""
    if agent.startswith(AGENTS):
        if draining:
            return _text(503, b"shutting down\n")
        if mark != b"queue":
            return _text(400, b"unexpected probe header value: " + mark + b"\n")
        return READY
    if mark != b"probe":
        return None
    if draining:
        return _text(503, b"shutting down\n")
    if not digest:
        return _text(400, b'a probe request must contain a non-empty "K-Network-Hash" header\n')
    return ProbeAnswer(200, [(HASH, digest), (b"content-length", b"0")], b"")


def _text(status: int, body: bytes) -> ProbeAnswer:
    headers = [_TEXT, (b"content-length", b"%d" % len(body))]
    return ProbeAnswer(status, headers if status == 200 else [*headers, _NO_SNIFFING], body)


READY: Final = _text(200, b"queue")
"""What a probe gets that asks for the queue, where the handler is known to be ready."""


async def send_answer(send: Send, answer: ProbeAnswer) -> None:
    """Send `answer` as an ASGI response."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})

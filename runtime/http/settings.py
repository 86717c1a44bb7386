"""The limits of the data plane, each default with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Sizes are in bytes, times in seconds."""

    max_header_bytes: int = 65_536
    """A request head in all, start line included. Tokens and cookies reach 20 KiB in practice; Go allows 1 MiB,
    which a thousand slow clients would turn into a gigabyte."""

    max_headers: int = 100
    """Fields in one head, as Envoy's default. Each costs an object, so many small ones are dearer than bytes."""

    max_target_bytes: int = 16_384
    """The request target; twice what RFC 9112 asks every implementation to take. Longer is answered with 414."""

    head_timeout: float = 10.0
    """From the first byte of a head (or from accepting the connection) to its end. One round trip and a
    retransmission need three."""

    keep_alive: float = 75.0
    """An idle client connection. Longer than the 60 s that common load balancers keep theirs, so that it is the
    balancer which closes, never we under its next request."""

    body_timeout: float = 60.0
    """Without a byte of a body that we are ready to read. Covers a mobile client that changes networks."""

    write_timeout: float = 60.0
    """With a full write buffer that the peer does not read."""

    linger: float = 2.0
    """After a refusal the rest of what the client sends is read and dropped this long, since closing a socket
    with unread bytes resets it and would take our answer back from the client."""

    max_connections: int = 16_384
    """Client connections at once. Each holds a file descriptor, and its request one more upstream; the soft limit
    of descriptors is raised to twice this where the system allows."""

    max_body_bytes: int = 0
    """A request body; 0 for any. Bodies stream and are not held, so it is the functions' sake that a limit is for;
    more is answered with 413."""

    hold_bytes: int = 65_536
    """Of a request body, while nobody takes it, and for sending it again to another replica."""

    discard_bytes: int = 262_144
    """Of a body nobody wanted, read to keep the connection; as Go does. Beyond, closing is cheaper."""

    half_closed_probe: float = 0.1
    """After a client has ended its side and before its answer has begun, until it is asked whether it is still
    there, and each time twice as long as before. Nearly all have left, and hold a place that others wait for; the
    few that have not are mostly answered sooner, without the question before the answer."""

    half_closed_idle: float = 5.0
    """Until it is taken as gone when it cannot be asked: it speaks HTTP/1.0, or its answer has begun and not a
    byte of it has moved. Other servers do not wait at all."""

    expect_timeout: float = 1.0
    """For a back end to say 100 Continue; after it the body is sent all the same, as Go does: older servers say
    nothing and wait."""

    write_high_water: int = 65_536
    """Bytes waiting in a transport before its source is paused: one TCP window on a slow path."""

    pipeline_burst: int = 32
    """Pipelined requests of one connection handled in one turn of the loop; then the others have theirs."""

    connect_timeout: float = 5.0
    """To open an upstream connection, waiting for a turn included. A lost SYN is sent again after 1 s and 3 s."""

    max_answer_head_bytes: int = 262_144
    """The head of a back end's answer, informational ones included. It is ours to run, so only memory counts."""

    max_connecting: int = 64
    """Connections being opened to one endpoint at once, so that a young replica is not met by a thousand."""

    max_waiting: int = 8_192
    """Forwards waiting for a connection to one endpoint. The admission queue above is the real bound; this one
    guards memory."""

    upstream_idle: float = 30.0
    """An unused upstream connection. Shorter than the keep-alive that replicas are started with (75 s), so it is
    we who close, and a request never meets a connection that is being closed."""

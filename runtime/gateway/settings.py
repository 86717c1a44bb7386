"""What an operator may choose of the gateway, each with the reason of its number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Seconds unless said otherwise."""

    report_seconds: float = 1.0
    """Between two reports of a revision's load; the autoscaler's windows have buckets of one second."""
    replica_margin_seconds: float = 5.0
    """A replica answers its own 504 at the deadline; one that has not by then has a blocked event loop."""
    connect_attempts: int = 3
    """Replicas that a request is offered to when they do not take a connection."""
    suspend_seconds: float = 0.5
    """A replica that refused a connection is passed over: it is about to be reported gone, or is full."""
    doubt_seconds: float = 0.05
    """The same for a revision's only replica that lost a request: its end is told within milliseconds, if it has
    ended, and a replica that has not must not be taken from everybody by one request."""
    gone_seconds: float = 0.5
    """After a replica's end, until its connections are cut off. They end by themselves unless a process that the
    function started holds them open."""
    poke_growth: float = 1.25
    """A growing burst is told again each time it has grown by a quarter: a few pokes, however steep it is."""

"""A request whose events are read before it is routed, for policies that match attributes in its body.

Lives from the head of the request until its body is here, is too large, or the request is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from upwell.runtime.gateway.metrics import BAD_REQUEST
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.mesh.attributes import Attributes, read_attributes

if TYPE_CHECKING:
    from upwell.runtime.gateway.gateway import Gateway

BODY_SECONDS: Final = 60.0
"""For the body to arrive whole."""


class EventBody:
    """Calls `arrived` once with the attributes, none where the body is too large; never for one that is over."""

    __slots__ = ("_arrived", "_exchange", "_gateway", "_timer")

    def __init__(
        self, gateway: Gateway, exchange: Exchange, arrived: Callable[[Sequence[Attributes]], None]
    ) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._arrived = arrived
        self._timer = gateway.timers.schedule(BODY_SECONDS, self._expired)

    def read(self, limit: int) -> None:
        """Begin; the body may have `limit` bytes."""
        self._exchange.on_gone = self._gone
        self._exchange.read_whole(limit, self._is_here)

    def _is_here(self, body: bytes | None) -> None:
        self._timer.cancel()
        self._exchange.on_gone = None
        self._arrived(read_attributes(body) if body is not None else ())

    def _gone(self) -> None:
        self._timer.cancel()
        exchange = self._exchange
        if exchange.status >= 400 and not exchange.responded:  # the server's, to a malformed body
            self._gateway.left_unrouted(exchange, exchange.status, BAD_REQUEST)
        else:
            self._gateway.left_unrouted(exchange)

    def _expired(self) -> None:
        self._exchange.on_gone = None
        self._gateway.refuse(self._exchange, 408, "timeout_body", "the body did not arrive in time\n")

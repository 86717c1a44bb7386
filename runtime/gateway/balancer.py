"""A DestinationRule where the activator chooses replicas."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from upwell.runtime.clock import Clock
from upwell.runtime.gateway.activator import Backend
from upwell.runtime.gateway.call import Call
from upwell.runtime.mesh.load_balancing import Balancing
from upwell.runtime.mesh.policy import Refusal


class RuleBalancer:
    """Asks the rule for a replica, and whether there is any use in waiting for one."""

    def __init__(self, balancing: Balancing, clock: Clock) -> None:
        self._balancing = balancing
        self._clock = clock

    def pick(
        self, backends: Sequence[Backend], concurrency: int, rotation: int, call: Call, tried: Collection[str]
    ) -> Backend | Refusal | None:
        """A replica with a free slot, None where one is worth waiting for, or the rule's answer."""
        if not backends:
            return None
        balancing = self._balancing
        now = self._clock.monotonic()
        found = balancing.pick(backends, concurrency, rotation, call.policy_request, now, tried)
        if found is not None:
            return found
        return balancing.no_healthy_replica() if balancing.unhealthy(backends) else None

    def over(self, in_flight: int) -> Refusal | None:
        """What `http2MaxRequests` says."""
        return self._balancing.connections.admit(in_flight)

    def crowded(self, waiting: int) -> Refusal | None:
        """What `http1MaxPendingRequests` says."""
        return self._balancing.connections.wait(waiting)

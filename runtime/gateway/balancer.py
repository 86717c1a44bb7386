"""A DestinationRule where the activator chooses replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from upwell.runtime.clock import Clock
from upwell.runtime.gateway.activator import Activator, Backend
from upwell.runtime.gateway.call import Call
from upwell.runtime.mesh.load_balancing import Balancing
from upwell.runtime.mesh.policy import Refusal

CHOICES: Final = 5
"""For a replica that was not tried for the same request before one that was is taken, as Istio sets Envoy up."""


class RuleBalancer:
    """Asks the rule for a replica, and whether there is any use in waiting for one."""

    def __init__(self, balancing: Balancing, activator: Activator, clock: Clock) -> None:
        self._balancing = balancing
        self._activator = activator
        self._clock = clock

    def pick(
        self, backends: Sequence[Backend], concurrency: int, rotation: int, call: Call
    ) -> Backend | Refusal | None:
        """A replica with a free slot, None where one is worth waiting for, or the rule's answer."""
        if not backends:
            return None
        balancing, activator = self._balancing, self._activator
        refusal = balancing.connections.admit(activator.in_flight)
        if refusal is not None:
            return refusal
        now = self._clock.monotonic()
        found = balancing.pick(backends, concurrency, rotation, call.policy_request, now)
        for choice in range(1, CHOICES if call.tried else 1):
            if found is None or found.name not in call.tried:
                break
            found = balancing.pick(backends, concurrency, rotation + choice, call.policy_request, now)
        if found is not None:
            return found
        if balancing.unhealthy(backends):
            return balancing.no_healthy_replica()
        return None if call.is_waiting else balancing.connections.wait(len(activator.waiting))

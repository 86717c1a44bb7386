"""The kinds of policies, by their types."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from upwell.functions.api.asm import ASMCircuitBreaker, ASMLocalRateLimiter
from upwell.functions.api.destination_rule import DestinationRule
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.scheduling import QuotaSchedulingPolicy
from upwell.functions.api.virtual_service import VirtualService

_MODELS: Final[tuple[type[PolicyResource], ...]] = (
    ASMCircuitBreaker,
    ASMLocalRateLimiter,
    DestinationRule,
    QuotaSchedulingPolicy,
    VirtualService,
)
POLICY_KINDS: Final[Mapping[str, type[PolicyResource]]] = MappingProxyType(
    {f"{model.KIND}.{model.VERSIONS[0].partition('/')[0]}": model for model in _MODELS}
)
"""`KIND.GROUP` as in `ObjectKey.kind`; all versions of a group are one kind."""

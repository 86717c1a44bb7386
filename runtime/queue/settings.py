"""The limits that a queue layer keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """One revision's limits; a timeout of 0 is off."""

    container_concurrency: int = 0
    """Requests run at once; 0 admits all."""
    timeout_seconds: float = 300.0
    """For the whole request, waiting included: Knative's default."""
    response_start_timeout_seconds: float = 0.0
    """Until the first byte; Knative sets none unless it is less than the whole."""
    idle_timeout_seconds: float = 0.0
    """Between two bytes of the response."""
    show_errors: bool = False
    """Send tracebacks to callers, for the one who develops the function."""
    cancel_seconds: float = 1.0
    """For a handler that timed out to end once it is cancelled, before it counts as stuck."""

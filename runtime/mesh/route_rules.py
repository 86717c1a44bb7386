"""What a VirtualService's route does before a request goes on: an answer of its own, or a fault.

A route's name is also how a limit or a breaker can be meant for that route alone.
"""

from __future__ import annotations

from collections.abc import Callable

from upwell.runtime.mesh.policy import Filter, Hold, Observer, Refusal
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.timers import Timer, TimerWheel


class RouteRules:
    """Does what was planned of the request when its route was found."""

    __slots__ = ("_wheel", "policy")

    def __init__(self, policy: str, wheel: TimerWheel) -> None:
        self.policy = policy
        self._wheel = wheel

    def admit(self, request: PolicyRequest, now: float) -> Refusal | Hold | None:
        """The route's answer, a wait, a fault, or nothing."""
        plan = request.plan
        if plan is None:
            return None
        if plan.answer is not None:
            return plan.answer
        delay, refusal = plan.fault
        return Delay(self._wheel, delay, refusal) if delay else refusal


class Delay:
    """A wait of a known length, and what comes after it."""

    __slots__ = ("_refusal", "_seconds", "_timer", "_wheel")

    def __init__(self, wheel: TimerWheel, seconds: float, refusal: Refusal | None) -> None:
        self._wheel = wheel
        self._seconds = seconds
        self._refusal = refusal
        self._timer: Timer | None = None

    def wait(self, released: Callable[[Refusal | None], None]) -> None:
        """Begin to wait."""
        self._timer = self._wheel.schedule(self._seconds, lambda: released(self._refusal))

    def cancel(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()


class OnRoute:
    """A filter for the requests of one route of a VirtualService, by its name."""

    __slots__ = ("_filter", "_name", "policy")

    def __init__(self, filter: Filter, name: str) -> None:
        self._filter = filter
        self._name = name
        self.policy = filter.policy

    def admit(self, request: PolicyRequest, now: float) -> Refusal | Hold | None:
        """What the filter says, where the request took that route."""
        return self._filter.admit(request, now) if is_on(request, self._name) else None


class ObservingOnRoute:
    """The same for what learns from answers."""

    __slots__ = ("_name", "_observer")

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer = observer
        self._name = name

    def answered(self, request: PolicyRequest, status: int, seconds: float, now: float) -> None:
        """Tell the observer, where the request took that route."""
        if is_on(request, self._name):
            self._observer.answered(request, status, seconds, now)


def is_on(request: PolicyRequest, name: str) -> bool:
    """Whether a request took the route `name`; of a route's name the part after a dot is its match's."""
    plan = request.plan
    return plan is not None and name in (plan.route.name, plan.route.name.partition(".")[0])

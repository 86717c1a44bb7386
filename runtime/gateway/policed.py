"""A call that policies have a say in: before it is load, when its replica is chosen, when it is answered.

    start → filters ⇄ hold → a Call as any other → head of the answer → once more, or to the client

The first filter that refuses answers. A call that a policy holds is no load yet: the autoscaler hears of it when
all have let it pass, so that a quota never makes a function rise which may not be asked.

What policies learn (breakers, outlier detection) and what they time (a route's timeout) begins when the request is
sent to a replica: a wait for the first one is nobody's fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from upwell.runtime.gateway.activator import Backend, Rejection
from upwell.runtime.gateway.call import Call, RequestPath
from upwell.runtime.gateway.metrics import BAD_REQUEST, CLIENT_CLOSED
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.forward import Changes, Outcome, OutcomeKind
from upwell.runtime.http.messages import Headers
from upwell.runtime.mesh.chain import Chain
from upwell.runtime.mesh.fault import DELAY_FLAG
from upwell.runtime.mesh.http_route import UNCHANGED
from upwell.runtime.mesh.policy import Cause, Filter, Hold, Refusal
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.mesh.retries import Failure, RetryPolicy
from upwell.runtime.timers import Timer

if TYPE_CHECKING:
    from upwell.runtime.gateway.gateway import Gateway, RevisionEntry

_FAILURES: Final = {
    OutcomeKind.CONNECT_FAILED: Failure.CONNECT,
    OutcomeKind.LOST_BEFORE_RESPONSE: Failure.RESET,
    OutcomeKind.BAD_RESPONSE: Failure.RESET,
}
_PLATFORMS: Final = (b"k-", b"knative-", b"k_", b"knative_")
"""What names begin with by which the platform alone speaks."""
_LONG_SECONDS: Final = 1.0
"""Of a timeout that may come somewhat late."""
_TIMED_OUT: Final = "upstream request timeout"
"""Envoy's words."""


class PolicedCall(Call):
    """A call with the chains of its route and of its revision."""

    __slots__ = (
        "_at_revision",
        "_at_route",
        "_hold",
        "_pausing",
        "_retries",
        "_route_timer",
        "_spent",
        "_steps",
        "_told",
        "_tried",
        "_try_timer",
        "policy_request",
    )

    def __init__(
        self,
        gateway: Gateway,
        entry: RevisionEntry,
        path: RequestPath,
        exchange: Exchange,
        request: PolicyRequest,
        at_route: Chain,
    ) -> None:
        super().__init__(gateway, entry, path, exchange)
        self.policy_request: PolicyRequest = request
        self._at_route = at_route
        self._at_revision = entry.chain
        self._steps: Iterator[Filter] = iter(())
        self._hold: Hold | None = None
        self._route_timer: Timer | None = None
        self._try_timer: Timer | None = None
        self._pausing = False
        self._retries = 0
        self._tried: list[str] = []
        # Seconds at replicas, of all attempts; and whether those that learn from answers were told.
        self._spent = 0.0
        self._told = False

    # Before it is load.

    def start(self) -> None:
        """Ask every policy in its turn, then go on as any call."""
        if not self._heed_caller():
            return
        self.policy_request.deadline = self.deadline
        self.exchange.on_gone = self._gone
        self._steps = chain(self._at_route.filters, self._at_revision.filters)
        self._advance()

    def _advance(self) -> None:
        now = self.gateway.clock.monotonic()
        for step in self._steps:
            verdict = step.admit(self.policy_request, now)
            if verdict is None:
                continue
            if isinstance(verdict, Refusal):
                self.refuse_by(verdict)
            else:
                self._wait_for(verdict, now)
            return
        self._begin()

    def _begin(self) -> None:
        if self.entry.activator.is_removed:  # while a policy held it
            self._refuse(Rejection.NO_REVISION, 1.0)
        else:
            super()._begin()

    def _wait_for(self, hold: Hold, now: float) -> None:
        self._hold = hold
        self.timer = self.gateway.timers.schedule(max(0.0, self.deadline - now), self._expired_held)
        hold.wait(self._released)

    def _released(self, refusal: Refusal | None) -> None:
        self._hold = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        plan = self.policy_request.plan
        if plan is not None and plan.fault.delay and not self.flag:
            self.flag = DELAY_FLAG
        if refusal is not None:
            self.refuse_by(refusal)
        else:
            self._advance()

    def _expired_held(self) -> None:
        self._withdraw()
        self.flag = "DT"
        self._answer(504, "timeout_waiting", "activator request timeout\n")

    def _answer_headers(self, headers: Headers) -> Headers:
        plan = self.policy_request.plan
        return headers if plan is None else plan.refusal_headers(headers)

    def _gone(self) -> None:
        if self._hold is not None or self._pausing:
            self._withdraw()
            self._finish_gone()
        else:
            super()._gone()

    def _withdraw(self) -> None:
        """Leave where it is: a policy's queue, a replica, the pause between two attempts, or the queue."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.cancel()
        elif self.forwarding is not None:
            self.forwarding.cancel()
        elif self._pausing:
            self._pausing = False
        else:
            self.entry.activator.leave(self)

    # At a replica.

    def dispatch(self, backend: Backend) -> None:
        """Send it to `backend`; from the first time on the route's timeout runs."""
        plan = self.policy_request.plan
        if plan is not None:
            if plan.timeout and self._route_timer is None:
                self._route_timer = self._after(plan.timeout, self._expired_route)
            if plan.retries is not None and plan.retries.per_try_timeout:
                self._try_timer = self._after(plan.retries.per_try_timeout, self._expired_try)
        self._tried.append(backend.name)
        super().dispatch(backend)

    def _after(self, seconds: float, expired: Callable[[], None]) -> Timer:
        timers = self.gateway.timers if seconds >= _LONG_SECONDS else self.gateway.prompt_timers
        return timers.schedule(seconds, expired)

    def outgoing(self, path: RequestPath) -> Changes:
        """With the changes of the route's rules; what the platform says of itself stays."""
        changes = super().outgoing(path)
        plan = self.policy_request.plan
        if plan is None:
            return changes
        ruled = plan.changes
        if ruled is UNCHANGED:
            return changes
        add, drop, target, host = changes
        if ruled.put:
            said = {name for name, _ in add}
            put = [field for field in ruled.put if field[0] not in said and not field[0].startswith(_PLATFORMS)]
            add = [*put, *add]
        return Changes(add, drop | ruled.remove, ruled.target or target, ruled.authority or host)

    def response_head(self, status: int, headers: Headers) -> None:
        """Learn from the answer; try once more where the route says so; else let the client have it."""
        self._end_attempt()
        self._tell_balancing(status, is_local=False)
        plan = self.policy_request.plan
        if plan is not None:
            retries = plan.retries
            if retries is not None and status != 101:
                condition = retries.condition_of(status, headers)
                if condition is not None and self._again_after(retries, condition):
                    return
            changed = plan.response_headers(headers)
            if changed is not headers:
                headers[:] = changed
        self._tell_observers(status)
        balancing = self._at_revision.balancing
        if balancing is not None and balancing.gives_cookies:
            cookie = balancing.set_cookie(self.policy_request)
            if cookie is not None:
                headers.append(cookie)
        super().response_head(status, headers)

    def completed(self, outcome: Outcome) -> None:
        """Learn from an attempt that brought no answer."""
        if outcome.kind in _FAILURES and self.backend is not None and not self.exchange.responded:
            self._end_attempt()
            self._tell_balancing(502, is_local=True)
        super().completed(outcome)

    def _failed(self, outcome: Outcome) -> None:
        failure = _FAILURES.get(outcome.kind)
        plan = self.policy_request.plan
        if failure is not None and plan is not None and plan.retries is not None and not self.exchange.responded:
            condition = plan.retries.condition_of_failure(failure, sent=outcome.request_sent)
            if self._again_after(plan.retries, condition):
                return
        super()._failed(outcome)

    def _again_after(self, retries: RetryPolicy, condition: str | None) -> bool:
        """Whether it is tried once more; then it is on its way there."""
        budget, balancing = self._at_revision.retry_budget, self._at_revision.balancing
        activator = self.entry.activator
        others = len(activator.retrying) - (self in activator.retrying)
        if budget is not None:
            budget.requests, budget.retries = activator.in_flight + len(activator.waiting), others
        replayable = self.exchange.body_replayable
        if balancing is not None and not balancing.connections.may_retry(others):
            return False
        decision = retries.decide(self._retries, condition, random.random, replayable=replayable, budget=budget)
        left = self.deadline - self.gateway.clock.monotonic()
        if decision.delay is None or decision.delay >= left:
            return False
        if self.forwarding is not None:
            self.forwarding.cancel()
        self._retries += 1
        activator.retrying[self] = self._avoided(retries)
        self._give_back()
        self._pausing = True
        self.timer = self.gateway.prompt_timers.schedule(decision.delay, self._next_attempt)
        self.exchange.on_gone = self._gone
        return True

    def _avoided(self, retries: RetryPolicy) -> Collection[str]:
        """Replicas that another is preferred to next time: those that were tried, or all of their zones."""
        if retries.prefers_other_zones:
            backends = self.entry.activator.backends
            zones = {backend.locality for backend in backends if backend.name in self._tried}
            return {*self._tried, *(backend.name for backend in backends if backend.locality in zones)}
        return self._tried if retries.avoids_previous else ()

    def _next_attempt(self) -> None:
        self._pausing = False
        self.timer = None
        self._admit()

    def _expired_try(self) -> None:
        """An attempt had its time. One that is being answered has the route's."""
        self._try_timer = None
        plan = self.policy_request.plan
        if self.forwarding is None or self.exchange.responded or plan is None or plan.retries is None:
            return
        self._end_attempt()
        self._tell_balancing(504, is_local=True)
        if not self._again_after(plan.retries, plan.retries.condition_of_failure(Failure.TIMEOUT)):
            self._time_out(plan.route.policy)

    def _expired_route(self) -> None:
        plan = self.policy_request.plan
        assert plan is not None, "the route has the timeout"
        self._route_timer = None
        if self.forwarding is not None and not self.exchange.responded:
            self._end_attempt()
            self._tell_balancing(504, is_local=True)
        self._time_out(plan.route.policy)

    def _time_out(self, policy: str) -> None:
        answered = self.exchange.responded
        self._withdraw()
        self.refused = (policy, Cause.FAILED)
        self.flag = "UT"
        if answered:
            self._finish(self.exchange.status, "timeout_route")
        else:
            self._answer(504, "timeout_route", _TIMED_OUT)

    def _expired_forwarding(self) -> None:
        if not self.exchange.responded:
            self._end_attempt()
            timeout = self.entry.activator.limits.timeout_seconds
            if self.gateway.clock.monotonic() - self.dispatched_at >= timeout:
                self._tell_balancing(504, is_local=True)
            # A caller in a hurry must not be able to take a replica out, or to open a circuit.
            self._told = self._told or self.deadline < self.exchange.received_at + timeout
        super()._expired_forwarding()

    # What is learnt.

    def _end_attempt(self) -> None:
        self._spent += self.gateway.clock.monotonic() - self.dispatched_at
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None

    def _tell_balancing(self, status: int, *, is_local: bool) -> None:
        balancing = self.entry.chain.balancing
        if balancing is not None:
            now = self.gateway.clock.monotonic()
            found = balancing.answered(self.replica_name, status, is_local, now)
            if found is not None:
                self.gateway.policing.learn(self.entry, balancing, found)

    def _tell_observers(self, status: int) -> None:
        if self._told:
            return
        self._told = True
        now = self.gateway.clock.monotonic()
        request, seconds = self.policy_request, self._spent
        for observer in self._at_route.observers:
            observer.answered(request, status, seconds, now)
        for observer in self._at_revision.observers:
            observer.answered(request, status, seconds, now)

    def _cancel_timers(self) -> None:
        for timer in (self._route_timer, self._try_timer):
            if timer is not None:
                timer.cancel()
        self._route_timer = self._try_timer = None

    def _finish(self, status: int, reason: str) -> None:
        plan = self.policy_request.plan
        if self._route_timer is not None or self._try_timer is not None:
            self._cancel_timers()
        if not self._told and self.dispatched_at and status != CLIENT_CLOSED and reason != BAD_REQUEST:
            self._tell_observers(status)
        if self._retries:
            self.entry.activator.retrying.pop(self, None)
        super()._finish(status, reason)
        if plan is not None and plan.mirrors and self.dispatched_at:
            self.gateway.policing.mirroring.copy(self, plan.mirrors, plan.route.policy)

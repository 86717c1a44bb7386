"""The KPA with further metrics beside its requests: whatever asks for most is followed.

Requests are decided on as ever (`upwell.autoscaler.kpa`). Each further metric asks for its value divided by its
target, CPU and memory with the care that a horizontal pod autoscaler takes, between the same limits of rate. Panic
mode never sinks, whatever raised it. A metric that could not be read takes no replica away; the others may still
add some. What a replica uses while nothing is asked of it does not keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from upwell.autoscaler import kpa
from upwell.autoscaler.behavior import TOLERANCE
from upwell.autoscaler.decision import Bound, Decision, Inputs, Missing, SignalWant, State
from upwell.autoscaler.metric_targets import RESOURCES, MetricTarget
from upwell.autoscaler.replica_calculator import Counted, Tolerances, propose
from upwell.autoscaler.spec import RevisionSettings

_EXACT: Final = Tolerances(0.0, 0.0)
_RESOURCE: Final = Tolerances(TOLERANCE, TOLERANCE)


class Combined:
    """Scales by requests and by the settings' further `metrics`."""

    def start(self, settings: RevisionSettings, ready: int, now: float) -> State:
        """The state of a revision that begins now: the KPA's."""
        return kpa.start(settings, ready, now)

    def decide(self, settings: RevisionSettings, state: State, inputs: Inputs, now: float) -> Decision:
        """The decision at `now` (Unix seconds), from requests and the readings in the order of the metrics."""
        if not settings.metrics:
            return kpa.decide(settings, state, inputs, now)
        demand = kpa.decide(settings, replace(state, delay=None), inputs, now)
        if demand.missing is Missing.REPLICA_COUNT_FAILED:
            return demand._replace(state=state)
        further = _proposals(settings, inputs, now)
        if not _asked(settings.metrics, demand, further):
            further = _without_resources(settings.metrics, further)
        signals = (_of_requests(demand), *further)
        there = inputs.ready + inputs.starting
        wish = max(each.want for each in signals)
        unknown = any(each.missing is not None for each in further)
        if demand.missing is not None and wish <= there:
            return demand._replace(state=state, signals=signals)
        return _combined(settings, state, demand._replace(missing=None, signals=signals), wish, unknown=unknown)


def _combined(settings: RevisionSettings, state: State, demand: Decision, wish: int, *, unknown: bool) -> Decision:
    """`demand` with the wish of all metrics: held in panic, held while one of them is unknown, and delayed."""
    after = demand.state
    if after.panic_since is not None:
        wish = max(wish, after.max_panic_replicas)
        after = replace(after, max_panic_replicas=wish)
    first = max(demand.signals, key=lambda each: each.want)
    there = demand.ready + demand.starting
    held = unknown and wish < there
    if held:
        wish = there
    desired, delay = wish, state.delay
    if delay is not None and settings.reachable:
        delay = delay.record(demand.at, wish)
        desired = delay.current
    return demand._replace(
        state=replace(after, delay=delay),
        undelayed=wish,
        desired=desired,
        binding=first.metric if first.want > 0 else "",
        bounds=(Bound.SIGNAL_MISSING,) if held else (),
    )


def _of_requests(demand: Decision) -> SignalWant:
    want = demand.undelayed if demand.missing is None else 0
    return SignalWant(
        demand.metric,
        demand.stable_value,
        demand.target_value,
        max(demand.stable_raw, demand.panic_raw if demand.panicking else 0),
        want,
        demand.missing,
    )


def _proposals(settings: RevisionSettings, inputs: Inputs, now: float) -> tuple[SignalWant, ...]:
    counted = Counted(inputs.ready + inputs.starting, settings.cpu_request, _EXACT)
    wants = []
    for metric, reading in zip(settings.metrics, inputs.readings, strict=True):
        resource = metric.metric in RESOURCES
        if resource and inputs.ready == 0:
            wants.append(SignalWant(metric.label, 0.0, metric.target, 0, 0))  # nothing to measure yet
            continue
        want = propose(metric, reading, counted._replace(tolerances=_RESOURCE if resource else _EXACT), now)
        wants.append(want if want.missing is not None else _limited(settings, inputs.ready, want))
    return tuple(wants)


def _limited(settings: RevisionSettings, ready: int, signal: SignalWant) -> SignalWant:
    """Between the limits of rate, and at least the activation scale when it asks for anything."""
    floor, ceiling = kpa.rate_limits(settings, ready)
    want = min(max(signal.want, floor), ceiling)
    if settings.activation_scale > 1 and signal.raw > 0:
        want = max(want, settings.activation_scale)
    return signal._replace(want=want)


def _asked(metrics: Sequence[MetricTarget], demand: Decision, further: Sequence[SignalWant]) -> bool:
    """Whether anything is asked of the revision, so that what its replicas use means something."""
    if demand.missing is not None or demand.stable_raw > 0 or demand.panic_raw > 0:
        return True
    pairs = zip(metrics, further, strict=True)
    return any(want.raw > 0 for metric, want in pairs if metric.metric not in RESOURCES)


def _without_resources(metrics: Sequence[MetricTarget], further: Sequence[SignalWant]) -> tuple[SignalWant, ...]:
    pairs = zip(metrics, further, strict=True)
    return tuple(want._replace(want=0) if metric.metric in RESOURCES else want for metric, want in pairs)

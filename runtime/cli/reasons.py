"""Why a revision stands where it does, in words for a person, in local time. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from upwell.autoscaler.annotations import HPA
from upwell.autoscaler.decision import Bound, Clamp, Decision, Missing, Panic
from upwell.autoscaler.outlook import Held, Moment, Outlook, Reason, Threshold, Turn
from upwell.autoscaler.path import Mode, intended
from upwell.autoscaler.spec import RevisionSettings
from upwell.runtime.api.explanation import Explanation

_UNITS: Final[Mapping[str, str]] = {
    "concurrency": "requests in flight",
    "rps": "requests a second",
    "cpu": "percent of CPU",
    "memory": "MiB of memory",
    "backlog": "events waiting",
    "prometheus": "by the query",
}
_MISSING: Final[Mapping[Missing, str]] = {
    Missing.NO_DATA: "no report came within the window, so demand is unknown and what is there stays",
    Missing.METRICS_FAILED: "its metrics are not known, so what is there stays",
    Missing.REPLICA_COUNT_FAILED: "its replicas cannot be counted, so what is there stays",
}
_UNREAD: Final[Mapping[Missing, str]] = {
    Missing.NO_DATA: "nothing was reported",
    Missing.METRICS_FAILED: "not measured yet, or not readable",
    Missing.REPLICA_COUNT_FAILED: "replicas cannot be counted",
}
_BOUNDS: Final[Mapping[Bound, str]] = {
    Bound.TOLERANCE: "that is near enough to the target",
    Bound.STABILIZATION: "the stabilization window holds an earlier wish",
    Bound.SCALE_UP_POLICY: "the scale-up policies allow no more yet",
    Bound.SCALE_DOWN_POLICY: "the scale-down policies allow no fewer yet",
    Bound.SIGNAL_MISSING: "a metric cannot be read, so none is taken away",
    Bound.CLASS_KEEPS_ONE: "its class never goes to zero",
    Bound.POKE_NEEDS_ONE: "a request waits, which takes one",
    Bound.NO_DEMAND_KNOWN: "held while demand is unknown",
    Bound.MIN_SCALE: "min-scale is {settings.min_scale}",
    Bound.INITIAL_SCALE: "the initial scale is {settings.initial_scale}, which was not reached yet",
    Bound.MAX_SCALE: "max-scale is {settings.max_scale}",
    Bound.MAX_SCALE_LIMIT: "the cluster's max-scale-limit is {settings.max_scale_limit}",
    Bound.SCALE_TO_ZERO_DISABLED: "scale to zero is disabled",
    Bound.ACTIVATING: "it is being activated and does not go to zero{until}",
    Bound.ACTIVATION_TIMED_OUT: "it could not be activated in time, so it goes to zero",
    Bound.ACTIVE_TOO_BRIEFLY: "one stays until it has been active for {settings.stable_window:g} s",
    Bound.FOUND_INACTIVE: "the grace period before zero begins and lasts{until}",
    Bound.ACTIVATOR_NOT_IN_PATH: "zero waits until the activator answers for it",
    Bound.GRACE_PERIOD: "the grace period before zero lasts{until}",
    Bound.RETENTION_PERIOD: "the last replica is retained{until}",
    Bound.POKE_ONLY_RAISES: "there are enough already",
}
_RATES: Final[Mapping[Clamp, str]] = {
    Clamp.SCALE_UP_RATE: "the scale-up rate allows {want} now",
    Clamp.SCALE_DOWN_RATE: "the scale-down rate allows no fewer than {want} now",
    Clamp.ACTIVATION_SCALE: "the activation scale makes that {want}",
}
_KEPT: Final[Mapping[Reason, str]] = {
    Held.PANIC: "while panic mode lasts",
    Held.DELAY: "while the scale-down delay lasts",
    Held.SIGNAL: "while another metric asks for as many",
    Clamp.SCALE_UP_RATE: "until those that start are ready: the scale-up rate",
    Clamp.SCALE_DOWN_RATE: "until others are gone: the scale-down rate",
}


def clock(moment: float, now: float) -> str:
    """A time of this day, or with its day when that is another."""
    at, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    return at.strftime("%H:%M:%S" if at.date() == today.date() else "%b %d %H:%M:%S")


def metric_unit(metric: str) -> str:
    """What a metric counts."""
    return _UNITS.get(metric, metric)


def unread(missing: Missing | None) -> str:
    """Why a metric has no value, in a few words; nothing when it has one."""
    return "" if missing is None else _UNREAD[missing]


def replicas(count: int) -> str:
    """`no replica`, `1 replica`, `2 replicas`."""
    return "no replica" if count == 0 else "1 replica" if count == 1 else f"{count} replicas"


def amount(value: float) -> str:
    """A load, as precise as is of use."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def headline(told: Explanation, now: float) -> str:
    """What there is and why, in a sentence."""
    latest = told.latest
    if latest.in_flight is not None and latest.scale is not None:
        # What was decided at once has been followed at once: what it found is not what there is.
        had = f"had {replicas(latest.ready)} at {clock(latest.at, now)} and was given {latest.scale}"
        return f"{told.revision} {had}: {', '.join(_why(told, now))}."
    have = f"has {replicas(latest.ready)}"
    if latest.starting:
        have += f", {latest.starting} more starting" if latest.ready else f", {latest.starting} starting"
    if told.ready_since is not None:
        have += f" since {clock(told.ready_since, now)}"
    return f"{told.revision} {have}: {', '.join(_why(told, now))}."


def _why(told: Explanation, now: float) -> Iterator[str]:
    latest = told.latest
    if latest.ready + latest.starting == 0 and not (latest.wanted or latest.scale):
        yield "nobody asks for it"
        return
    if latest.missing is not None:
        yield _MISSING[latest.missing]
    else:
        if not _is_panicking_poke(latest):
            yield _demand(latest)
        yield from _shaped(latest, told.outlook, now)
    yield from (bound_text(each, told.settings, latest, now) for each in _telling(latest))


def _telling(latest: Decision) -> tuple[Bound, ...]:
    """The bounds that say more than that demand is unknown."""
    return tuple(each for each in latest.bounds if each is not Bound.NO_DEMAND_KNOWN)


def _demand(latest: Decision) -> str:
    if latest.binding:
        most = max(each.want for each in latest.signals)
        return f"of {len(latest.signals)} metrics {latest.binding} asks for the most, {most}"
    if latest.in_flight is not None:
        return _asks(latest.in_flight, "requests", "at once", latest.panic_raw)
    unit = metric_unit(latest.metric)
    if latest.stable_window == 0:
        return _asks(latest.stable_value, unit, f"at {amount(latest.target_value)} a replica", latest.stable_raw)
    if latest.stable_value == 0:
        return f"no request was there for {latest.stable_window:g} s"
    when = f"on average over {latest.stable_window:g} s"
    return _asks(latest.stable_value, unit, when, latest.stable_raw)


def _asks(value: float, unit: str, when: str, count: int) -> str:
    told = amount(value)
    if told == "1":
        return f"1 {unit.replace('requests', 'request')} {when} asks for {count or 'none'}"
    return f"{told} {unit} {when} ask for {count or 'none'}"


def _is_panicking_poke(decision: Decision) -> bool:
    """What is said of the panic says then what asked for it."""
    return decision.in_flight is not None and decision.panic in (Panic.ENTERED, Panic.RENEWED)


def _shaped(latest: Decision, outlook: Outlook | None, now: float) -> Iterator[str]:
    """What became of the wish of the stable window."""
    moments = {each.turn: f" until {clock(each.at, now)}" for each in (outlook.moments if outlook else ())}
    if latest.stable_clamp is not Clamp.NONE:
        yield _RATES[latest.stable_clamp].format(want=latest.stable_want)
    if latest.panic in (Panic.ENTERED, Panic.RENEWED):
        poked = latest.in_flight == latest.panic_value
        demand = "at once" if poked else f"over {latest.panic_window:g} s"
        yield (
            f"{amount(latest.panic_value)} {demand} ask for {latest.panic_raw}, {latest.panic_threshold:g} or more"
            f" times what is ready: panic, which holds {latest.undelayed}"
        )
    elif latest.panic is Panic.HELD:
        yield f"panic holds {latest.undelayed}{moments.get(Turn.PANIC_ENDS, '')}"
    elif latest.panic is Panic.LEFT:
        yield "panic is over"
    if latest.delayed:
        yield f"the scale-down delay keeps {latest.desired}{moments.get(Turn.DELAY_ENDS, '')}"


def bound_text(bound: Bound, settings: RevisionSettings, decision: Decision, now: float) -> str:
    """What a bound did to a decision."""
    check = decision.next_check
    until = " for now" if check is None else f" until {clock(check, now)}"
    return _BOUNDS.get(bound, str(bound)).format(settings=settings, until=until)


def reason(decision: Decision, settings: RevisionSettings, now: float) -> str:
    """What made a decision what it is, in a few words for a table that has its numbers already."""
    if decision.missing is not None and decision.ready + decision.starting == 0:
        parts = ["nobody asks for it"]
    elif decision.missing is not None:
        parts = ["demand is unknown"]
    else:
        parts = [*_asking(decision), *_shaped(decision, None, now)]
    parts += [bound_text(each, settings, decision, now) for each in _telling(decision)]
    return ", ".join(parts)


def _asking(decision: Decision) -> Iterator[str]:
    if decision.binding:
        yield f"{decision.binding} asks for the most"
    elif decision.panic in (Panic.ENTERED, Panic.RENEWED):
        return  # which says what asked for it
    elif decision.in_flight is not None:
        asks = "asks" if decision.in_flight == 1 else "ask"
        yield f"{decision.in_flight:g} at once {asks} for {decision.panic_raw or 'none'}"
    elif decision.stable_window == 0:
        yield f"{decision.metric} asks for {decision.stable_raw or 'none'}"
    elif not decision.panicking:
        yield f"the load over {decision.stable_window:g} s asks for {decision.stable_raw or 'none'}"


def changes(told: Explanation, now: float) -> list[tuple[str, str]]:
    """What would change it: each with when it does."""
    outlook, unit = told.outlook, metric_unit(told.latest.metric)
    if outlook is None:
        return []
    found = []
    if outlook.more is not None:
        found.append((_to(outlook.more, outlook), _above(outlook.more, unit)))
    elif outlook.no_more is not None:
        found.append(("no more", _limit(outlook.no_more, told, now)))
    if outlook.fewer is not None:
        found.append((_to(outlook.fewer, outlook), _at_most(outlook.fewer, unit, told.settings)))
    elif outlook.no_fewer is not None:
        found.append(("no fewer", _limit(outlook.no_fewer, told, now)))
    if outlook.panic is not None:
        name = "panic" if not told.latest.panicking else "panic anew"
        found.append((name, f"{_above(outlook.panic, unit)}, to {outlook.panic.scale}"))
    return [*found, *(_moment(each, now) for each in outlook.moments)]


def _to(threshold: Threshold, outlook: Outlook) -> str:
    more = threshold.scale - outlook.scale
    if threshold.scale == 0:
        return "to zero"
    return {1: "one more", -1: "one fewer"}.get(more, f"to {threshold.scale}")


def _above(threshold: Threshold, unit: str) -> str:
    if threshold.window == 0:
        return "with the first request"
    return f"above {threshold.value:.6g} {unit} over {threshold.window:g} s"


def _at_most(threshold: Threshold, unit: str, settings: RevisionSettings) -> str:
    if threshold.value > 0:
        return f"at or below {threshold.value:.6g} {unit} over {threshold.window:g} s"
    wait = max(settings.scale_to_zero_grace_period, settings.scale_to_zero_pod_retention_period)
    after = f", and {wait:g} s more" if threshold.scale == 0 and wait else ""
    return f"after {threshold.window:g} s without a request{after}"


def _limit(limit: Reason, told: Explanation, now: float) -> str:
    if isinstance(limit, Bound):
        return bound_text(limit, told.settings, told.latest, now)
    return _KEPT[limit]


def _moment(moment: Moment, now: float) -> tuple[str, str]:
    at = f"at {clock(moment.at, now)}"
    if moment.turn is Turn.ZERO:
        return at, "to zero, unless a request comes"
    what = "panic is over" if moment.turn is Turn.PANIC_ENDS else "the scale-down delay is over"
    return at, f"{what}, which leaves {moment.scale} if the load stays as it is"


def path(told: Explanation) -> Iterator[str]:
    """Whether requests pass the activator, and why Knative would have it so or not."""
    latest, settings = told.latest, told.settings
    waiting = ", where they wait while no replica is ready" if latest.ready == 0 else ""
    yield f"Requests pass the gateway, which is the activator too, at any load{waiting}."
    if settings.autoscaler_class == HPA or latest.ready == 0:
        return
    burst, total = settings.target_burst_capacity, settings.total_value
    if burst == -1:
        yield "Behind another ingress it would stay in the path always: target-burst-capacity is -1."
    elif burst == 0:
        yield "Behind another ingress it would leave the path: target-burst-capacity is 0."
    else:
        excess = math.floor(latest.ready * total - burst - latest.panic_value)
        reckoned = f"{latest.ready} x {total:g} - {burst:g} - {amount(latest.panic_value)} = {excess}"
        yield f"Excess burst capacity is {reckoned}: behind another ingress {_verdict(told)}."


def _verdict(told: Explanation) -> str:
    if intended(told.latest).mode is Mode.SERVE:
        return "it would leave the path"
    settings = told.settings
    enough = math.ceil((settings.target_burst_capacity + told.latest.panic_value) / settings.total_value)
    if enough <= told.latest.ready:
        return "it would stay in the path, since no replica is wanted any more"
    return f"it would stay in the path ({told.latest.activators} activators) until {replicas(enough)} are ready"

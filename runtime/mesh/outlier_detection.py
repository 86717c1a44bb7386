"""Takes replicas out that keep failing, and back in, by Envoy's rules.

Envoy's outlier detection (source/common/upstream/outlier_detection_impl.cc) as Istio sets it up, with its
consecutive counters alone. A counter that reaches its limit ejects the replica at once, unless more than
`maxEjectionPercent` of the replicas would be out; either way it begins anew. An ejection lasts the base time by
the replica's multiplier, at most 300 s or the base time if that is longer, and ends at the first sweep after
that. The multiplier grows by one with each ejection and falls by one at each sweep that finds the replica back
for an interval or longer.

One thing no mesh does, since it knows nothing of scaling: the last replica is never taken out unless the rule
says 100 % and no minimum of health. (Envoy would take it out and then, below the minimum, send requests to it
all the same.)

State: a few numbers for each replica that ever failed, until it is forgotten. What becomes of requests while
replicas are out is decided in `locality`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from upwell.functions.api.traffic_policy import OutlierDetection

LONGEST_EJECTION_SECONDS: Final = 300.0
"""Envoy's max_ejection_time, which Istio does not set; a longer base time takes its place."""
GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_TIMER_SECONDS: Final = 1e-6
"""A sweep that comes so much early is on time."""


class Detector(enum.Enum):
    """What found an outlier, under Envoy's names."""

    SERVER_ERRORS = "consecutive_5xx"
    GATEWAY_ERRORS = "consecutive_gateway_failure"
    LOCAL_FAILURES = "consecutive_local_origin_failure"


_SEEN: Final = {
    Detector.SERVER_ERRORS: "5xx in a row",
    Detector.GATEWAY_ERRORS: "502, 503 or 504 in a row",
    Detector.LOCAL_FAILURES: "failures to reach it in a row",
}


@dataclass(frozen=True, slots=True)
class OutlierRule:
    """Numbers of one rule; a limit of 0 finds nothing."""

    server_errors: int
    gateway_errors: int
    local_failures: int
    splits_origins: bool
    interval: float
    """Seconds between sweeps."""
    base_seconds: float
    max_percent: int
    min_health_percent: int
    error_codes: frozenset[int] | None
    """Answers that count as errors, where they are listed; all others are successes then."""

    @classmethod
    def of(cls, outlier: OutlierDetection) -> OutlierRule:
        """The numbers that hold for what a DestinationRule says."""
        codes = outlier.outlier_detection_http_error_codes
        return cls(
            server_errors=outlier.server_errors,
            gateway_errors=outlier.gateway_errors,
            local_failures=outlier.local_failures,
            splits_origins=bool(outlier.split_external_local_origin_errors),
            interval=outlier.interval_seconds,
            base_seconds=outlier.base_ejection_seconds,
            max_percent=outlier.most_ejected_percent,
            min_health_percent=outlier.min_health_percent or 0,
            error_codes=frozenset(codes) if codes else None,
        )

    @property
    def longest_seconds(self) -> float:
        """Of an ejection."""
        return max(LONGEST_EJECTION_SECONDS, self.base_seconds)

    @property
    def may_eject_all(self) -> bool:
        """Whether the rule says that requests are to fail once no replica is left."""
        return self.max_percent >= 100 and self.min_health_percent == 0

    def counted(self, status: int) -> int:
        """The status that an answer counts as: with listed codes, one of them is an error and any other is not."""
        if self.error_codes is None:
            return status
        if status not in self.error_codes:
            return 200
        return max(status, 500)


@dataclass(frozen=True, slots=True)
class Ejection:
    """A replica that was found to be an outlier, and what was done about it."""

    host: str
    detector: Detector
    value: int
    """What the counter had reached."""
    limit: int
    enforced: bool
    """Whether it is out. Otherwise too many would be, and nothing changed but its counter."""
    multiplier: int
    at: float
    """Monotonic seconds."""
    until: float
    """It is back at the first sweep from then on; `at` when it was kept in."""
    ejected: int
    """Replicas that are out, this one included if it is."""
    hosts: int
    max_percent: int

    @property
    def reason(self) -> str:
        """In words, without the host's name."""
        found = f"{self.value} {_SEEN[self.detector]} (limit {self.limit})"
        if self.enforced:
            return f"{found}: out for {self.until - self.at:g} s ({self.multiplier} x), then until the next sweep"
        kept = f"{found}: kept in, since {self.ejected + 1} of {self.hosts} would be out"
        if 100 * (self.ejected + 1) > self.max_percent * self.hosts:
            return f"{kept} and maxEjectionPercent is {self.max_percent}"
        return f"{kept} and minHealthPercent is above 0"


class _Monitor:
    """What is known of one replica."""

    __slots__ = ("back_at", "gateway_errors", "local_failures", "multiplier", "server_errors")

    def __init__(self) -> None:
        self.server_errors = 0
        self.gateway_errors = 0
        self.local_failures = 0
        self.multiplier = 0
        self.back_at: float | None = None
        """When its last ejection ended."""

    def reset(self) -> None:
        self.server_errors = self.gateway_errors = self.local_failures = 0


class OutlierDetector:
    """Counts answers of the replicas of one revision. Times are monotonic seconds."""

    __slots__ = ("_monitors", "ejected", "rule")

    def __init__(self, rule: OutlierRule) -> None:
        self.rule = rule
        self.ejected: dict[str, Ejection] = {}
        """The replicas that are out, by name."""
        self._monitors: dict[str, _Monitor] = {}

    def answered(self, name: str, status: int | None, is_local: bool, hosts: int, now: float) -> Ejection | None:
        """Count an answer of a replica, one of `hosts`; what was decided if it is an outlier now.

        `is_local` says that it could not be reached, or gave no answer: `status` is what the client was told then,
        and counts unless such failures are counted apart. Without either nothing is counted.
        """
        if name in self.ejected or (status is None and not is_local):
            return None
        monitor = self._monitors.get(name)
        if monitor is None:
            if not is_local and self.rule.error_codes is None and status is not None and status < 500:
                return None  # it never failed: there is nothing to begin anew
            monitor = self._monitors[name] = _Monitor()
        found = self._count(monitor, status, is_local)
        if found is None:
            return None
        return self._decide(name, monitor, found, hosts, now)

    def _count(self, monitor: _Monitor, status: int | None, is_local: bool) -> tuple[Detector, int] | None:
        rule = self.rule
        if is_local:
            if not rule.splits_origins:
                return self._count_status(monitor, 503 if status is None else status)
            monitor.local_failures += 1
            if monitor.local_failures == rule.local_failures:
                return Detector.LOCAL_FAILURES, rule.local_failures
            return None
        monitor.local_failures = 0
        return self._count_status(monitor, rule.counted(status or 0))

    def _count_status(self, monitor: _Monitor, status: int) -> tuple[Detector, int] | None:
        """Counters never pass a limit above 0, since the one that reaches its limit begins anew."""
        if not 500 <= status < 600:
            monitor.server_errors = monitor.gateway_errors = 0
            return None
        rule = self.rule
        monitor.server_errors += 1
        monitor.gateway_errors = monitor.gateway_errors + 1 if status in GATEWAY_ERRORS else 0
        if monitor.gateway_errors == rule.gateway_errors and rule.gateway_errors:
            return Detector.GATEWAY_ERRORS, rule.gateway_errors
        if monitor.server_errors == rule.server_errors and rule.server_errors:
            return Detector.SERVER_ERRORS, rule.server_errors
        return None

    def _decide(
        self, name: str, monitor: _Monitor, found: tuple[Detector, int], hosts: int, now: float
    ) -> Ejection:
        rule, (detector, limit) = self.rule, found
        hosts = max(hosts, len(self.ejected) + 1)
        is_last = len(self.ejected) + 1 == hosts
        enforced = 100 * (len(self.ejected) + 1) <= rule.max_percent * hosts and (
            rule.may_eject_all or not is_last
        )
        seconds = 0.0
        if enforced:
            # As in Envoy it grows no further than to what reaches the longest time, so that it decays from there.
            if monitor.multiplier * rule.base_seconds < rule.longest_seconds + rule.base_seconds:
                monitor.multiplier += 1
            seconds = min(rule.base_seconds * monitor.multiplier, rule.longest_seconds)
        ejection = Ejection(
            host=name,
            detector=detector,
            value=limit,
            limit=limit,
            enforced=enforced,
            multiplier=monitor.multiplier,
            at=now,
            until=now + seconds,
            ejected=len(self.ejected) + enforced,
            hosts=hosts,
            max_percent=rule.max_percent,
        )
        self._begin_anew(monitor, detector)
        if enforced:
            self.ejected[name] = ejection
        return ejection

    def _begin_anew(self, monitor: _Monitor, detector: Detector) -> None:
        if detector is Detector.LOCAL_FAILURES:
            monitor.local_failures = 0
            return
        if monitor.server_errors == self.rule.server_errors:
            monitor.server_errors = 0
        if detector is Detector.GATEWAY_ERRORS:
            monitor.gateway_errors = 0

    @property
    def is_idle(self) -> bool:
        """Whether a sweep would find nothing to do: no replica is out, or has been lately."""
        return not self.ejected and not any(monitor.multiplier for monitor in self._monitors.values())

    def sweep(self, now: float) -> list[str]:
        """Once an interval: the replicas that are back, and multipliers of those that stayed well one lower."""
        due = now + _TIMER_SECONDS
        back = [name for name, ejection in self.ejected.items() if ejection.until <= due]
        for name in back:
            del self.ejected[name]
            monitor = self._monitors[name]
            monitor.reset()
            monitor.back_at = now
        for name, monitor in self._monitors.items():
            if name in self.ejected or monitor.back_at is None or not monitor.multiplier:
                continue
            if monitor.back_at + self.rule.interval <= due:
                monitor.multiplier -= 1
        return back

    def forget(self, name: str) -> None:
        """The replica is gone."""
        self.ejected.pop(name, None)
        self._monitors.pop(name, None)

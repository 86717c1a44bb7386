"""Stories of revisions that rise, grow, rest and vanish, told through the engine's own calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Bound, Decision, Missing, Panic, Status
from upwell.autoscaler.demand import MAX_REPORTERS, Acceptance
from upwell.autoscaler.engine import Engine
from upwell.autoscaler.history import HISTORY
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report, Reporter

KEY = "default/hello-00001"
BEGIN = 1_700_000_000.0
SETTINGS = RevisionSettings()


def report(
    ended: float,
    concurrency: float = 0.0,
    *,
    sequence: int,
    reporter: str = "replica-1",
    span: float = 1.0,
    proxied: float = 0.0,
    requests: int = 0,
) -> Report:
    return Report(
        revision=KEY,
        reporter=reporter,
        sequence=sequence,
        started=ended - span,
        ended=ended,
        average_concurrency=concurrency,
        average_proxied_concurrency=proxied,
        request_count=requests,
        proxied_request_count=0,
    )


@dataclass
class World:
    """An engine whose decisions are obeyed at once, and replicas that report every second."""

    settings: RevisionSettings = SETTINGS
    ready: int = 0
    initialized: bool = True
    engine: Engine = field(default_factory=Engine)
    now: float = BEGIN
    concurrency: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.engine.set_revision(KEY, self.settings, self.now, self.ready, initialized=self.initialized)

    def obey(self, decision: Decision | None) -> None:
        if decision is not None and decision.scale is not None:
            self.ready = decision.scale
            self.engine.observe(KEY, ready=self.ready)

    def poke(self, in_flight: int) -> Decision | None:
        decision = self.engine.poke(KEY, in_flight, self.now)
        self.obey(decision)
        return decision

    def run(self, seconds: int) -> Decision:
        """Let time pass: replicas report at each whole second, and every other one is a tick."""
        for _ in range(seconds):
            self.now += 1
            self.sequence += 1
            for replica in range(self.ready):
                share = self.concurrency / self.ready
                self.engine.report(
                    report(self.now, share, sequence=self.sequence, reporter=f"replica-{replica}"), self.now
                )
            if self.now % 2 == 0:
                [decision] = self.engine.tick(self.now + 0.2)
                self.obey(decision)
                self.decisions.append(decision)
        return self.decisions[-1]


def test_a_poke_raises_a_revision_from_zero_though_nothing_was_ever_reported() -> None:
    world = World()
    decision = world.poke(1)
    assert decision is not None
    assert (decision.scale, decision.panic, decision.activity and decision.activity.status) == (
        1,
        Panic.OFF,
        Status.ACTIVATING,
    )
    assert "a poke with 1 in flight asks for 1" in decision.sentence()


def test_a_poke_with_a_burst_asks_for_all_the_replicas_it_needs_and_panic_holds_them() -> None:
    world = World()
    decision = world.poke(1000)
    assert decision is not None
    assert (decision.scale, decision.panic) == (15, Panic.ENTERED)
    world.concurrency = 10.0
    assert world.run(58).scale == 15
    world.run(10)
    assert world.decisions[-1].scale is not None
    assert world.decisions[-1].scale < 15


def test_a_poke_is_not_recorded_in_the_windows() -> None:
    world = World()
    world.poke(1000)
    assert world.run(4).stable_value == 0.0


def test_a_poke_only_raises() -> None:
    world = World(ready=3)
    assert world.poke(1) is None
    latest = world.engine.latest(KEY)
    assert latest is not None
    assert latest.bounds == (Bound.POKE_ONLY_RAISES,)


def test_a_poke_honours_activation_scale_initial_scale_and_max_scale() -> None:
    def raised_to(settings: RevisionSettings, *, initialized: bool = True) -> int | None:
        decision = World(settings, initialized=initialized).poke(1)
        return decision.scale if decision else None

    assert raised_to(replace(SETTINGS, activation_scale=4)) == 4
    assert raised_to(replace(SETTINGS, initial_scale=3), initialized=False) == 3
    assert raised_to(replace(SETTINGS, initial_scale=3), initialized=True) == 1
    assert raised_to(replace(SETTINGS, activation_scale=4, max_scale=2)) == 2
    assert raised_to(replace(SETTINGS, activation_scale=4, max_scale_limit=3)) == 3


@pytest.mark.parametrize("in_flight", [0, -1])
def test_a_poke_without_a_request_does_nothing(in_flight: int) -> None:
    world = World()
    assert world.poke(in_flight) is None
    assert world.engine.statistics().pokes == 0


def test_a_poke_keeps_a_revision_that_was_about_to_go_to_zero() -> None:
    world = World(ready=1)
    world.run(70)
    assert world.decisions[-1].activity is not None
    assert world.decisions[-1].activity.status is Status.INACTIVE
    assert world.poke(1) is None  # there is a replica already
    latest = world.engine.latest(KEY)
    assert latest is not None
    assert latest.activity is not None
    assert latest.activity.status is Status.ACTIVE
    world.run(40)
    assert world.ready == 1


def test_load_raises_the_scale_within_one_tick_of_its_report() -> None:
    world = World(ready=1)
    world.run(60)
    world.concurrency = 350.0
    decision = world.run(6)
    assert decision.panicking
    assert decision.scale is not None
    assert decision.scale >= 5


def test_steady_load_is_measured_exactly() -> None:
    world = World(ready=2, concurrency=100.0)
    decision = world.run(20)
    assert (decision.stable_value, decision.panic_value) == (100.0, 100.0)


def test_reporters_out_of_step_do_not_dilute_steady_load() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN, 2)
    moments = sorted(
        (BEGIN + second + phase, second, name)
        for second in range(1, 40)
        for name, phase in (("a", 0.11), ("b", 0.63))
    )
    for moment, second, name in moments:
        engine.report(report(moment, 50.0, sequence=second, reporter=name), moment)
    [decision] = engine.tick(BEGIN + 39.7)
    assert decision.panic_value == pytest.approx(100.0)


def test_a_partial_span_weighs_by_its_length() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    engine.report(report(BEGIN + 1, 40.0, sequence=1, span=0.25), BEGIN + 1)
    [decision] = engine.tick(BEGIN + 2)
    assert decision.stable_value == 10.0


def test_requests_that_came_through_an_activator_are_left_to_its_own_report() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    engine.report(report(BEGIN + 1, 30.0, sequence=1, proxied=20.0), BEGIN + 1)
    [decision] = engine.tick(BEGIN + 2)
    assert decision.stable_value == 10.0


def test_requests_per_second_are_counted_where_the_metric_says_so() -> None:
    engine = Engine()
    engine.set_revision(KEY, replace(SETTINGS, metric="rps"), BEGIN)
    for second in range(1, 11):
        engine.report(report(BEGIN + second + 0.5, sequence=second, requests=80), BEGIN + second + 0.5)
    engine.report(report(BEGIN + 10.5, sequence=12, span=0.0, requests=7, reporter="b"), BEGIN + 10.6)
    [decision] = engine.tick(BEGIN + 11.4)
    assert decision.metric == "rps"
    assert decision.panic_value == pytest.approx(80.0)


def test_an_idle_revision_goes_to_zero_after_stable_window_and_grace_and_not_before() -> None:
    world = World()
    world.poke(1)
    world.concurrency = 1.0
    world.run(10)
    world.concurrency = 0.0
    idle_since = world.now
    while world.ready:
        world.run(1)
        assert world.now - idle_since < 120
    assert 60 + 30 <= world.now - idle_since <= 60 + 30 + 6
    reasons = {bound for decision in world.decisions for bound in decision.bounds}
    assert reasons == {Bound.FOUND_INACTIVE, Bound.GRACE_PERIOD}
    world.run(200)
    assert world.ready == 0
    assert world.decisions[-1].bounds == (Bound.NO_DEMAND_KNOWN,)


def test_retention_keeps_the_last_replica_beyond_the_grace_period() -> None:
    world = World(replace(SETTINGS, scale_to_zero_pod_retention_period=300.0), ready=1)
    world.run(350)
    assert world.ready == 1
    world.run(20)
    assert world.ready == 0


def test_zero_waits_until_the_activator_answers_for_the_revision() -> None:
    world = World(ready=1)
    world.engine.observe(KEY, ready=1, path=RequestPath(activator_answers=False))
    decision = world.run(200)
    assert world.ready == 1
    assert decision.bounds == (Bound.ACTIVATOR_NOT_IN_PATH,)
    world.engine.observe(KEY, ready=1, path=RequestPath())
    world.run(2)
    assert world.ready == 0


def test_silence_of_all_reporters_holds_the_scale() -> None:
    world = World(ready=1, concurrency=350.0)
    world.run(100)
    held = world.ready
    assert held >= 5
    for _ in range(100):
        world.now += 2
        [decision] = world.engine.tick(world.now)
        assert decision.scale is None or decision.scale >= held
    assert decision.missing is Missing.NO_DATA
    assert "the scale is held" in decision.sentence()


def test_repeated_reports_count_once() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    sent = report(BEGIN + 1, 10.0, sequence=1)
    assert engine.report(sent, BEGIN + 1) is Acceptance.ACCEPTED
    assert engine.report(sent, BEGIN + 1.5) is Acceptance.DUPLICATE
    [decision] = engine.tick(BEGIN + 2)
    assert decision.stable_value == 10.0
    assert engine.statistics().reports[Acceptance.DUPLICATE] == 1


def test_reports_out_of_order_land_in_their_own_second() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    reports = [report(BEGIN + second, 10.0, sequence=second) for second in range(1, 7)]
    for sent in (*reports[:2], reports[4], reports[5], reports[3], reports[2]):
        assert engine.report(sent, BEGIN + 6) is Acceptance.ACCEPTED
    engine.tick(BEGIN + 6.1)
    late = report(BEGIN + 3, 20.0, sequence=1, reporter="another")
    assert engine.report(late, BEGIN + 6.2) is Acceptance.ACCEPTED
    [decision] = engine.tick(BEGIN + 7)
    assert decision.stable_value == pytest.approx(80 / 6, abs=1e-6)


def test_a_report_older_than_the_window_is_ignored() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    assert engine.report(report(BEGIN, 10.0, sequence=1), BEGIN + 60) is Acceptance.TOO_LATE


def test_a_sequence_far_behind_counts_as_repeated_unless_the_reporter_began_anew() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    engine.report(report(BEGIN + 1, sequence=100), BEGIN + 1)
    assert engine.report(report(BEGIN + 1, sequence=30), BEGIN + 1) is Acceptance.DUPLICATE
    assert engine.report(report(BEGIN + 2, sequence=1), BEGIN + 2) is Acceptance.ACCEPTED
    assert engine.report(report(BEGIN + 2, sequence=1), BEGIN + 2) is Acceptance.DUPLICATE
    assert engine.report(report(BEGIN + 3, sequence=2), BEGIN + 3) is Acceptance.ACCEPTED


def test_a_report_of_an_unknown_revision_is_counted_and_dropped() -> None:
    engine = Engine()
    assert engine.report(report(BEGIN, sequence=1), BEGIN) is Acceptance.UNKNOWN_REVISION
    assert engine.statistics().reports[Acceptance.UNKNOWN_REVISION] == 1


def test_a_reporter_whose_clock_runs_ahead_does_not_make_others_late() -> None:
    world = World(ready=1, concurrency=50.0)
    world.run(10)
    ahead = replace(report(world.now + 3600, 20.0, sequence=1), reporter="from the future")
    assert world.engine.report(ahead, world.now) is Acceptance.ACCEPTED
    decision = world.run(10)
    assert decision.panic_value == 50.0


def test_a_clock_that_jumps_back_does_no_harm() -> None:
    world = World(ready=1, concurrency=350.0)
    world.run(100)
    before = world.ready
    world.now -= 3600
    for _ in range(60):
        assert world.run(2).scale == before
    assert world.decisions[-1].stable_value == pytest.approx(350.0)


def test_a_clock_that_slews_back_a_little_just_stands_still() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    assert [engine.tick(now)[0].at for now in (BEGIN, BEGIN - 0.5, BEGIN + 2)] == [BEGIN, BEGIN, BEGIN + 2]


def test_a_revision_found_with_replicas_keeps_them_until_a_stable_window_of_history() -> None:
    world = World(ready=8)
    world.run(58)
    assert world.ready == 8
    world.run(30)
    assert world.ready < 8


def test_a_new_revision_comes_up_at_its_initial_scale_and_counts_as_initialized_then() -> None:
    world = World(replace(SETTINGS, initial_scale=3), initialized=False)
    decision = world.run(2)
    assert (decision.scale, decision.bounds) == (3, (Bound.NO_DEMAND_KNOWN, Bound.INITIAL_SCALE))
    decision = world.run(4)
    assert decision.activity is not None
    assert decision.activity.initialized


def test_an_initial_scale_of_zero_leaves_a_new_revision_down_until_it_is_called() -> None:
    world = World(replace(SETTINGS, initial_scale=0), initialized=False)
    decision = world.run(10)
    assert (world.ready, decision.scale) == (0, None)
    assert decision.activity is not None
    assert decision.activity.status is Status.INACTIVE
    world.poke(1)
    assert world.ready == 1


def test_a_revision_that_never_starts_goes_to_zero_after_its_progress_deadline_and_stays_there() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    scales = {}
    for second in range(0, 1400, 2):
        [decision] = engine.tick(BEGIN + second)
        scales[second] = decision.scale
        engine.observe(KEY, ready=0, starting=decision.scale if decision.scale is not None else 1)
    assert scales[0] == 1
    assert all(scales[second] is None for second in range(2, 632, 2))
    assert scales[632] == 0
    assert all(scale in (0, None) for second, scale in scales.items() if second > 632)
    assert decision.activity is not None
    assert decision.activity.timed_out


def test_a_revision_that_starts_after_it_was_given_up_counts_as_initialized() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    engine.observe(KEY, ready=0, starting=1)
    engine.tick(BEGIN)
    engine.tick(BEGIN + 631)
    engine.observe(KEY, ready=1)
    [decision] = engine.tick(BEGIN + 633)
    assert decision.activity is not None
    assert (decision.activity.status, decision.activity.initialized) == (Status.INACTIVE, True)


def test_changed_settings_hold_from_the_next_tick_with_the_same_windows() -> None:
    world = World(ready=1, concurrency=70.0)
    world.run(70)
    world.engine.set_revision(KEY, replace(SETTINGS, target_value=35.0, stable_window=30.0), world.now)
    decision = world.run(2)
    assert (decision.scale, decision.stable_value, decision.stable_window) == (2, 70.0, 30.0)


def test_a_change_of_metric_begins_with_empty_windows_and_holds() -> None:
    world = World(ready=1, concurrency=70.0)
    world.run(70)
    world.engine.set_revision(KEY, replace(SETTINGS, metric="rps"), world.now)
    [decision] = world.engine.tick(world.now)
    assert (decision.scale, decision.missing) == (None, Missing.NO_DATA)


def test_weighted_windows_answer_to_fresh_load_sooner() -> None:
    def stable_after_burst(aggregation: str) -> float:
        world = World(replace(SETTINGS, aggregation=aggregation), ready=5)
        world.run(60)
        world.concurrency = 100.0
        return world.run(10).stable_value

    assert stable_after_burst("weighted-exponential") > 3 * stable_after_burst("linear")


def test_history_keeps_the_latest_decisions_that_differ() -> None:
    world = World(ready=1)
    world.run(40)
    assert len(world.engine.history(KEY)) < 5
    for round_ in range(3 * HISTORY):
        world.concurrency = 70.0 * (1 + round_ % 5)
        world.run(20)
    history = world.engine.history(KEY)
    assert len(history) == HISTORY
    assert all(one.outcome != two.outcome for one, two in pairwise(history))


def test_memory_of_reporters_is_bounded_and_fades() -> None:
    engine = Engine()
    engine.set_revision(KEY, SETTINGS, BEGIN)
    for index in range(MAX_REPORTERS + 10):
        engine.report(report(BEGIN + 1 + index * 1e-6, sequence=1, reporter=f"r{index}"), BEGIN + 2)
    assert engine.statistics().reporters == MAX_REPORTERS
    engine.tick(BEGIN + 100)
    assert engine.statistics().reporters == 0


def test_an_unknown_or_removed_revision_has_no_decision() -> None:
    world = World(ready=1)
    world.run(2)
    world.engine.remove_revision(KEY)
    world.engine.remove_revision(KEY)
    world.engine.observe(KEY, ready=1)
    assert list(world.engine.tick(world.now)) == []
    assert world.engine.poke(KEY, 1, world.now) is None
    assert world.engine.latest(KEY) is None
    assert world.engine.history(KEY) == []


def test_statistics_are_a_snapshot() -> None:
    world = World()
    world.poke(5)
    world.run(4)
    statistics = world.engine.statistics()
    assert (statistics.revisions, statistics.reporters, statistics.ticks) == (1, 1, 2)
    assert (statistics.pokes, statistics.pokes_that_raised) == (1, 1)
    assert statistics.reports[Acceptance.ACCEPTED] == 4
    assert statistics.latest[KEY] == world.decisions[-1]
    world.run(2)
    assert statistics.ticks == 2


@pytest.mark.parametrize("idle_for", [62.0, 75.0, 91.9], ids=["found inactive next", "in grace", "about to go"])
def test_a_poke_that_raises_nothing_still_keeps_the_last_replica(idle_for: float) -> None:
    engine = Engine()
    began = 1_700_000_000.0
    engine.set_revision("default/hello", RevisionSettings(), began, ready=1)
    reporter = Reporter("default/hello", "replica", began)
    now = began
    while now < began + idle_for:
        now += 1.0
        engine.report(reporter.report(now), now)
        if (now - began) % 2 == 0:
            engine.tick(now)
    assert engine.poke("default/hello", 1, now + 0.05) is None
    (decision,) = engine.tick(now + 0.1)
    assert decision.scale != 0

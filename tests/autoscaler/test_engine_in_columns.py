"""Many revisions in one engine: deciding at once is deciding one by one, and rows are clean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler import kpa
from upwell.autoscaler.annotations import HPA, KPA
from upwell.autoscaler.combined import Combined
from upwell.autoscaler.decision import GREATEST_COUNT, Decision, Inputs, Missing, Reading, State
from upwell.autoscaler.demand import Acceptance
from upwell.autoscaler.engine import CLASSES, Engine
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.saved import SavedRevision
from upwell.autoscaler.spec import AutoscalerConfig, RevisionSettings
from upwell.autoscaler.stats import Report, ReportBatch

BEGIN: Final = 1_700_000_000.0
BY_ITSELF: Final = "single.example.com"
CLASSES_BY_ITSELF: Final = {**CLASSES, BY_ITSELF: Combined()}


def key(number: int) -> str:
    return f"default/function-{number}"


def batch(ended: float, loads: dict[str, float], sequence: int, reporter: str = "gateway") -> ReportBatch:
    count = len(loads)
    return ReportBatch(
        reporter=reporter,
        sequence=sequence,
        ended=ended,
        revisions=tuple(loads),
        spans=[1.0] * count,
        average_concurrency=list(loads.values()),
        average_proxied_concurrency=[0.0] * count,
        request_count=[int(load) for load in loads.values()],
        proxied_request_count=[0] * count,
    )


SETTINGS = st.builds(
    RevisionSettings,
    metric=st.sampled_from(["concurrency", "rps"]),
    target_value=st.sampled_from([0.7, 7.0, 70.0]),
    stable_window=st.sampled_from([6.0, 20.0, 60.0]),
    panic_window=st.sampled_from([1, 6]),
    aggregation=st.sampled_from(["linear", "weighted-exponential"]),
    scale_down_delay=st.sampled_from([0.0, 10.0]),
    initial_scale=st.integers(0, 4),
    activation_scale=st.sampled_from([0, 3]),
    min_scale=st.integers(0, 3),
    max_scale=st.sampled_from([0, 3, 9]),
    target_burst_capacity=st.sampled_from([-1.0, 0.0, 211.0]),
    scale_to_zero_grace_period=st.sampled_from([2.0, 30.0]),
    enable_scale_to_zero=st.booleans(),
    reachable=st.booleans(),
)
LOADS = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 500.0)), min_size=20, max_size=60)


@hypothesis.settings(deadline=None)  # 20 to 60 seconds of several revisions, twice
@given(st.lists(st.tuples(SETTINGS, LOADS), min_size=1, max_size=5))
def test_deciding_at_once_is_deciding_one_by_one(revisions: list[tuple[RevisionSettings, list[float]]]) -> None:
    together, one_by_one = Engine(), Engine(CLASSES_BY_ITSELF)
    for number, (wanted, _) in enumerate(revisions):
        together.set_revision(key(number), wanted, BEGIN)
        one_by_one.set_revision(key(number), replace(wanted, autoscaler_class=BY_ITSELF), BEGIN)
    for second in range(1, 1 + max(len(loads) for _, loads in revisions)):
        now = BEGIN + second
        loads = {
            key(number): loads[second - 1] for number, (_, loads) in enumerate(revisions) if second <= len(loads)
        }
        for engine in (together, one_by_one):
            engine.report_batch(batch(now, loads, second), now)
        if second % 2 == 0:
            assert shown(together.tick(now + 0.2)) == shown(one_by_one.tick(now + 0.2))
            for engine in (together, one_by_one):
                obey(engine, len(revisions))
    for number in range(len(revisions)):
        assert shown(together.history(key(number))) == shown(one_by_one.history(key(number)))
        first, second_series = together.series(key(number)), one_by_one.series(key(number))
        assert [column.tolist() for column in first[2:]] == [column.tolist() for column in second_series[2:]]


def shown(decisions: Iterable[Decision]) -> list[Decision]:
    """Without the delay's memory, which is not kept with decisions of the bulk; what comes of it is."""
    return [decision._replace(state=replace(decision.state, delay=None)) for decision in decisions]


def obey(engine: Engine, revisions: int) -> None:
    for number in range(revisions):
        decision = engine.latest(key(number))
        if decision is not None and decision.scale is not None:
            engine.observe(key(number), ready=decision.scale)


def test_single_reports_and_batches_come_to_the_same() -> None:
    single, batched = Engine(), Engine()
    for engine in (single, batched):
        engine.set_revision(key(0), RevisionSettings(), BEGIN, 1)
    for second in range(1, 31):
        now = BEGIN + second
        single.report(Report(key(0), "gateway", second, now - 1, now, float(second), 0.0, second, 0), now)
        batched.report_batch(batch(now, {key(0): float(second)}, second), now)
        if second % 2 == 0:
            assert list(single.tick(now + 0.2)) == list(batched.tick(now + 0.2))


def test_statistics_say_what_became_of_each_row_of_a_batch() -> None:
    engine = Engine()
    engine.set_revision(key(0), RevisionSettings(stable_window=60.0), BEGIN)
    engine.set_revision(key(1), RevisionSettings(stable_window=6.0), BEGIN)
    sent = batch(BEGIN + 1, {key(0): 1.0, key(1): 1.0, "default/unknown": 1.0}, 1)
    accepted = [
        engine.report_batch(sent, BEGIN + 1),
        engine.report_batch(sent, BEGIN + 1),
        engine.report_batch(replace(sent, sequence=2), BEGIN + 10),
        engine.report_batch(batch(BEGIN + 1, {key(1): 1.0}, 3), BEGIN + 10),
        engine.report_batch(replace(sent, sequence=4), BEGIN + 100),
    ]
    assert accepted == [2, 0, 1, 0, 0]
    assert engine.statistics().reports == {
        Acceptance.ACCEPTED: 3,
        Acceptance.DUPLICATE: 2,
        Acceptance.TOO_LATE: 4,
        Acceptance.UNKNOWN_REVISION: 4,
    }


def test_a_scale_is_told_once_and_again_while_replicas_are_not_so_many() -> None:
    engine = Engine()
    engine.set_revision(key(0), RevisionSettings(min_scale=2), BEGIN)
    assert [decision.scale for decision in engine.tick(BEGIN).to_scale()] == [2]
    assert [decision.scale for decision in engine.tick(BEGIN + 2).to_scale()] == [2], "none is on its way yet"
    engine.observe(key(0), ready=1, starting=1)
    assert list(engine.tick(BEGIN + 4).to_scale()) == []
    engine.observe(key(0), ready=1)
    assert [decision.scale for decision in engine.tick(BEGIN + 6).to_scale()] == [2], "one was lost"


def test_news_are_decisions_with_another_outcome_or_reason() -> None:
    engine = Engine()
    engine.set_revision(key(0), RevisionSettings(), BEGIN, 1)
    engine.set_revision(key(1), RevisionSettings(autoscaler_class=BY_ITSELF), BEGIN, 1)
    assert [decision.revision for decision in engine.tick(BEGIN).news()] == [key(0), key(1)]
    assert list(engine.tick(BEGIN + 2).news()) == []
    loads = {key(0): 300.0, key(1): 300.0}
    for second in range(3, 7):
        engine.report_batch(batch(BEGIN + second, loads, second), BEGIN + second)
    assert [decision.revision for decision in engine.tick(BEGIN + 6).news()] == [key(0), key(1)]


def test_a_row_that_is_given_away_again_has_nothing_of_its_former_revision() -> None:
    engine = Engine()
    engine.set_revision("default/former", RevisionSettings(), BEGIN, 5)
    for second in range(1, 9):
        engine.report_batch(batch(BEGIN + second, {"default/former": 900.0}, second), BEGIN + second)
        engine.tick(BEGIN + second)
    before = engine.tick(BEGIN + 9)
    engine.remove_revision("default/former")
    engine.set_revision("default/latter", RevisionSettings(), BEGIN + 9)
    assert engine.latest("default/latter") is None
    assert engine.history("default/latter") == []
    assert len(engine.series("default/latter").times) == 0
    assert [decision.revision for decision in before] == ["default/former"], "a tick is what it was"
    [decision] = engine.tick(BEGIN + 10)
    assert (decision.revision, decision.missing, decision.ready) == ("default/latter", Missing.NO_DATA, 0)
    assert not decision.panicking


def test_settings_beyond_all_measure_do_no_harm_to_others() -> None:
    prefix = "autoscaling.knative.dev/"
    huge = AutoscalerConfig().resolve({f"{prefix}target": "1e308", f"{prefix}target-burst-capacity": "1e308"})
    engine = Engine()
    huge = replace(huge, initial_scale=GREATEST_COUNT, max_scale_up_rate=1e308)
    engine.set_revision(key(0), huge, BEGIN, 3, initialized=True)
    engine.set_revision(key(1), RevisionSettings(min_scale=2), BEGIN)
    [decision] = engine.tick(BEGIN).to_scale()
    assert (decision.revision, decision.scale) == (key(1), 2)
    engine.poke(key(0), 10**9, BEGIN + 1)
    poked = engine.latest(key(0))
    assert poked is not None
    assert (poked.rate_ceiling, poked.activators) == (GREATEST_COUNT, GREATEST_COUNT)
    assert engine.latest(key(1)) == decision


class Lunar:
    """A class of somebody's own: as many replicas as a metric of theirs says."""

    def start(self, settings: RevisionSettings, ready: int, now: float) -> State:
        return replace(kpa.start(settings, ready, now), memory=0)

    def decide(self, settings: RevisionSettings, state: State, inputs: Inputs, now: float) -> Decision:
        wanted = int(inputs.readings[0].value)
        assert isinstance(state.memory, int)
        decision = kpa.decide(settings, replace(state, memory=None), inputs._replace(missing=None), now)
        kept = replace(decision.state, memory=state.memory + 1)
        return decision._replace(metric="phase", desired=wanted, undelayed=wanted, state=kept)


class Moon:
    """Knows the metric."""

    def __init__(self) -> None:
        self.phase = 3.0

    def read(self, revision: str, metric: MetricTarget, now: float) -> Reading:
        return Reading(self.phase)


def test_a_class_and_a_signal_of_ones_own_need_no_change_of_the_engine() -> None:
    moon = Moon()
    engine = Engine({**CLASSES, "lunar.example.com": Lunar()}, moon)
    settings = RevisionSettings(
        autoscaler_class="lunar.example.com", metrics=(MetricTarget("phase", 1.0),), max_scale=7
    )
    engine.set_revision(key(0), settings, BEGIN)
    assert [decision.scale for decision in engine.tick(BEGIN).to_scale()] == [3]
    moon.phase = 9.0
    [decision] = engine.tick(BEGIN + 2)
    assert (decision.scale, decision.metric, decision.state.memory) == (7, "phase", 2)
    assert [kept.metric for kept in engine.history(key(0))] == ["phase", "phase"]


def test_a_class_of_ones_own_is_gone_on_with_after_a_restart_from_the_memory_that_it_begins_with() -> None:
    classes = {**CLASSES, "lunar.example.com": Lunar()}
    settings = RevisionSettings(autoscaler_class="lunar.example.com", metrics=(MetricTarget("phase", 1.0),))
    before, after = Engine(classes, Moon()), Engine(classes, Moon())
    before.set_revision(key(0), settings, BEGIN, 3, initialized=True)
    before.tick(BEGIN)
    saved = SavedRevision.from_json(dict(before.save(BEGIN + 1))[key(0)])
    after.set_revision(key(0), settings, BEGIN + 5, 3, initialized=True, saved=saved)
    [decision] = after.tick(BEGIN + 6)
    assert decision.activity is not None
    assert (decision.state.memory, decision.activity.since) == (1, BEGIN)


def test_the_hpa_is_gone_on_with_after_a_restart_and_knows_no_panic() -> None:
    settings = RevisionSettings(autoscaler_class=HPA, metrics=(MetricTarget("cpu", 50.0),))
    before, after = Engine(), Engine()
    before.set_revision(key(0), settings, BEGIN, 3, initialized=True)
    before.tick(BEGIN)
    saved = SavedRevision.from_json(dict(before.save(BEGIN + 1))[key(0)])
    after.set_revision(key(0), settings, BEGIN + 5, 3, initialized=True, saved=saved)
    [decision] = after.tick(BEGIN + 6)
    assert decision.activity is not None
    assert (decision.scale, decision.missing, decision.panicking) == (None, Missing.METRICS_FAILED, False)
    assert decision.activity.since == BEGIN


def test_a_class_that_there_is_none_of_leaves_a_revision_to_the_kpa_where_it_stood() -> None:
    engine = Engine()
    engine.set_revision(key(0), RevisionSettings(), BEGIN, 1, initialized=True)
    for second in range(1, 70):
        load = {key(0): 700.0 if second > 60 else 70.0}
        engine.report_batch(batch(BEGIN + second, load, second), BEGIN + second)
        engine.tick(BEGIN + second)
    expected = engine.latest(key(0))
    assert expected is not None
    assert expected.panicking
    engine.set_revision(key(0), RevisionSettings(autoscaler_class="unknown.example.com"), BEGIN + 69)
    [decision] = engine.tick(BEGIN + 69)
    assert (decision.scale, decision.state) == (expected.scale, expected.state)


def test_one_that_panics_goes_on_under_its_new_settings() -> None:
    engine = Engine()
    engine.set_revision(key(0), RevisionSettings(), BEGIN, 5, initialized=True)
    quiet = RevisionSettings(stable_window=6.0, target_value=7.0)
    engine.set_revision(key(0), quiet, BEGIN + 1)
    for second in range(2, 9):
        engine.report_batch(batch(BEGIN + second, {key(0): 7.0}, second), BEGIN + second)
        [decision] = engine.tick(BEGIN + second)
        assert decision.panicking is (second <= 6), "the window is the new one, what panic holds is as before"
        assert decision.scale == (5 if second <= 6 else 2)


def test_a_revision_between_classes_is_held_by_each_until_its_metrics_are_known() -> None:
    engine = Engine()
    engine.set_revision(key(0), RevisionSettings(), BEGIN, 4, initialized=True)
    hpa = RevisionSettings(autoscaler_class=HPA, metric="cpu", metrics=(MetricTarget("cpu", 50.0),))
    several = RevisionSettings(metrics=(MetricTarget("backlog", 10.0),))
    for second, settings in enumerate((RevisionSettings(), hpa, several, hpa, RevisionSettings(metric="rps"))):
        engine.set_revision(key(0), settings, BEGIN + second)
        [decision] = engine.tick(BEGIN + second)
        assert (decision.scale, decision.metric) == (None, settings.metric)
        assert decision.panicking is (settings.autoscaler_class == KPA), "windows are empty, so what runs is held"


def test_a_poke_raises_a_revision_of_the_hpa_that_has_no_replica() -> None:
    engine = Engine()
    settings = RevisionSettings(autoscaler_class=HPA, metrics=(MetricTarget("cpu", 50.0),))
    engine.set_revision(key(0), settings, BEGIN, 0, initialized=True)
    decision = engine.poke(key(0), 3, BEGIN + 1)
    assert decision is not None
    assert (decision.scale, decision.in_flight) == (1, 3)
    engine.observe(key(0), ready=1)
    assert engine.poke(key(0), 3000, BEGIN + 2) is None, "its metrics say how many, not requests"


def test_a_metric_that_cannot_be_read_takes_no_replica_away_and_never_the_last() -> None:
    class Failing:
        def read(self, revision: str, metric: MetricTarget, now: float) -> Reading:
            return Reading(missing=Missing.METRICS_FAILED)

    engine = Engine(signals=Failing())
    settings = RevisionSettings(metrics=(MetricTarget("backlog", 10.0),), stable_window=6.0)
    engine.set_revision(key(0), settings, BEGIN, 3, initialized=True)
    for second in range(1, 200):
        engine.report_batch(batch(BEGIN + second, {key(0): 0.0}, second), BEGIN + second)
        [decision] = engine.tick(BEGIN + second)
        assert decision.scale in (3, None), decision.sentence()


def test_a_change_of_class_keeps_windows_and_where_it_stands() -> None:
    engine = Engine(CLASSES_BY_ITSELF)
    engine.set_revision(key(0), RevisionSettings(), BEGIN, 2, initialized=True)
    for second in range(1, 20):
        engine.report_batch(batch(BEGIN + second, {key(0): 140.0}, second), BEGIN + second)
        engine.tick(BEGIN + second)
    by_itself = RevisionSettings(autoscaler_class=BY_ITSELF)
    for settings in (by_itself, replace(by_itself, max_scale=9), RevisionSettings(autoscaler_class=KPA)):
        engine.set_revision(key(0), settings, BEGIN + 20)
        assert engine.latest(key(0)) is not None, "what was decided last is known until the next tick"
        [decision] = engine.tick(BEGIN + 20)
        assert (decision.scale, decision.stable_value) == (2, 140.0)


def test_what_was_saved_within_the_stable_window_is_gone_on_with() -> None:
    settings = RevisionSettings(scale_down_delay=40.0)
    before = Engine()
    before.set_revision(key(0), settings, BEGIN, 1, initialized=True)
    for second in range(1, 100):
        before.report_batch(batch(BEGIN + second, {key(0): 700.0 if second > 60 else 7.0}, second), BEGIN + second)
        for decision in before.tick(BEGIN + second).to_scale():
            before.observe(key(0), ready=decision.scale or 0)
    saved = dict(before.save(BEGIN + 100))
    expected = before.latest(key(0))
    assert expected is not None
    assert expected.panicking
    for later, resumes in ((105, True), (161, False)):
        after = Engine()
        revision = SavedRevision.from_json(saved[key(0)])
        after.set_revision(key(0), settings, BEGIN + later, 4, initialized=True, saved=revision)
        [decision] = after.tick(BEGIN + later)
        assert decision.activity is not None
        assert expected.activity is not None
        assert (decision.activity.since == expected.activity.since) is resumes
        assert decision.panicking, "either way, since its windows are empty"


def test_a_revision_at_rest_is_not_worth_saving() -> None:
    engine = Engine()
    engine.set_revision(key(0), RevisionSettings(), BEGIN, 0, initialized=True)
    engine.set_revision(key(1), RevisionSettings(), BEGIN, 3, initialized=True)
    engine.tick(BEGIN)
    assert set(dict(engine.save(BEGIN + 1))) == {key(1)}

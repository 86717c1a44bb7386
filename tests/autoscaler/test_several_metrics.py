"""The KPA beside further metrics: the largest wins, panic and zero hold, what is unknown takes nothing away."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.scaling import BEGIN, UNREAD, Scene, each
from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.combined import Combined
from upwell.autoscaler.decision import Activity, Bound, Decision, Inputs, Missing, Panic, Reading, Status
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.spec import RevisionSettings

CPU = MetricTarget("cpu", 50.0)
MEMORY = MetricTarget("memory", 100.0)
BACKLOG = MetricTarget("backlog", 10.0)
QUERY = MetricTarget("prometheus", 5.0, "sum(jobs)")
NOTHING = Reading()


def scene(ready: int, *metrics: MetricTarget, **changes: float) -> Scene:
    settings = RevisionSettings(target_value=10.0, total_value=10.0, metrics=metrics)
    return Scene(Combined(), replace(settings, **changes), ready)  # type: ignore[arg-type]


def bounded(decision: Decision, settings: RevisionSettings, *, active: bool = True) -> Decision:
    status = Status.ACTIVE if active else Status.INACTIVE
    activity = Activity(status, BEGIN - 3600, True)
    return bounds.bound(settings, activity, decision, RequestPath(), decision.at)


@pytest.mark.parametrize(
    ("stable", "cores", "backlog", "desired", "binding"),
    [
        (35.0, 0.5, 5.0, 4, "concurrency"),
        (5.0, 1.0, 5.0, 4, "cpu"),
        (5.0, 0.5, 55.0, 6, "backlog"),
        (20.0, 0.5, 20.0, 2, "concurrency"),
        (0.0, 0.0, 30.0, 3, "backlog"),
    ],
)
def test_the_largest_want_wins_and_is_named(
    stable: float, cores: float, backlog: float, desired: int, binding: str
) -> None:
    decision = scene(2, CPU, BACKLOG).decide(each(2, cores), Reading(backlog), stable=stable)
    assert (decision.desired, decision.binding) == (desired, binding)
    assert [signal.metric for signal in decision.signals] == ["concurrency", "cpu", "backlog"]
    assert max(signal.want for signal in decision.signals) == desired


def test_a_decision_says_what_each_metric_asks_for() -> None:
    decision = scene(2, MEMORY, QUERY).decide(each(2, 300 * 2.0**20), Reading(11.0), stable=15.0)
    assert decision.sentence() == (
        "stay as is (2 ready); concurrency: 15 over 60 s asks for 2; 15 over 6 s asks for 2, at 10 a replica;"
        " panic holds at least 6 until demand has been lower for 60 s;"
        " memory: 600 MiB asks for 6, at 100 a replica; prometheus(sum(jobs)): 11 asks for 3, at 5 a replica;"
        " memory asks for most"
    )


def test_rates_limit_each_metric() -> None:
    stage = scene(4, BACKLOG, max_scale_up_rate=2.0, max_scale_down_rate=2.0)
    up = stage.decide(Reading(500.0))
    assert (up.desired, up.signals[1].raw, up.signals[1].want) == (8, 50, 8)
    calm = replace(stage.settings, panic_threshold=1000.0)
    state = replace(kpa.start(calm, 0, BEGIN), panic_since=None)
    down = Combined().decide(calm, state, Inputs(0.0, 0.0, 4, readings=(NOTHING,)), BEGIN)
    assert (down.desired, down.signals[1].raw, down.signals[1].want) == (2, 0, 2)
    assert "backlog: 0 asks for 0, made 2" in down.sentence()


def test_the_activation_scale_holds_for_every_metric_that_asks_for_anything() -> None:
    stage = scene(0, BACKLOG, activation_scale=3)
    assert stage.decide(Reading(1.0)).desired == 3
    assert stage.decide(NOTHING).desired == 0


def test_the_same_tolerance_as_for_an_hpa_holds_for_resources_alone() -> None:
    assert scene(2, CPU).decide(each(2, 0.54), stable=1.0).desired == 2
    assert scene(2, BACKLOG).decide(Reading(21.0)).desired == 3


# Panic and delay


def test_panic_holds_what_a_further_metric_raised_until_it_ends() -> None:
    stage = scene(1, BACKLOG)
    assert stage.decide(NOTHING, stable=5.0, panic=40.0).panic is Panic.ENTERED
    stage.ready = 4
    stage.now += 2
    assert stage.decide(Reading(90.0), stable=5.0).desired == 9
    stage.now += 2
    held = stage.decide(NOTHING, stable=5.0)
    assert (held.desired, held.panic, held.state.max_panic_replicas) == (9, Panic.HELD, 9)
    stage.now += 60
    assert stage.decide(NOTHING, stable=5.0).desired == 2  # no longer held; half of four


def test_panic_holds_without_reports_of_requests_as_well() -> None:
    settings = scene(0, BACKLOG).settings
    state = kpa.start(settings, 9, BEGIN)
    inputs = Inputs(0.0, 0.0, 4, missing=Missing.NO_DATA, readings=(Reading(55.0),))
    assert Combined().decide(settings, state, inputs, BEGIN).desired == 9


def test_an_unreachable_revision_is_not_delayed() -> None:
    stage = scene(1, BACKLOG, scale_down_delay=30.0, reachable=False)
    stage.decide(Reading(70.0), stable=5.0)
    stage.now += 20
    assert stage.decide(NOTHING, stable=5.0).desired == 1


def test_the_scale_down_delay_holds_what_a_further_metric_asked_for() -> None:
    stage = scene(1, BACKLOG, scale_down_delay=30.0)
    assert stage.decide(Reading(70.0), stable=5.0).desired == 7
    stage.now += 20
    delayed = stage.decide(NOTHING, stable=5.0)
    assert (delayed.undelayed, delayed.desired) == (1, 7)
    assert "the scale-down delay keeps 7 instead of 1" in delayed.sentence()
    stage.now += 20
    assert stage.decide(NOTHING, stable=5.0).desired == 1


# Zero


def test_it_goes_to_zero_when_nothing_asks() -> None:
    stage = scene(1, BACKLOG, QUERY)
    decision = bounded(stage.decide(NOTHING, NOTHING), stage.settings)
    assert (decision.wanted, decision.bounds, decision.binding) == (0, (Bound.FOUND_INACTIVE,), "")


def test_what_a_replica_uses_does_not_keep_it_when_nothing_is_asked_of_it() -> None:
    stage = scene(1, CPU, MEMORY)
    decision = stage.decide(each(1, 0.9), each(1, 90 * 2.0**20))
    assert decision.desired == 0
    assert [(signal.raw, signal.want) for signal in decision.signals] == [(0, 0), (2, 0), (1, 0)]
    assert bounded(decision, stage.settings).wanted == 0


@pytest.mark.parametrize(("stable", "panic", "backlog"), [(0.1, 0.1, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 1.0)])
def test_what_replicas_use_counts_as_soon_as_anything_is_asked(
    stable: float, panic: float, backlog: float
) -> None:
    decision = scene(1, CPU, BACKLOG).decide(each(1, 0.9), Reading(backlog), stable=stable, panic=panic)
    assert (decision.desired, decision.binding) == (2, "cpu")


def test_a_backlog_raises_from_zero_without_any_report_of_requests() -> None:
    settings = scene(0, BACKLOG).settings
    inputs = Inputs(0.0, 0.0, 0, missing=Missing.NO_DATA, readings=(Reading(25.0),))
    decision = Combined().decide(settings, kpa.start(settings, 0, BEGIN), inputs, BEGIN)
    assert (decision.desired, decision.missing, decision.binding) == (3, None, "backlog")
    assert bounded(decision, settings, active=False).scale == 3
    assert "concurrency was not reported within the window" in decision.sentence()


def test_a_poke_raises_from_zero_as_ever() -> None:
    settings = scene(0, CPU).settings
    inputs = Inputs(0.0, 0.0, 0, missing=Missing.NO_DATA, in_flight=15, readings=(UNREAD,))
    decision = Combined().decide(settings, kpa.start(settings, 0, BEGIN), inputs, BEGIN)
    assert (decision.desired, decision.signals[1].missing) == (2, None)


# What is missing


@pytest.mark.parametrize("metric", [CPU, MEMORY, BACKLOG, QUERY])
def test_a_missing_metric_takes_nothing_away_and_nothing_to_zero(metric: MetricTarget) -> None:
    stage = scene(1, metric)
    decision = bounded(stage.decide(UNREAD), stage.settings)
    assert (decision.scale, decision.bounds) == (1, (Bound.SIGNAL_MISSING,))
    assert "could not be read" in decision.sentence()


def test_what_is_held_is_not_held_for_longer_than_the_metric_is_missing() -> None:
    stage = scene(0, BACKLOG, panic_threshold=1000.0)
    stage.ready = 8
    assert stage.decide(UNREAD).desired == 8
    stage.now += 2
    assert stage.decide(NOTHING).desired == 4


def test_others_may_raise_while_one_is_missing() -> None:
    stage = scene(2, BACKLOG, QUERY)
    assert stage.decide(UNREAD, Reading(25.0)).desired == 5
    assert stage.decide(UNREAD, NOTHING, stable=70.0).desired == 7


def test_a_resource_without_a_replica_to_measure_is_not_missing() -> None:
    stage = scene(0, CPU)
    decision = stage.decide(UNREAD)
    assert (decision.desired, decision.bounds, decision.signals[1].missing) == (0, (), None)


def test_without_reports_of_requests_others_raise_and_nothing_is_lowered() -> None:
    settings = scene(3, CPU, BACKLOG, scale_down_delay=30.0).settings
    state = kpa.start(settings, 0, BEGIN)

    def decide(cores: float, backlog: float) -> Decision:
        readings = (each(3, cores), Reading(backlog))
        inputs = Inputs(0.0, 0.0, 3, missing=Missing.NO_DATA, readings=readings)
        return Combined().decide(settings, state, inputs, BEGIN)

    assert (decide(0.1, 55.0).desired, decide(0.1, 55.0).missing) == (6, None)
    assert decide(1.0, 0.0).desired == 6
    held = decide(0.1, 5.0)
    assert (held.desired, held.missing, held.state) == (None, Missing.NO_DATA, state)
    assert bounded(held, settings).bounds == (Bound.NO_DEMAND_KNOWN,)


def test_without_a_count_of_replicas_nothing_is_decided() -> None:
    settings = scene(3, BACKLOG, scale_down_delay=30.0).settings
    state = kpa.start(settings, 3, BEGIN)
    inputs = Inputs(9.0, 9.0, 3, missing=Missing.REPLICA_COUNT_FAILED, readings=(Reading(500.0),))
    decision = Combined().decide(settings, state, inputs, BEGIN)
    assert (decision.desired, decision.missing, decision.state) == (None, Missing.REPLICA_COUNT_FAILED, state)


# Whatever happens

stories = st.lists(
    st.tuples(
        st.sampled_from([0.0, 2.0, 30.0, 61.0]),
        st.integers(0, 20),
        st.integers(0, 4),
        st.floats(0, 500),
        st.floats(0, 500),
        st.sampled_from([None, None, None, *Missing]),
        st.one_of(st.none(), st.floats(0, 4)),
        st.one_of(st.none(), st.floats(0, 500)),
        st.sampled_from([None, None, None, 3]),
    ),
    min_size=1,
    max_size=25,
)
Story = list[tuple[float, int, int, float, float, Missing | None, float | None, float | None, int | None]]
some_settings = st.builds(
    RevisionSettings,
    target_value=st.floats(0.5, 50),
    max_scale_down_rate=st.floats(1.1, 5),
    max_scale_up_rate=st.floats(1.1, 100),
    scale_down_delay=st.sampled_from([0.0, 30.0]),
    reachable=st.booleans(),
    activation_scale=st.integers(0, 4),
    min_scale=st.integers(0, 4),
    max_scale=st.integers(0, 30),
)


def play(settings: RevisionSettings, story: Story) -> list[Decision]:
    scaling, now = Combined(), BEGIN
    state = scaling.start(settings, story[0][1], now)
    activity = bounds.begin(settings, story[0][1], now, initialized=True)
    decisions = []
    for passed, ready, starting, stable, panic, missing, cores, backlog, in_flight in story:
        now += passed
        readings = (
            UNREAD if cores is None else each(ready, cores),
            UNREAD if backlog is None else Reading(backlog),
        )
        inputs = Inputs(stable, panic, ready, starting, missing, in_flight, readings[: len(settings.metrics)])
        wished = scaling.decide(settings, state, inputs, now)
        decision = bounds.bound(settings, activity, wished, RequestPath(), now)
        assert decision.activity is not None
        state, activity = decision.state, decision.activity
        decisions.append(decision)
    return decisions


@given(some_settings, stories)
def test_what_is_wanted_is_never_less_than_any_metric_asks_for_and_never_out_of_bounds(
    settings: RevisionSettings, story: Story
) -> None:
    settings = replace(settings, metrics=(CPU, BACKLOG))
    decisions = play(settings, story)
    for decision in decisions:
        assert decision.sentence()
        there = decision.ready + decision.starting
        if decision.desired is not None:
            assert decision.desired >= max(signal.want for signal in decision.signals)
            if any(signal.missing is not None for signal in decision.signals):
                assert decision.desired >= there
            if decision.panicking:
                assert decision.desired >= decision.state.max_panic_replicas
        if decision.scale is not None and settings.max_scale:
            assert decision.scale <= settings.max_scale
    assert decisions == play(settings, story)


@given(some_settings, stories)
def test_without_further_metrics_it_is_the_kpa(settings: RevisionSettings, story: Story) -> None:
    now = BEGIN
    state = kpa.start(settings, story[0][1], now)
    for decision in play(settings, story):
        inputs = Inputs(
            decision.stable_value,
            decision.panic_value,
            decision.ready,
            decision.starting,
            decision.missing,
        )
        if decision.in_flight is None:
            alone = kpa.decide(settings, state, inputs, decision.at)
            assert (alone.desired, alone.state) == (decision.desired, decision.state)
        state = decision.state


@given(some_settings, stories)
def test_further_metrics_that_ask_for_nothing_change_nothing(settings: RevisionSettings, story: Story) -> None:
    quiet: Story = [(*round_[:6], 0.0, 0.0, round_[8]) for round_ in story]
    alone = play(settings, quiet)
    beside = play(replace(settings, metrics=(CPU, BACKLOG)), quiet)
    for one, other in zip(alone, beside, strict=True):
        assert (one.desired, one.scale, one.panic, one.state.panic_since) == (
            other.desired,
            other.scale,
            other.panic,
            other.state.panic_since,
        )

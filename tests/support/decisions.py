"""Settings, inputs and stories of rounds made up for property tests of decisions."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Decision, Inputs, Missing
from upwell.autoscaler.spec import RevisionSettings

BEGIN = 1_700_000_000.0

demands = st.floats(0, 1e5, allow_subnormal=False)
scales = st.integers(0, 12)


class Round(NamedTuple):
    """One tick or poke of a story."""

    passed: float
    """Seconds since the round before."""
    inputs: Inputs
    answers: bool
    """Whether the activator answers for the revision."""


@st.composite
def some_settings(draw: st.DrawFn) -> RevisionSettings:
    """Any settings that admission lets through, and min and initial scales above the maximum besides."""
    reachable = draw(st.booleans())
    return RevisionSettings(
        target_value=draw(st.floats(0.01, 200)),
        total_value=draw(st.floats(0.01, 300)),
        target_burst_capacity=draw(st.sampled_from([-1.0, 0.0, 10.5, 211.0])),
        max_scale_up_rate=draw(st.floats(1.01, 1000)),
        max_scale_down_rate=draw(st.floats(1.01, 10)),
        panic_threshold=draw(st.floats(1.1, 10)),
        stable_window=draw(st.sampled_from([6.0, 60.0, 600.0])),
        scale_down_delay=draw(st.sampled_from([0.0, 1.0, 30.0])),
        reachable=reachable,
        initial_scale=draw(scales),
        activation_scale=draw(scales),
        min_scale=draw(scales) if reachable else 0,
        max_scale=draw(scales),
        max_scale_limit=draw(scales),
        enable_scale_to_zero=draw(st.booleans()),
        scale_to_zero_grace_period=draw(st.sampled_from([0.001, 30.0, 77.7])),
        scale_to_zero_pod_retention_period=draw(st.sampled_from([0.0, 0.1, 100.0])),
        progress_deadline=draw(st.sampled_from([1.0, 33.3, 600.0])),
        activator_capacity=draw(st.floats(1, 1000)),
    )


def some_inputs() -> st.SearchStrategy[Inputs]:
    """What a tick or a poke may know, demand unknown among it.

    All of it from one drawn number, since drawing is what a property test of a small function spends its time on.
    """
    return st.integers(0, 2**32 - 1).map(lambda seed: _inputs(Random(seed)))


def some_rounds() -> st.SearchStrategy[list[Round]]:
    """Rounds at any distance, from none to more than a progress deadline."""
    return st.lists(st.integers(0, 2**32 - 1).map(_round), min_size=1, max_size=24)


def _inputs(random: Random) -> Inputs:
    return Inputs(
        _demand(random),
        _demand(random),
        random.choice((0, 1, 1, 2, 5, random.randrange(50))),
        random.choice((0, 0, 1, 5)),
        random.choice((*Missing, *[None] * 9)),
        random.choice((1.0, 70.0, 5000.0, *[None] * 6)),
    )


def _demand(random: Random) -> float:
    return random.choice((0.0, 0.0, 1e-9, 70.0, random.uniform(0, 500), 10 ** random.uniform(-3, 6)))


def _round(seed: int) -> Round:
    random = Random(seed)
    passed = random.choice((0.0, 0.5, 2.0, 2.0, 2.0, 30.0, 61.0, 700.0))
    return Round(passed, _inputs(random), random.random() < 0.8)


def story(
    settings: RevisionSettings, ready: int, rounds: list[Round], *, initialized: bool = False
) -> list[Decision]:
    """The decisions on a revision that begins with `ready` replicas, each after the one before."""
    now = BEGIN
    state = kpa.start(settings, ready, now)
    activity = bounds.begin(settings, ready, now, initialized=initialized)
    decisions = []
    for passed, inputs, answers in rounds:
        now += passed
        wished = kpa.decide(settings, state, inputs, now)
        path = RequestPath(activator_answers=answers)
        decision = bounds.bound(settings, activity, wished, path, now, revision="ns/r")
        assert decision.activity is not None
        state, activity = decision.state, decision.activity
        decisions.append(decision)
    return decisions


def numbers(value: object, name: str = "decision") -> list[tuple[str, float]]:
    """Every number in a record and the records within it, by name."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return []
    if isinstance(value, int | float):
        return [(name, value)]
    if is_dataclass(value):
        parts = [(each.name, getattr(value, each.name)) for each in fields(value)]
    elif isinstance(value, tuple):
        names = getattr(value, "_fields", None) or [f"{name}[{index}]" for index in range(len(value))]
        parts = list(zip(names, value, strict=True))
    else:
        raise TypeError(f"{name} is a {type(value)}, which this does not look into")
    return [number for part, each in parts for number in numbers(each, part)]

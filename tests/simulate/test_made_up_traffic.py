"""Generators make the traffic that they describe, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.defaults import TRACES
from upwell.runtime.simulate.generators import generate, is_generator
from upwell.runtime.simulate.heavy_tail import heavy_tail, popularity

MIX = "heavy-tail:functions=1000,requests=200000,hours=24"


def per_minute(text: str, minutes: int) -> list[int]:
    trace = generate(text, seed=1)
    counted: list[int] = np.histogram(trace.times, np.arange(minutes + 1) * 60.0)[0].tolist()
    return counted


@pytest.mark.parametrize("text", [*TRACES[:-1], MIX])
def test_the_same_seed_makes_the_same_traffic(text: str) -> None:
    one, same, other = generate(text, 7), generate(text, 7), generate(text, 8)
    assert one.times.tobytes() == same.times.tobytes()
    assert one.function.tobytes() == same.function.tobytes()
    assert one.service.tobytes() == same.service.tobytes()
    assert one.times.tobytes() != other.times.tobytes()
    assert (np.diff(one.times) >= 0).all()
    assert 0 <= one.times[0] <= one.times[-1] < one.seconds


def test_a_ramp_rises_evenly() -> None:
    assert per_minute("ramp:0-60rps/2m,spacing=even", 2) == [900, 2700]


def test_steps_hold_their_rates() -> None:
    assert per_minute("step:60rpm/1m,10rps/2m,0rps/1m,spacing=even", 4) == pytest.approx([60, 600, 600, 0], abs=1)


def test_a_spike_is_where_it_was_put() -> None:
    counts = per_minute("spike:1-100rps/5m,at=2m,for=1m,spacing=even", 5)
    assert counts == pytest.approx([60, 60, 6000, 60, 60], abs=1)


def test_a_day_is_lowest_at_its_beginning_and_highest_at_noon() -> None:
    trace = generate("diurnal:1-3rps/24h,spacing=even", seed=0)
    hours = np.histogram(trace.times, np.arange(25) * 3600.0)[0]
    assert hours[0] == pytest.approx(3600, rel=0.02)
    assert hours[12] == pytest.approx(3 * 3600, rel=0.02)
    assert len(trace) == pytest.approx(2 * 86_400, rel=0.001)


def test_poisson_arrivals_vary_as_they_must() -> None:
    counts = np.array(per_minute("poisson:10rps/100m", 100))
    assert counts.mean() == pytest.approx(600, rel=0.02)
    assert counts.std() == pytest.approx(600**0.5, rel=0.3)


@pytest.mark.parametrize(
    "text",
    [
        "ramp:100rps/10m",
        "ramp:0-100rps",
        "ramp:0-100rps/10",
        "ramp:0-100rps/0s",
        "ramp:0-1e3rps/1m",
        "poisson:50rps/1h,seed=3",
        "poisson:50rps/1h,spacing=odd",
        "poisson:1000000rps/24h",
        "poisson:2000000rps/1s",
        "spike:1-5rps/1m,at=55s,for=10s",
        "step:",
        "diurnal:1-2rps/24h,period=0s",
        "heavy-tail:functions=0",
        "heavy-tail:customers=10",
        "heavy-tail:requests=99999999999",
    ],
)
def test_what_is_no_generator_is_refused(text: str) -> None:
    assert is_generator(text)
    with pytest.raises(InvalidInput):
        generate(text, seed=0)


# The mix of many functions


def test_the_mix_has_the_requests_and_functions_that_were_asked_for() -> None:
    trace = generate(MIX, seed=0)
    assert len(trace) == 200_000
    assert len(trace.functions) == len(set(trace.functions)) == 1000


def test_most_functions_of_the_mix_are_called_rarely_and_few_make_most_calls() -> None:
    counts = np.sort(np.bincount(generate("heavy-tail:requests=2000000", seed=0).function, minlength=1000))
    assert (counts <= 24).mean() == pytest.approx(0.45, abs=0.02), "once an hour or less"
    assert (counts <= 1440).mean() == pytest.approx(0.81, abs=0.02), "once a minute or less"
    assert counts[-190:].sum() / counts.sum() > 0.9


def test_half_of_the_functions_run_for_less_than_a_second_and_almost_none_for_a_minute() -> None:
    trace = generate(MIX, seed=0)
    called = np.bincount(trace.function, minlength=1000)
    means = (np.bincount(trace.function, trace.service, minlength=1000) / np.maximum(called, 1))[called > 10]
    assert (means < 1).mean() == pytest.approx(0.55, abs=0.08)
    assert means.max() < 100


def test_the_mix_has_timers_bursts_and_what_lies_between() -> None:
    trace = generate(MIX, seed=0)
    variations = []
    for index in range(1000):
        gaps = np.diff(trace.times[trace.function == index])
        if len(gaps) > 30:
            variations.append(gaps.std() / gaps.mean())
    spread = np.array(variations)
    assert (spread < 0.01).mean() > 0.03, "timers"
    assert (spread > 1.5).mean() == pytest.approx(0.45, abs=0.12), "bursts"


@settings(max_examples=60, deadline=None)
@given(
    functions=st.integers(1, 60), requests=st.integers(1, 5000), hours=st.integers(1, 48), seed=st.integers(0, 99)
)
def test_any_mix_is_whole(functions: int, requests: int, hours: int, seed: int) -> None:
    trace = heavy_tail("mix", functions=functions, requests=requests, seconds=hours * 3600.0, seed=seed)
    assert len(trace) == requests
    assert (trace.times >= 0).all()
    assert (trace.times <= trace.seconds).all()
    assert np.isfinite(trace.service).all()
    assert (trace.service >= 0).all()


@given(functions=st.integers(1, 2000), total=st.floats(1, 1e9))
def test_popularity_adds_up_and_never_falls(functions: int, total: float) -> None:
    rates = popularity(functions, total)
    assert rates.sum() == pytest.approx(total)
    assert (np.diff(rates) >= 0).all()

"""What is reported of a simulation, and which setting of a sweep is recommended."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.simulation import conditions, trace
from upwell.functions.errors import InvalidSettings
from upwell.runtime.simulate.generators import generate
from upwell.runtime.simulate.report import Quantiles, SimulationReport
from upwell.runtime.simulate.simulation import simulate
from upwell.runtime.simulate.summary import occupancy, quantiles
from upwell.runtime.simulate.sweep import Axis, combinations, parse_axis, recommend, sweep


def report() -> SimulationReport:
    return simulate(conditions(generate("spike:5-80rps/3m", 1)), {"target": "3"})


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert report().encode() == report().encode()


def test_the_report_is_plain_json_and_adds_up() -> None:
    found = json.loads(report().encode())
    series = found["series"]
    assert (
        found["requests"]
        == sum(np.array(series["arrivals"]) * series["bucket_seconds"])
        == pytest.approx(found["functions"][0]["requests"])
    )
    assert sum(series["cold_starts"]) == found["cold_starts"] == 1
    assert 0 < found["busy_replica_seconds"] < found["replica_seconds"]
    assert found["waste"] == pytest.approx(1 - found["busy_replica_seconds"] / found["replica_seconds"], abs=1e-4)
    assert len({len(values) for values in series.values() if isinstance(values, list)}) == 1
    assert max(series["panic"]) == 1.0
    assert max(series["ready"]) == found["greatest_replicas"] == max(series["want"])


def test_load_is_time_in_flight_and_capacity_what_ready_replicas_take() -> None:
    found = simulate(conditions(trace([1.0, 1.0, 3.5], 1.0, seconds=8.0), start=0.5), {}).series
    assert found.bucket_seconds == 1.0
    load, ready, capacity = list(found.load), list(found.ready), list(found.capacity)
    assert load == pytest.approx([0, 2, 1, 0.5, 0.5, 0, 0, 0])
    assert ready == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 1])
    assert capacity == pytest.approx([100 * each for each in ready])
    assert list(found.arrivals) == [0, 2, 0, 1, 0, 0, 0, 0]
    assert list(found.cold_starts) == [0, 2, 0, 0, 0, 0, 0, 0]


def test_rejected_requests_have_no_latency() -> None:
    of = conditions(trace([0.0] * 10_010, 0.01), start=1.0, max_scale="1")
    found = simulate(of, {"container-concurrency": "1"})
    assert found.rejected == 10
    assert found.latency.greatest == pytest.approx(1000 + 10_000 * 10)


def test_nothing_at_all_is_a_report_too() -> None:
    found = simulate(conditions(trace([], seconds=30.0)), {})
    assert (found.requests, found.replica_seconds, found.waste) == (0, 0.0, 0.0)
    assert found.latency == Quantiles()
    json.loads(found.encode())


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), max_size=30), st.integers(1, 20))
def test_occupancy_is_the_overlap_of_every_interval(intervals: list[tuple[float, float]], buckets: int) -> None:
    begins = np.array([begin for begin, _ in intervals])
    ends = np.array([begin + length for begin, length in intervals])
    edges = np.linspace(0, 130, buckets + 1)
    wanted = [
        sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in zip(begins, ends, strict=True))
        for low, high in itertools.pairwise(edges)
    ]
    assert occupancy(begins, ends, edges) == pytest.approx(wanted, abs=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_quantiles_rise_and_lie_between_the_least_and_the_greatest(values: list[float]) -> None:
    found = quantiles(np.array(values))
    rising = (found.p50, found.p90, found.p95, found.p99, found.p999, found.greatest)
    assert list(rising) == sorted(rising)
    assert rising[0] >= round(min(values), 3)
    assert found.greatest == round(max(values), 3)


# Sweeps


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("target=20:200:60", ("20", "80", "140", "200")),
        ("target=0.1:0.3:0.1", ("0.1", "0.2", "0.3")),
        ("window=10s:30s:10s", ("10s", "20s", "30s")),
        ("window=6s,1m", ("6s", "1m")),
        ("target=5:5:1", ("5",)),
    ],
)
def test_an_axis_is_a_range_or_a_list(text: str, values: tuple[str, ...]) -> None:
    assert parse_axis(text) == Axis(text.partition("=")[0], values)


@pytest.mark.parametrize(
    "text",
    [
        "target",
        "target=",
        "=1:2:1",
        "target=1:2",
        "t=1:2:0",
        "t=2:1:1",
        "t=1s:2m:1s",
        "t=1,1",
        "t=1,,2",
        "t=a:b:c",
    ],
)
def test_what_is_no_axis_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings):
        parse_axis(text)


def test_every_combination_is_tried_once() -> None:
    axes = [parse_axis("target=1,2"), parse_axis("window=6s,7s,8s")]
    assert [tuple(each.values()) for each in combinations(axes)] == [
        ("1", "6s"), ("1", "7s"), ("1", "8s"), ("2", "6s"), ("2", "7s"), ("2", "8s"),
    ]  # fmt: skip
    with pytest.raises(InvalidSettings, match="twice"):
        combinations([axes[0], axes[0]])
    with pytest.raises(InvalidSettings, match="more than"):
        combinations([parse_axis("target=1:40:1"), parse_axis("window=10s:50s:1s")])


@pytest.mark.parametrize(
    "axis",
    ["target=0", "tarket=1", "window=2s", "container-concurrency=-1", "max-scale-up-rate=0.5", "metric=cpu"],
)
def test_a_value_that_cannot_be_used_is_refused_before_anything_is_simulated(axis: str) -> None:
    name = axis.partition("=")[0]
    with pytest.raises(InvalidSettings, match=name if name != "tarket" else "Did you mean target"):
        sweep(conditions(trace([1.0])), [parse_axis(axis)])


def point(p99: float, replica_seconds: float, rejected: int = 0) -> SimulationReport:
    return replace(
        simulate(conditions(trace([], seconds=1.0)), {}),
        latency=Quantiles(p99=p99),
        replica_seconds=replica_seconds,
        rejected=rejected,
    )


def test_the_front_is_what_nothing_beats_and_its_best_product_is_recommended() -> None:
    reports = [point(100, 10), point(50, 15), point(40, 40), point(60, 16), point(10, 5, rejected=1)]
    names = [{"target": str(index)} for index in range(5)]
    found = recommend(names, reports)
    assert found.sweep is not None
    assert [each.on_front for each in found.sweep] == [True, True, True, False, False]
    assert found.recommended is found.sweep[1]
    assert found.latency.p99 == 50, "the report is that of the recommended setting"
    assert "target=2" in found.reason
    assert "25 % more p99" in found.reason


def test_settings_that_all_come_to_the_same_are_told_to_do_so() -> None:
    names = [{"target": str(index)} for index in range(3)]
    all_alike = recommend(names, [point(50, 10)] * 3)
    assert (
        all_alike.reason == "all settings come to the same p99 and replica-seconds, and this is the first of them"
    )
    some_alike = recommend(names, [point(50, 20), point(50, 10), point(50, 10)])
    assert some_alike.recommended is not None
    assert some_alike.recommended.label == "target=1"
    assert some_alike.reason.startswith("all 2 settings of the front come to the same")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 1)), min_size=1, max_size=12))
def test_no_point_on_the_front_is_beaten_and_every_other_is(costs: list[tuple[int, int, int]]) -> None:
    base = point(0, 0)
    reports = [
        replace(base, latency=Quantiles(p99=p99), replica_seconds=seconds, rejected=rejected)
        for p99, seconds, rejected in costs
    ]
    found = recommend([{"target": str(index)} for index in range(len(costs))], reports).sweep or ()
    least = min(rejected for _, _, rejected in costs)
    for p99, seconds, rejected in costs:
        beaten = rejected > least or any(
            other[0] <= p99 and other[1] <= seconds and (other[0], other[1]) != (p99, seconds)
            for other in costs
            if other[2] == least
        )
        assert all(
            each.on_front is not beaten
            for each in found
            if (each.p99, each.replica_seconds, each.rejected) == (p99, seconds, rejected)
        )


def test_a_sweep_in_processes_is_the_sweep_without() -> None:
    given = conditions(generate("poisson:20rps/30s", 1))
    axes = [parse_axis("target=1,2,5")]
    alone = sweep(given, axes, processes=1)
    assert sweep(given, axes, processes=2).encode() == alone.encode()

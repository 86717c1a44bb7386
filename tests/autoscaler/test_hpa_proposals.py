"""What one metric asks for: the averages, assumptions and tolerances of Kubernetes' horizontal pod autoscaler."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.scaling import BEGIN, LONG_AGO, UNREAD, each, replica, replicas
from upwell.autoscaler.decision import GREATEST_COUNT, Missing, Reading, ReplicaReading
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.replica_calculator import MEBIBYTE, Counted, Tolerances, propose

TEN_PERCENT = Tolerances(0.1, 0.1)


def want(metric: str, target: float, reading: Reading, current: int, *, request: float = 1.0) -> int:
    return propose(MetricTarget(metric, target), reading, Counted(current, request, TEN_PERCENT), BEGIN).want


@pytest.mark.parametrize(
    ("target", "cores", "current", "expected"),
    [
        (30, (0.3, 0.5, 0.7), 3, 5),  # 50 %
        (50, (0.1, 0.3, 0.5, 0.25, 0.25), 5, 3),  # 28 %
        (100, (1.01, 1.03, 1.02), 3, 3),  # 2 % off
        (100, (1.1, 1.1), 2, 2),  # 10 % off is near enough
        (100, (1.11, 1.11), 2, 3),
        (100, (0.9, 0.9), 2, 2),
        (100, (0.89, 0.89), 2, 2),  # 1.78 rounded up
        (100, (0.49, 0.49), 2, 1),
        (10, (0.1099, 0.1099), 2, 2),  # whole percent: 10
        (80, (0.0, 0.0), 2, 0),
        (80, (3.0,), 1, 4),  # 300 %
    ],
)
def test_utilization_of_the_requested_cpu(
    target: float, cores: tuple[float, ...], current: int, expected: int
) -> None:
    assert want("cpu", target, replicas(*cores), current) == expected


def test_utilization_is_of_what_was_requested() -> None:
    assert want("cpu", 50, each(2, 0.1), 2, request=0.1) == 4
    assert want("cpu", 50, each(2, 0.1), 2, request=0.2) == 2
    assert want("cpu", 50, each(2, 0.1), 2, request=1.0) == 1


@pytest.mark.parametrize(
    ("target", "cores", "current", "expected"),
    [
        (100, (1.0, None), 2, 2),  # exactly on target
        (100, (1.9, None), 2, 2),  # the other at nothing: 95 %
        (100, (2.5, None), 2, 3),  # 125 %
        (100, (0.6, None), 2, 2),  # the other at all it may use: 80 %, 1.6
        (50, (0.1, 0.1, 0.1, None), 4, 3),  # 10 % alone, 32 % with the other at 100 %
        (50, (0.01, 0.01, 0.01, None), 4, 2),  # 25 %
        (200, (0.2, 0.2, None), 3, 2),  # a target above 100 % is what the other may use: 80 %
        (50, (None, None), 2, 0),
    ],
)
def test_a_replica_that_was_not_measured_is_assumed_idle_on_the_way_up_and_busy_on_the_way_down(
    target: float, cores: tuple[float | None, ...], current: int, expected: int
) -> None:
    found = propose(MetricTarget("cpu", target), replicas(*cores), Counted(current, 1.0, TEN_PERCENT), BEGIN)
    assert found.want == expected
    assert (found.missing is None) == any(each is not None for each in cores)


def starting(value: float, *, age: float, ready_for: float | None) -> ReplicaReading:
    """One that started `age` seconds ago, and is ready since, or never was."""
    if ready_for is None:
        return ReplicaReading("r", value, False, BEGIN - age, BEGIN - age)
    return ReplicaReading("r", value, True, BEGIN - age, BEGIN - ready_for)


@pytest.mark.parametrize(
    "young",
    [
        starting(0.3, age=100, ready_for=None),
        starting(0.3, age=299, ready_for=14),  # the sample holds the time before it was ready
        starting(0.3, age=400, ready_for=None),  # has never been ready
        replica(None, ready=False),
    ],
)
def test_cpu_of_a_replica_that_is_not_ready_counts_for_nothing_on_the_way_up_and_is_left_out_on_the_way_down(
    young: ReplicaReading,
) -> None:
    up = Reading(replicas=(young, replica(0.5), replica(0.7)))
    assert want("cpu", 30, up, 3) == 4  # 60 % of two, 40 % of three
    turned = Reading(replicas=(young, young, replica(0.4), replica(0.4)))
    assert want("cpu", 30, turned, 4) == 4  # 40 % of two asks for three, 20 % of four for no more
    down = Reading(replicas=(young, replica(0.1), replica(0.1)))
    assert want("cpu", 30, down, 3) == 1  # 10 % of two
    near = Reading(replicas=(young, replica(0.28), replica(0.28)))
    assert want("cpu", 30, near, 3) == 3  # 28 % of two


@pytest.mark.parametrize(
    "settled",
    [
        starting(0.3, age=299, ready_for=15),
        starting(0.3, age=301, ready_for=1),
        ReplicaReading("r", 0.3, False, BEGIN - 1000, BEGIN - 10),  # was ready, and is no more
    ],
)
def test_cpu_counts_once_a_replica_has_settled(settled: ReplicaReading) -> None:
    up = Reading(replicas=(settled, replica(0.5), replica(0.7)))
    assert want("cpu", 30, up, 3) == 5


def test_readiness_does_not_matter_for_other_metrics() -> None:
    young = starting(300 * MEBIBYTE, age=1, ready_for=None)
    assert want("memory", 100, Reading(replicas=(young, replica(300 * MEBIBYTE))), 2) == 6


@pytest.mark.parametrize(
    ("mebibytes", "expected"), [((100, 100), 2), ((150, 150), 3), ((10, 30), 1), ((300, None), 3), ((90, None), 2)]
)
def test_memory_is_averaged_in_mebibytes(mebibytes: tuple[float | None, ...], expected: int) -> None:
    reading = replicas(*(None if each is None else each * MEBIBYTE for each in mebibytes))
    assert want("memory", 100, reading, 2) == expected


@pytest.mark.parametrize(
    ("value", "current", "expected"),
    [(100, 4, 10), (0, 4, 0), (43, 4, 4), (45, 4, 5), (35, 4, 4), (30, 4, 3), (1, 0, 1), (0, 0, 0), (-5, 3, 0)],
)
def test_a_sum_is_divided_by_the_target(value: float, current: int, expected: int) -> None:
    assert want("backlog", 10, Reading(value), current) == expected


def test_a_sum_beyond_all_measure_asks_for_no_more_than_can_be_counted() -> None:
    assert want("backlog", 0.01, Reading(1e308), 4) == GREATEST_COUNT
    assert want("backlog", 0.01, each(4, 1e300), 4) == GREATEST_COUNT
    assert want("cpu", 0.01, each(4, 1e300), 4) == GREATEST_COUNT


def test_a_proposal_says_the_sum_in_the_targets_unit() -> None:
    found = propose(MetricTarget("cpu", 80), each(3, 0.5), Counted(3, 0.5, TEN_PERCENT), BEGIN)
    assert (found.metric, found.value, found.target, found.raw, found.want) == ("cpu", 300.0, 80, 4, 4)
    near = propose(MetricTarget("cpu", 80), each(3, 0.42), Counted(3, 0.5, TEN_PERCENT), BEGIN)
    assert (near.raw, near.want) == (4, 3)
    query = MetricTarget("prometheus", 5, "up")
    assert propose(query, Reading(11.0), Counted(1, 1.0, TEN_PERCENT), BEGIN).metric == "prometheus(up)"


@pytest.mark.parametrize(
    "reading",
    [
        UNREAD,
        Reading(math.nan),
        Reading(math.inf),
        Reading(1e308),  # percent of one core are a hundred times that
        replicas(None),
        replicas(math.nan),
        replicas(1e306, 1e306),
        Reading(replicas=(starting(1.0, age=1, ready_for=None),)),
    ],
)
def test_what_could_not_be_read_asks_for_nothing_and_says_so(reading: Reading) -> None:
    found = propose(MetricTarget("cpu", 50), reading, Counted(2, 1.0, TEN_PERCENT), BEGIN)
    assert (found.missing, found.raw, found.want, found.value) == (Missing.METRICS_FAILED, 0, 0, 0.0)


values = st.one_of(st.none(), st.floats(0, 1e6), st.sampled_from([math.nan, math.inf, -1.0]))
some_replicas = st.lists(
    st.builds(
        ReplicaReading,
        st.just("r"),
        values,
        st.booleans(),
        st.floats(LONG_AGO, BEGIN),
        st.floats(LONG_AGO, BEGIN),
    ),
    max_size=12,
)


@given(
    st.sampled_from(["cpu", "memory", "queue"]),
    st.floats(0.01, 1e4),
    some_replicas,
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(0, 50),
)
def test_no_reading_makes_a_proposal_that_is_no_number(
    metric: str, target: float, readings: list[ReplicaReading], value: float, current: int
) -> None:
    reading = Reading(value, replicas=tuple(readings))
    counted = Counted(current, 0.5, TEN_PERCENT)
    found = propose(MetricTarget(metric, target), reading, counted, BEGIN)
    assert 0 <= found.want <= 2**31 - 1
    assert 0 <= found.raw <= 2**31 - 1
    assert 0 <= found.value < math.inf
    assert found == propose(MetricTarget(metric, target), reading, counted, BEGIN)


@given(st.floats(0.01, 100), some_replicas, st.integers(1, 20))
def test_assumptions_never_turn_the_direction_around(
    target: float, readings: list[ReplicaReading], current: int
) -> None:
    measured = [r for r in readings if r.value is not None and math.isfinite(r.value)]
    found = propose(
        MetricTarget("queue", target), Reading(replicas=tuple(readings)), Counted(current, 1.0, TEN_PERCENT), BEGIN
    )
    if found.missing is None and len(measured) < len(readings):
        mean = found.value / len(measured)
        assert found.want <= current or mean > target
        assert found.want >= current or mean < target

"""What happens to requests and replicas in a simulation, where every number can be worked out by hand."""

import pytest

from support.simulation import ReadyCounts, conditions, observe, trace
from upwell.runtime.simulate.observed import EPOCH, Fate


def test_the_first_request_waits_for_its_replica_to_start_and_is_the_only_cold_one() -> None:
    observed = observe(conditions(trace([3.25, 5.0], 0.1), start=0.5))
    assert observed.dispatched[0] - observed.arrived[0] == pytest.approx(0.5)
    assert observed.finished[0] - observed.arrived[0] == pytest.approx(0.6)
    assert observed.finished[1] - observed.arrived[1] == pytest.approx(0.1)
    assert observed.cold.tolist() == [1, 0]
    assert list(observed.fate) == [Fate.ANSWERED, Fate.ANSWERED]


def test_a_request_at_the_very_end_of_the_trace_is_answered_too() -> None:
    observed = observe(conditions(trace([0.0, 5.0], 0.1, seconds=5.0), start=0.5))
    assert observed.finished[1] - observed.arrived[1] == pytest.approx(0.1)


def test_a_request_beyond_the_ready_capacity_starts_replicas_at_once() -> None:
    observed = observe(conditions(trace([0.0, *[10.5] * 250], 2.0), start=0.5))
    raised = [(when - EPOCH, replicas) for when, _, replicas in observed.scales]
    assert raised[0] == (0.0, 1)
    assert {when for when, _ in raised[1:4]} == {10.5}, "no tick was waited for"
    assert max(replicas for _, replicas in raised) == 4, "250 in flight at 70 a replica"


def test_the_last_replica_goes_after_the_stable_window_and_the_grace_period() -> None:
    given = conditions(trace([1.0], 0.1, seconds=60.0), stable_window="10s", scale_to_zero_grace_period="6s")
    gone = observe(given).replicas.gone
    assert len(gone) == 1
    assert 1 + 10 + 6 <= gone[0] - EPOCH <= 1 + 10 + 6 + 3 * 2


def test_requests_queue_for_the_slots_of_one_replica_in_the_order_in_which_they_came() -> None:
    given = conditions(trace([0.0, 0.0, 0.0, 0.0], 1.0), start=0.5, max_scale="1")
    observed = observe(given, {"container-concurrency": "1"})
    assert [time - EPOCH for time in observed.dispatched] == pytest.approx([0.5, 1.5, 2.5, 3.5])


def test_a_full_queue_refuses() -> None:
    given = conditions(trace([1.0] * 10_003, 0.001), start=5.0, max_scale="1")
    observed = observe(given, {"container-concurrency": "1"})
    assert list(observed.fate[:10_000]) == [Fate.ANSWERED] * 10_000
    assert list(observed.fate[10_000:]) == [Fate.QUEUE_FULL] * 3
    assert [observed.finished[index] - EPOCH for index in (10_000, 10_002)] == [1.0, 1.0]


def test_who_waits_longer_than_the_timeout_is_answered_then() -> None:
    given = conditions(trace([0.0, 0.2, 0.3], [299.0, 1.5, 1.0]), start=0.5, max_scale="1")
    observed = observe(given, {"container-concurrency": "1"})
    assert list(observed.fate) == [Fate.ANSWERED, Fate.ANSWERED, Fate.TIMED_OUT_WAITING]
    assert observed.finished[2] - EPOCH == pytest.approx(300.3)
    assert observed.dispatched[2] == 0


def test_waiting_counts_towards_the_time_that_a_request_has_but_for_a_margin() -> None:
    given = conditions(trace([0.0, 5.0], 299.0), start=0.5, max_scale="1")
    observed = observe(given, {"container-concurrency": "1"})
    assert list(observed.fate) == [Fate.ANSWERED, Fate.TIMED_OUT_AT_REPLICA]
    assert observed.finished[1] - EPOCH == pytest.approx(5.0 + 300.0 + 5.0)


def test_a_request_that_takes_too_long_at_its_replica_is_cut() -> None:
    observed = observe(conditions(trace([0.0], 1000.0), start=0.5))
    assert list(observed.fate) == [Fate.TIMED_OUT_AT_REPLICA]
    assert observed.finished[0] - observed.dispatched[0] == pytest.approx(300.0)


def test_a_replica_that_is_ended_finishes_what_it_has() -> None:
    times = [0.0, *[2.0] * 200]
    service = [0.1, 60.0, *[0.1] * 199]
    given = conditions(trace(times, service, seconds=120.0), stable_window="6s", max_scale_down_rate="10")
    observed = observe(given)
    assert set(observed.fate) == {Fate.ANSWERED}
    replicas = observed.replicas
    lived = [gone - drained for gone, drained in zip(replicas.gone, replicas.drained, strict=True)]
    busy = max(replicas.busy)
    assert busy == pytest.approx(60.0, abs=1.0)
    assert all(seconds >= 0 for seconds in lived)
    assert max(replicas.gone) - EPOCH >= 62.0


def test_min_scale_keeps_replicas_from_the_beginning_to_the_end() -> None:
    observed = observe(conditions(trace([30.0], 0.1, seconds=120.0), start=0.5, min_scale="3"))
    counts = ReadyCounts.of(observed)
    assert counts.at(3.0) == 3
    assert set(counts.between(3.0, 119.0)) == {3}
    assert observed.cold.tolist() == [0]


def test_a_sudden_crowd_makes_a_panic_that_ends_a_stable_window_later() -> None:
    times = [*(0.1 * index for index in range(200)), *[20.0] * 400]
    observed = observe(conditions(trace(times, 0.5, seconds=100.0), stable_window="20s"))
    ((begin, end),) = observed.panics
    assert begin - EPOCH == pytest.approx(20.0)
    assert 20.0 < end - begin <= 20.0 + 10.0


def test_the_same_seed_gives_the_same_and_another_seed_another_choice_of_replicas() -> None:
    crowd = trace([0.01 * index for index in range(3000)], 2.0)

    def busy(seed: int) -> list[float]:
        return observe(conditions(crowd, seed=seed)).replicas.busy.tolist()

    assert busy(1) == busy(1)
    assert busy(1) != busy(2)


def test_functions_do_not_disturb_each_other() -> None:
    times = [0.05 * index for index in range(400)]
    alone = observe(conditions(trace(times, 0.3, seconds=30.0)))
    both = trace([*times, *times], 0.3, seconds=30.0, functions=[*[0] * 400, *[1] * 400])
    together = observe(conditions(both))
    of_first = [scale for scale in together.scales if scale[1] == 0]
    assert of_first == alone.scales

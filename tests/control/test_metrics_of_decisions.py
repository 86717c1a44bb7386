"""The metrics page says what decisions say, in Knative's names where Knative has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from upwell.autoscaler.annotations import HPA
from upwell.autoscaler.decision import Missing, Reading, ReplicaReading
from upwell.autoscaler.engine import Engine
from upwell.autoscaler.metric_targets import MetricTarget
from upwell.autoscaler.spec import RevisionSettings
from upwell.autoscaler.stats import Report
from upwell.runtime.cluster.interface import Replica, ReplicaState
from upwell.runtime.control.metrics import AutoscalerCollector
from upwell.runtime.control.signals import SignalBoard, Wanted
from upwell.runtime.http.connect import Endpoint
from upwell.runtime.testing.clock import FakeClock

NOW = 1_700_000_000.0
BUSY, IDLE, USING, QUEUED = "default/busy-1", "default/idle-1", "default/using-1", "default/queued-1"
QUERY = 'sum(queue{name="a\\b"})'


def replicas_of(revision: str) -> Sequence[Replica]:
    states = {
        BUSY: [ReplicaState.READY, ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING],
        USING: [ReplicaState.READY],
        QUEUED: [ReplicaState.READY],
    }
    return [Replica("r", revision, Endpoint(path="/s"), state, NOW) for state in states.get(revision, [])]


def ticked() -> Engine:
    board = SignalBoard(FakeClock())
    board.tell(Wanted(USING, "cpu"), Reading(2.4, None, (ReplicaReading("r", 2.4),)), 60.0)
    board.tell(Wanted(QUEUED, "prometheus", QUERY), Reading(40.0), 60.0)
    engine = Engine(signals=board)
    kpa = RevisionSettings(target_value=10.0, total_value=10.0)
    cpu, memory = MetricTarget("cpu", 80.0), MetricTarget("memory", 100.0)
    settings = {
        BUSY: kpa,
        IDLE: kpa,
        USING: RevisionSettings(autoscaler_class=HPA, metric="cpu", metrics=(cpu, memory)),
        QUEUED: RevisionSettings(metrics=(MetricTarget("prometheus", 10.0, QUERY),)),
    }
    for revision, each in settings.items():
        ready = sum(replica.state is ReplicaState.READY for replica in replicas_of(revision))
        engine.set_revision(revision, each, NOW - 10, ready, initialized=True)
    engine.observe(BUSY, ready=2, starting=1)
    for second in range(8):
        began = NOW - 9 + second
        for revision, load in ((BUSY, 65.0), (QUEUED, 0.0)):
            engine.report(Report(revision, "gateway", second, began, began + 1, load, 0.0, 5, 0), began + 1)
    engine.tick(NOW)
    return engine


Samples = Mapping[tuple[str, ...], float]


def samples(engine: Engine) -> Samples:
    """Values by name of the metric, revision, and the further label if there is one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AutoscalerCollector(engine, replicas_of))
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            namespace, revision = labels.pop("k8s_namespace_name", ""), labels.pop("kn_revision_name", "")
            key = (sample.name, f"{namespace}/{revision}" if namespace else "", *labels.values())
            assert key not in found, "a series is there twice"
            found[key] = sample.value
    return found


@pytest.fixture(scope="module")
def page() -> Samples:
    return samples(ticked())


def test_replicas_are_counted_as_knative_counts_pods(page: Samples) -> None:
    assert page["kn_revision_pods_count", BUSY] == 2
    assert page["kn_revision_pods_pending_count", BUSY] == 1
    assert page["kn_revision_pods_terminating_count", BUSY] == 1
    assert page["kn_revision_pods_not_ready_count", BUSY] == 2, "those that end are not ready either"
    assert page["kn_revision_pods_count", IDLE] == 0


def test_demand_is_told_with_its_windows_and_what_they_ask_for(page: Samples) -> None:
    assert page["kn_revision_concurrency_stable", BUSY] == 65
    assert page["kn_revision_concurrency_panic", BUSY] == 65
    assert page["kn_revision_concurrency_target", BUSY] == 10
    assert page["upwell_revision_want", BUSY, "stable"] == 7
    assert page["upwell_revision_want", BUSY, "panic"] == 7
    assert page["kn_revision_pods_desired", BUSY] == 7
    assert page["kn_revision_pods_requested", BUSY] == 7
    assert page["kn_revision_panic_mode", BUSY] == 1
    assert page["kn_revision_capacity_excess", BUSY] == 2 * 10 - 211 - 65
    assert page["upwell_revision_activators", BUSY] == 3
    assert page["upwell_revision_demand_known", BUSY] == 1


def test_while_demand_is_unknown_what_is_held_is_told(page: Samples) -> None:
    assert page["upwell_revision_demand_known", IDLE] == 0
    assert page["kn_revision_pods_desired", IDLE] == 0
    assert page["kn_revision_pods_requested", IDLE] == 0


def test_further_metrics_are_told_each_with_what_it_asks_for(page: Samples) -> None:
    assert page["upwell_revision_signal_value", USING, "cpu"] == 240
    assert page["upwell_revision_signal_target", USING, "cpu"] == 80
    assert page["upwell_revision_signal_want", USING, "cpu"] == 3
    assert page["upwell_revision_signal_missing", USING, "cpu"] == 0
    assert page["upwell_revision_signal_binding", USING, "cpu"] == 1
    assert page["upwell_revision_signal_missing", USING, "memory"] == 1
    assert page["upwell_revision_signal_binding", USING, "memory"] == 0
    label = f"prometheus({QUERY})"
    assert page["upwell_revision_signal_value", QUEUED, label] == 40
    assert page["upwell_revision_signal_want", QUEUED, label] == 4
    assert page["upwell_revision_signal_binding", QUEUED, label] == 1
    assert page["upwell_revision_signal_want", QUEUED, "concurrency"] == 0


def test_only_requests_make_names_of_metrics(page: Samples) -> None:
    names = {name for name, *_ in page if name.startswith("kn_revision_")}
    assert not [name for name in names if "cpu" in name or "prometheus" in name]
    assert ("kn_revision_concurrency_stable", USING) not in page


def test_totals_are_there_before_the_first_revision() -> None:
    found = samples(Engine())
    assert found["upwell_autoscaler_revisions", ""] == 0
    assert found["upwell_autoscaler_ticks_total", ""] == 0
    assert found["upwell_autoscaler_reports_total", "", "accepted"] == 0


def test_a_missing_reading_is_what_the_board_gives_for_what_it_does_not_know() -> None:
    reading = SignalBoard(FakeClock()).read(USING, MetricTarget("memory", 1.0), NOW)
    assert reading.missing is Missing.METRICS_FAILED

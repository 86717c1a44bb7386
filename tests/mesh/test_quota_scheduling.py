"""A QuotaSchedulingPolicy as the gateway meets it: who passes, who waits for how long, who is refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.quota import GUEST, HEADER, SUBSCRIBER, priorities, quota_of, request_with, spec_of
from upwell.functions.api.scheduling import Selector
from upwell.runtime.mesh import quota_scheduling
from upwell.runtime.mesh.policy import Cause, Refusal
from upwell.runtime.mesh.quota_scheduling import QuotaScheduling, WorkloadCounters
from upwell.runtime.mesh.request import PolicyRequest
from upwell.runtime.testing.clock import FakeClock
from upwell.runtime.testing.loop import run_fake
from upwell.runtime.timers import TimerWheel

POLICY = "QuotaSchedulingPolicy istio-system/quotascheduling"


class Gate:
    """Asks a policy and notes what becomes of each request, and when."""

    def __init__(self, manifest: dict[str, Any], resolution: float = 0.001) -> None:
        loop = asyncio.get_running_loop()
        self.clock = FakeClock(loop=loop)
        self.wheel = TimerWheel(loop, resolution)
        self.quota = QuotaScheduling(POLICY, spec_of(manifest), self.wheel, self.clock, lambda: 0.5)
        self.start = self.clock.monotonic()
        self.told: list[tuple[str, float, Refusal | None]] = []

    def ask(self, name: str, request: PolicyRequest) -> Callable[[], None] | None:
        """Returns how to give up, for a request that waits."""
        answer = self.quota.admit(request, self.clock.monotonic())
        if answer is None or isinstance(answer, Refusal):
            self._note(name, answer)
            return None
        answer.wait(lambda refusal: self._note(name, refusal))
        return answer.cancel

    def _note(self, name: str, refusal: Refusal | None) -> None:
        self.told.append((name, round(self.clock.monotonic() - self.start, 3), refusal))

    @property
    def passed(self) -> list[tuple[str, float]]:
        return [(name, at) for name, at, refusal in self.told if refusal is None]

    @property
    def refused(self) -> list[tuple[str, float, str]]:
        return [(name, at, refusal.reason) for name, at, refusal in self.told if refusal is not None]


def run(manifest: dict[str, Any], play: Callable[[Gate], Awaitable[None]], resolution: float = 0.001) -> Gate:
    async def main() -> Gate:
        gate = Gate(manifest, resolution)
        await play(gate)
        return gate

    return run_fake(main())


def small(**parameters: Any) -> dict[str, Any]:
    """One token a second, and none saved up but one."""
    manifest = priorities(**parameters)
    quota_of(manifest).update(bucket_capacity=1, fill_amount=1)
    return manifest


def test_beyond_the_quota_requests_wait_for_tokens_and_nobody_is_refused() -> None:
    async def play(gate: Gate) -> None:
        for number in range(13):
            gate.ask(str(number), request_with(GUEST))
        await asyncio.sleep(5)

    gate = run(priorities(), play)
    assert gate.passed[:10] == [(str(number), 0.0) for number in range(10)]
    assert [name for name, _ in gate.passed[10:]] == ["10", "11", "12"]
    assert [at for _, at in gate.passed[10:]] == pytest.approx([0.1, 0.2, 0.3], abs=0.002)
    assert gate.refused == []
    assert gate.wheel.statistics().pending == 0


def test_under_three_times_overload_subscribers_get_four_times_what_guests_get() -> None:
    manifest = priorities(default_workload_parameters={"queue_timeout": "2s"})
    for workload in quota_of(manifest)["scheduler"]["workloads"]:
        workload["parameters"]["queue_timeout"] = "2s"

    async def play(gate: Gate) -> None:
        for _ in range(60 * 15):
            gate.ask("guest", request_with(GUEST))
            gate.ask("subscriber", request_with(SUBSCRIBER))
            await asyncio.sleep(1 / 15)

    gate = run(manifest, play)
    counted = Counter(name for name, at in gate.passed if at > 5)
    assert counted["subscriber"] / counted["guest"] == pytest.approx(4, rel=0.1)
    assert sum(counted.values()) == pytest.approx(550, abs=5), "every token is used"


def test_a_coarse_wheel_does_not_cost_throughput() -> None:
    manifest = priorities()
    quota_of(manifest).update(bucket_capacity=1, fill_amount=200)

    async def play(gate: Gate) -> None:
        for _ in range(1001):
            gate.ask("guest", request_with(GUEST))
        await asyncio.sleep(5.05)

    gate = run(manifest, play, resolution=0.05)
    assert len(gate.passed) == 1001


def test_a_refusal_tells_the_policy_and_the_status_asked_for() -> None:
    manifest = small(
        default_workload_parameters={"queue_timeout": "0s"}, denied_response_status_code="TooManyRequests"
    )

    async def play(gate: Gate) -> None:
        for _ in range(2):
            gate.ask("x", request_with())

    ((_, _, passed), (_, _, refusal)) = run(manifest, play).told
    assert passed is None
    assert refusal == Refusal(
        POLICY, Cause.LIMITED, "RL", "quota exceeded: its tokens would come after its deadline", 429
    )


def test_unless_asked_otherwise_a_refusal_is_a_503() -> None:
    async def play(gate: Gate) -> None:
        for _ in range(2):
            gate.ask("x", request_with())

    (_, (_, _, refusal)) = run(small(default_workload_parameters={"queue_timeout": "0s"}), play).told
    assert refusal is not None
    assert refusal.status == 503


def test_a_request_waits_a_minute_at_the_most() -> None:
    async def play(gate: Gate) -> None:
        for number in range(70):
            gate.ask(str(number), request_with())
        await asyncio.sleep(100)

    gate = run(small(), play)
    assert len(gate.passed) == 61
    assert {at for _, at, _ in gate.refused} == {60.0}


def test_a_callers_deadline_counts_less_the_margin() -> None:
    async def play(gate: Gate) -> None:
        gate.ask("token", request_with())
        gate.ask("short", request_with(deadline=gate.start + 1.005))
        gate.ask("long", request_with(deadline=gate.start + 1.02))
        gate.ask("third", request_with(deadline=gate.start + 1.5))
        await asyncio.sleep(5)

    gate = run(small(), play)
    assert [name for name, _ in gate.passed] == ["token", "long"]
    assert [(name, at) for name, at, _ in gate.refused] == [("short", 0.0), ("third", 1.0)]


def test_a_workload_may_wait_less_than_others() -> None:
    manifest = small()
    quota_of(manifest)["scheduler"]["workloads"][0]["parameters"]["queue_timeout"] = "1.5s"

    async def play(gate: Gate) -> None:
        for name, fields in (("guest", GUEST), ("subscriber", SUBSCRIBER)):
            for number in range(3):
                gate.ask(f"{name} {number}", request_with(fields))
        await asyncio.sleep(10)

    gate = run(manifest, play)
    assert [name for name, _ in gate.passed] == [
        "guest 0",
        "guest 1",
        "subscriber 0",
        "subscriber 1",
        "subscriber 2",
    ]
    assert [(name, at) for name, at, _ in gate.refused] == [("guest 2", 1.5)]


def test_whoever_gives_up_leaves_no_trace() -> None:
    async def play(gate: Gate) -> None:
        gate.ask("token", request_with())
        ways_out = [gate.ask(str(number), request_with()) for number in range(100)]
        assert gate.quota.waiting == 100
        await asyncio.sleep(0.5)
        for way_out in reversed(ways_out):
            assert way_out is not None
            way_out()
            way_out()
        assert gate.quota.waiting == 0
        assert gate.wheel.statistics().pending == 0
        await asyncio.sleep(0.5)
        gate.ask("later", request_with())

    gate = run(small(), play)
    assert [name for name, _ in gate.passed] == ["token", "later"]
    assert gate.refused == []
    counters = gate.quota.counters["default"]
    assert (counters.cancelled, counters.waiting) == (100, 0)
    assert counters.queue_seconds == pytest.approx(50)


def test_the_next_one_gets_the_turn_of_whoever_gave_up() -> None:
    async def play(gate: Gate) -> None:
        gate.ask("token", request_with())
        way_out = gate.ask("leaving", request_with())
        gate.ask("staying", request_with())
        assert way_out is not None
        await asyncio.sleep(0.9)
        way_out()
        await asyncio.sleep(1)

    assert run(small(), play).passed == [("token", 0.0), ("staying", pytest.approx(1.0, abs=0.002))]


def test_one_that_waits_is_told_although_it_asks_late_and_never_from_within() -> None:
    async def play(gate: Gate) -> None:
        gate.ask("token", request_with())
        hold = gate.quota.admit(request_with(), gate.clock.monotonic())
        assert hold is not None
        assert not isinstance(hold, Refusal)
        await asyncio.sleep(2)
        told: list[Refusal | None] = []
        hold.wait(told.append)
        assert told == []
        await asyncio.sleep(0.1)
        assert told == [None]

    run(small(), play)


def test_one_whose_caller_fails_does_not_keep_the_others_from_their_answer() -> None:
    manifest = priorities()
    quota_of(manifest).update(bucket_capacity=10, fill_amount=1000)

    async def play(gate: Gate) -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        for number in range(20):
            answer = gate.quota.admit(request_with(), gate.clock.monotonic())
            if answer is not None and not isinstance(answer, Refusal):
                answer.wait(fail if number % 2 else lambda refusal: gate.told.append(("", 0.0, refusal)))
        await asyncio.sleep(1)
        assert len(failures) == 5
        assert len(gate.told) == 5

    def fail(_: Refusal | None) -> None:
        raise RuntimeError("a caller's fault")

    run(manifest, play, resolution=0.05)


def test_one_bucket_for_each_value_of_a_label_and_none_without() -> None:
    manifest = small()
    quota_of(manifest)["rate_limiter"]["limit_by_label_key"] = f"{HEADER}user_type"

    async def play(gate: Gate) -> None:
        for name, fields in (("guest", [GUEST]), ("subscriber", [SUBSCRIBER]), ("nobody", [])):
            for _ in range(2):
                gate.ask(name, request_with(*fields))
        assert gate.quota.waiting == 2
        await asyncio.sleep(2)

    gate = run(manifest, play)
    assert Counter(name for name, at in gate.passed if at == 0) == {"guest": 1, "subscriber": 1, "nobody": 2}
    assert {at for _, at in gate.passed if at > 0} == {1.0}
    assert gate.quota.counters["default"].incoming_tokens == 0


def test_buckets_that_nobody_uses_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_scheduling, "MOST_BUCKETS", 50)
    manifest = small()
    quota_of(manifest)["rate_limiter"] |= {"limit_by_label_key": f"{HEADER}x", "max_idle_time": "10s"}

    async def play(gate: Gate) -> None:
        for _ in range(2):
            gate.ask("kept", request_with((b"x", b"kept")))
        for number in range(200):
            gate.ask("x", request_with((b"x", b"%d" % number)))
        assert gate.quota.buckets == 50
        await asyncio.sleep(0.9)
        assert gate.quota.waiting == 1
        await asyncio.sleep(20)
        for number in range(10):
            gate.ask("x", request_with((b"x", b"new %d" % number)))
        assert gate.quota.buckets <= 11

    assert ("kept", 1.0) in run(manifest, play).passed


def test_as_many_wait_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_scheduling, "MOST_WAITING", 3)

    async def play(gate: Gate) -> None:
        for number in range(5):
            gate.ask(str(number), request_with())

    gate = run(small(), play)
    assert gate.refused == [("4", 0.0, "quota exceeded: too many requests wait: 3")]


def test_labels_of_a_request_may_overrule_its_workload() -> None:
    manifest = small(
        tokens_label_key=f"{HEADER}tokens",
        priority_label_key=f"{HEADER}priority",
        workload_label_key=f"{HEADER}workload",
        fairness_label_key=f"{HEADER}user",
    )

    async def play(gate: Gate) -> None:
        def of(*fields: tuple[bytes, bytes]) -> tuple[str, float, float, str]:
            name, priority, flow, cost = gate.quota.workloads.of(request_with(*fields))
            return name, priority, cost, flow.workload

        assert of() == ("default", 1.0, 1.0, "default")
        assert of(GUEST) == ("guest", 50.0, 1.0, "guest")
        assert of(GUEST, (b"workload", b"mine")) == ("mine", 50.0, 1.0, "mine")
        assert of(GUEST, (b"tokens", b"2.5"), (b"priority", b"7")) == ("guest", 7.0, 2.5, "guest")
        assert of((b"tokens", b"0")) == ("default", 1.0, 0.0, "default")
        for odd in (b"-1", b"nan", b"inf", b"1_0", b"x", b""):
            assert of(GUEST, (b"tokens", odd), (b"priority", odd)) == ("guest", 50.0, 1.0, "guest")
        assert of(GUEST, (b"priority", b"0")) == ("guest", 50.0, 1.0, "guest")
        assert of((b"priority", b"1e-300"))[1] == 1e-6
        queues = {gate.quota.workloads.of(request_with((b"user", b"%d" % n))).flow.queue for n in range(2000)}
        assert queues == set(range(256))
        assert gate.quota.workloads.of(request_with()).flow.queue == -1

    run(manifest, play)


def test_fairness_keeps_one_caller_from_taking_anothers_turns() -> None:
    manifest = small(fairness_label_key=f"{HEADER}user")

    async def play(gate: Gate) -> None:
        for _ in range(41):
            gate.ask("many", request_with((b"user", b"many")))
        for _ in range(5):
            gate.ask("few", request_with((b"user", b"few")))
        await asyncio.sleep(20)

    assert Counter(name for name, _ in run(manifest, play).passed)["few"] == 5


def test_only_requests_that_a_places_selectors_mean_are_counted() -> None:
    selector = Selector.model_validate({"label_matcher": {"match_labels": {f"{HEADER}user_type": "guest"}}})

    async def play(gate: Gate) -> None:
        now = gate.clock.monotonic()
        placed = gate.quota.at([selector])
        assert [placed.admit(request_with(SUBSCRIBER), now) for _ in range(3)] == [None] * 3
        assert placed.admit(request_with(GUEST), now) is None
        assert placed.admit(request_with(GUEST), now) is not None
        assert gate.quota.waiting == 1, "the quota is one"
        assert gate.quota.at([selector, Selector()]).admit(request_with(SUBSCRIBER), now) is not None

    run(small(), play)


def test_a_policy_tells_whether_it_has_to_know_the_events_in_a_body() -> None:
    manifest = small(fairness_label_key=f"{HEADER}ce_source")

    async def play(gate: Gate) -> None:
        assert gate.quota.reads_events
        event = request_with(events=[{"source": "/a"}])
        assert gate.quota.workloads.of(event).flow.queue >= 0
        assert not QuotaScheduling(POLICY, spec_of(small()), gate.wheel, gate.clock, lambda: 0.5).reads_events

    run(manifest, play)


def test_counters_tell_what_became_of_tokens() -> None:
    manifest = small()
    quota_of(manifest)["scheduler"]["workloads"][0]["parameters"] |= {"tokens": 2, "queue_timeout": "2.5s"}

    async def play(gate: Gate) -> None:
        for _ in range(3):
            gate.ask("", request_with(GUEST))
        assert gate.quota.counters["guest"].waiting == 3
        await asyncio.sleep(10)

    gate = run(manifest, play)
    assert set(gate.quota.counters) == {"guest", "subscriber", "default"}
    counters = gate.quota.counters["guest"]
    assert counters.queue_seconds == pytest.approx(3.0, abs=0.01)
    counters.queue_seconds = 0.0
    assert counters == WorkloadCounters(6, 2, 4, released=1, refused=2)


def test_names_from_labels_are_counted_apart_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_scheduling, "MOST_COUNTED", 5)
    manifest = small(workload_label_key=f"{HEADER}x")

    async def play(gate: Gate) -> None:
        for number in range(10):
            gate.ask("", request_with((b"x", b"%d" % number)))

    gate = run(manifest, play)
    assert set(gate.quota.counters) == {"guest", "subscriber", "default", "0", "1", "other"}
    assert gate.quota.counters["other"].incoming_tokens == 8

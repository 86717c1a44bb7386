"""Gradual rollouts: step for step what Knative does, and what holds for all of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.control.rollout import (
    NANOSECONDS,
    Assigned,
    ConfigurationRollout,
    Rollout,
    Stepped,
    read_rollout_duration,
    rollout_seconds,
    step,
    wanted_rollout,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "routes.json.gz"
START = 1_700_000_000 * NANOSECONDS


def recorded() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    return data


def latest(number: int, percent: int = 100, configuration: str = "app", tag: str = "") -> Assigned:
    return Assigned(f"{configuration}-{number:05d}", configuration, percent, True, tag)


def pinned(number: int, percent: int, tag: str = "") -> Assigned:
    return latest(number, percent, tag=tag)._replace(latest=False)


def shares(rollout: Rollout, tag: str = "", configuration: str = "app") -> list[tuple[str, int]]:
    found = rollout.of(tag, configuration)
    return [] if found is None else [(each.revision[-1], each.percent) for each in found.revisions]


class Route:
    """A Route whose Ingress takes `ready_seconds` to be Ready with the first percent."""

    def __init__(self, traffic: list[Assigned], duration: float = 120, ready_seconds: float = 1) -> None:
        self.now = START
        self.duration = duration
        self.ready_nanoseconds = round(ready_seconds * NANOSECONDS)
        self.state = wanted_rollout(traffic)
        self.seen = [self.state]

    def look(self, traffic: list[Assigned], *, became_ready: bool = False) -> Stepped:
        previous = Rollout.from_json(self.state.to_json())
        assert previous in (self.state, None), "the annotation holds the whole state, or contradicts itself"
        found = step(previous, wanted_rollout(traffic), self.now, self.duration, became_ready=became_ready)
        self.state = found.rollout
        self.seen.append(self.state)
        return found

    def roll_out(self, traffic: list[Assigned], steps: int = 1000) -> list[Stepped]:
        """The looks from the beginning of a rollout to its end, or the first few of its steps."""
        looks = [self.look(traffic)]
        self.now += self.ready_nanoseconds
        looks.append(self.look(traffic, became_ready=True))
        while (at := looks[-1].next_step_at) is not None and steps:
            self.now = at
            looks.append(self.look(traffic))
            steps -= 1
        return looks


def test_every_recorded_step_of_knative_is_ours() -> None:
    data = recorded()
    for row in data["steps"]:
        case = dict(zip(data["columns"], row, strict=True))
        wanted = wanted_rollout(Assigned(*target) for target in case["traffic"])
        found = step(
            Rollout.from_json(case["before"]),
            wanted,
            case["now"],
            case["duration"],
            became_ready=case["became_ready"],
        )
        assert (found.rollout.to_json(), found.next_step_at or 0) == (case["after"], case["next_step_at"]), case


def test_the_annotation_is_spelled_as_knative_spells_it() -> None:
    route = Route([latest(1)], duration=20, ready_seconds=1.5)
    assert route.state.to_json() == (
        '{"configurations":[{"configurationName":"app","percent":100,'
        '"revisions":[{"revisionName":"app-00001","percent":100}],"stepParams":{}}]}'
    )
    route.roll_out([latest(2, tag="new")], steps=0)
    assert route.state.to_json() == (
        '{"configurations":[{"configurationName":"app","percent":100,'
        '"revisions":[{"revisionName":"app-00001","percent":99},{"revisionName":"app-00002","percent":1}],'
        '"stepParams":{"starttime":1700000000000000000,"nextStepTime":1700000003500000000,'
        '"stepDuration":2000000000,"stepSize":11}},'
        '{"configurationName":"app","tag":"new","percent":100,'
        '"revisions":[{"revisionName":"app-00002","percent":100}],"stepParams":{}}]}'
    )
    assert Rollout().to_json() == "{}"


def test_a_new_revision_starts_with_one_percent_and_ends_with_all_in_the_given_time() -> None:
    route = Route([latest(1)], duration=120, ready_seconds=0.4)
    looks = route.roll_out([latest(2)])
    assert looks[0].next_step_at is None, "nothing is known to do before the Ingress is Ready"
    assert shares(looks[0].rollout) == shares(looks[1].rollout) == [("1", 99), ("2", 1)]
    assert len(looks) == 2 + 99, "one percent a step, since there is time for that"
    assert shares(route.state) == [("2", 100)]
    assert route.state.is_done
    assert (route.now - START) / NANOSECONDS == pytest.approx(120, abs=1)


def test_an_ingress_that_takes_long_to_be_ready_makes_few_large_steps() -> None:
    route = Route([latest(1)], duration=100, ready_seconds=24.5)
    looks = route.roll_out([latest(2)])
    assert [shares(look.rollout)[-1][1] for look in looks] == [1, 1, 34, 67, 100]
    slow = Route([latest(1)], duration=10, ready_seconds=60)
    assert [shares(look.rollout)[-1][1] for look in slow.roll_out([latest(2)])] == [1, 1, 100]


def test_without_a_duration_everything_has_its_share_at_once() -> None:
    for duration in (0, 0.9):
        route = Route([latest(1)], duration=duration)
        assert route.look([latest(2)]) == Stepped(wanted_rollout([latest(2)]), None)


def test_a_third_revision_during_a_rollout_joins_and_starts_the_time_anew() -> None:
    route = Route([latest(1)], duration=20)
    route.roll_out([latest(2)], steps=4)
    before = dict(shares(route.state))
    again = route.look([latest(3)])
    assert shares(again.rollout) == [("1", before["1"]), ("2", before["2"] - 1), ("3", 1)]
    assert again.next_step_at is None
    looks = route.roll_out([latest(3)])
    assert shares(looks[2].rollout)[0] == ("1", before["1"]), "the newest of the old loses first"
    assert shares(route.state) == [("3", 100)]


def test_a_revision_that_has_but_its_first_percent_goes_when_the_next_comes() -> None:
    route = Route([latest(1)])
    route.look([latest(2)])
    assert shares(route.look([latest(3)]).rollout) == [("1", 99), ("3", 1)]


def test_percent_that_is_raised_goes_to_the_latest_and_lowered_is_taken_from_the_oldest() -> None:
    route = Route([latest(1, 60), pinned(9, 40)], duration=12)
    route.roll_out([latest(2, 60), pinned(9, 40)], steps=3)
    assert shares(route.state) == [("1", 44), ("2", 16)]
    assert shares(route.look([latest(2, 70), pinned(9, 30)]).rollout) == [("1", 44), ("2", 26)]
    assert shares(route.look([latest(2, 50), pinned(9, 50)]).rollout) == [("1", 24), ("2", 26)]
    assert shares(route.look([latest(2, 10), pinned(9, 90)]).rollout) == [("2", 10)]


def test_percent_that_falls_below_the_size_of_a_step_ends_the_rollout_with_the_next_look() -> None:
    route = Route([latest(1)], duration=4)
    route.roll_out([latest(2)], steps=1)
    assert shares(route.state) == [("1", 66), ("2", 34)]
    lowered = [latest(2, 30), pinned(9, 70)]
    assert shares(route.look([latest(2, 50), pinned(9, 50)]).rollout) == [("1", 16), ("2", 34)]
    assert shares(route.look(lowered).rollout) == [("2", 30)]
    again = Route([latest(1)], duration=4)
    again.roll_out([latest(2)], steps=0)
    assert shares(again.look(lowered).rollout) == [("1", 29), ("2", 1)]
    assert Rollout.from_json(again.state.to_json()) is None
    assert again.look(lowered) == Stepped(wanted_rollout(lowered), None)


@pytest.mark.parametrize("percent", [0, 1])
def test_one_percent_or_none_does_not_roll_out(percent: int) -> None:
    route = Route([latest(1, percent), pinned(9, 100 - percent)])
    found = route.look([latest(2, percent), pinned(9, 100 - percent)])
    assert shares(found.rollout) == [("2", 1)] * percent


def test_targets_that_name_a_revision_do_not_roll_out() -> None:
    route = Route([pinned(1, 100)])
    assert route.state == Rollout()
    assert route.look([pinned(2, 100)]) == Stepped(Rollout(), None)


def test_a_tag_rolls_out_by_itself_and_a_new_one_has_all_at_once() -> None:
    route = Route([latest(1, tag="current")], duration=20)
    found = route.look([latest(2, tag="current")])
    assert shares(found.rollout) == shares(found.rollout, "current") == [("1", 99), ("2", 1)]
    found = route.look([latest(2, tag="other")])
    assert shares(found.rollout, "other") == [("2", 100)]
    assert shares(found.rollout, "current") == []


def test_of_a_revision_that_is_named_twice_the_first_target_decides() -> None:
    assert wanted_rollout([pinned(2, 40), latest(2, 60)]) == Rollout()
    (one,) = wanted_rollout([latest(2, 60), pinned(2, 40)]).configurations
    assert one.percent == 100


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "1",
        '{"configurations":[1]}',
        '{"configurations":"app"}',
        '{"configurations":[{"configurationName":7,"percent":0}]}',
        '{"configurations":[{"configurationName":"app","percent":100,"revisions":[]}]}',
        '{"configurations":[{"configurationName":"app","percent":101,"revisions":'
        '[{"revisionName":"a","percent":101}]}]}',
        '{"configurations":[{"configurationName":"app","percent":10,"revisions":'
        '[{"revisionName":"a","percent":-5},{"revisionName":"b","percent":15}]}]}',
        '{"configurations":[{"configurationName":"app","percent":10,"revisions":'
        '[{"revisionName":"a","percent":10}],"stepParams":{"stepSize":11}}]}',
        '{"configurations":[{"configurationName":"app","percent":10.0,"revisions":'
        '[{"revisionName":"a","percent":10}]}]}',
    ],
)
def test_an_annotation_that_contradicts_itself_counts_as_none(text: str | None) -> None:
    assert Rollout.from_json(text) is None


def test_a_route_says_for_itself_how_long_a_rollout_takes() -> None:
    assert rollout_seconds({}, 7) == 7
    assert rollout_seconds({"serving.knative.dev/rollout-duration": "2m"}, 7) == 120
    assert rollout_seconds({"serving.knative.dev/rolloutDuration": "90s"}, 7) == 90
    assert rollout_seconds({"serving.knative.dev/rollout-duration": "0s"}, 7) == 7
    assert rollout_seconds({"serving.knative.dev/rollout-duration": "soon"}, 7) == 7
    for text in ("soon", "-1s", "1.5s", "100ms"):
        with pytest.raises(ValueError, match=r"duration|negative|whole"):
            read_rollout_duration(text)


TARGETS = st.one_of(
    st.just([latest(0)]),
    st.integers(0, 100).map(lambda percent: [latest(0, percent), pinned(9, 100 - percent)]),
    st.integers(0, 100).map(lambda percent: [latest(0, percent, tag="a"), latest(0, 100 - percent, "web")]),
)


def numbered(targets: list[Assigned], generation: int) -> list[Assigned]:
    return [
        each._replace(revision=f"{each.configuration}-{generation:05d}") if each.latest else each
        for each in targets
    ]


def holds(configuration: ConfigurationRollout) -> bool:
    parts = [each.percent for each in configuration.revisions]
    return sum(parts) == configuration.percent and min(parts) > 0


@given(
    st.lists(st.tuples(TARGETS, st.integers(0, 3), st.integers(0, 40), st.booleans()), min_size=1, max_size=20),
    st.integers(1, 300),
)
def test_whatever_changes_the_shares_add_up_and_the_last_is_what_is_wanted(
    events: list[tuple[list[Assigned], int, int, bool]], duration: int
) -> None:
    route = Route(numbered(events[0][0], 1), duration)
    generation = 1
    for targets, newer, seconds, ready in events:
        generation += newer
        route.now += seconds * NANOSECONDS
        traffic = numbered(targets, generation)
        route.look(traffic, became_ready=ready)
        assert all(map(holds, route.state.configurations))
        wanted = {(each.tag, each.configuration): each for each in wanted_rollout(traffic).configurations}
        for each in route.state.configurations:
            goal = wanted[each.tag, each.configuration]
            assert (each.percent, each.revisions[-1].revision) == (goal.percent, goal.revisions[-1].revision)


@given(st.integers(2, 100), st.integers(1, 4000), st.floats(0, 500), st.integers(0, 5), st.integers(1, 12))
def test_a_rollout_moves_one_way_and_ends(
    percent: int, duration: int, ready_seconds: float, joins: int, early: int
) -> None:
    rest = [pinned(99, 100 - percent)] if percent < 100 else []
    route = Route([latest(1, percent), *rest], duration, ready_seconds)
    for number in range(2, joins + 2):
        route.roll_out([latest(number, percent), *rest], steps=early)
    looks = route.roll_out([latest(joins + 2, percent), *rest])
    given_to_latest = [found.revisions[-1].percent for look in looks if (found := look.rollout.of("", "app"))]
    assert given_to_latest == sorted(given_to_latest)
    assert given_to_latest[-1] == percent
    assert route.state == wanted_rollout([latest(joins + 2, percent), *rest])
    assert looks[-1].next_step_at is None
    assert len(looks) <= percent + 2

"""What `upwell explain` tells of a revision, beside an autoscaler that decided what the test says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.api import KeptPoints, Served, served, service
from support.command import Done, Shell
from upwell.autoscaler import bounds, kpa
from upwell.autoscaler.bounds import RequestPath
from upwell.autoscaler.decision import Activity, Decision, Inputs, Missing, SignalWant, State, Status
from upwell.autoscaler.spec import RevisionSettings
from upwell.runtime.api.explanation import Explained, ReplicaStart, decision_from_json, decision_to_json
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.interface import Manifest, Replica, ReplicaState
from upwell.runtime.http.connect import Endpoint

NOON = 1_700_049_600.0
"""Unix seconds of a 12:00:00 in UTC."""
KEY = "default/hello-00001"
SETTINGS = RevisionSettings()
ACTIVE = Activity(Status.ACTIVE, NOON - 1000, True)


@pytest.fixture
def interface(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, AtNoon()) as running:
        yield running


class AtNoon(SystemClock):
    """It is five seconds past noon."""

    @staticmethod
    def now() -> float:
        return NOON + 5


def revision(name: str, of: str = "hello", **status: Any) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"serving.knative.dev/service": of},
        },
        "spec": {"containers": [{"image": "x"}]},
        "status": status,
    }


def store(interface: Served, *names: str, **shares: int) -> None:
    """The Service hello with these revisions; `shares` by the last digits of their names."""
    hello = service("hello")
    traffic = [
        {"revisionName": f"hello-{name.removeprefix('r')}", "percent": share} for name, share in shares.items()
    ]
    hello["status"] = {"latestCreatedRevisionName": names[-1], "traffic": traffic}
    for each in (hello, *map(revision, names)):
        interface.run(_keep(interface, each))


async def _keep(interface: Served, manifest: Manifest) -> None:
    objects = interface.platform.objects
    stored = await objects.create(manifest)
    await objects.update_status({**stored, "status": manifest["status"]})


def decided(
    inputs: Inputs,
    settings: RevisionSettings = SETTINGS,
    *,
    state: State | None = None,
    activity: Activity = ACTIVE,
    now: float = NOON,
) -> Decision:
    """As the engine decides."""
    wished = kpa.decide(settings, state or kpa.start(settings, 0, now), inputs, now)
    return bounds.bound(settings, activity, wished, RequestPath(), now, revision=KEY)


def explained(interface: Served, *arguments: str, given: tuple[Decision, ...] = ()) -> Done:
    if given:
        interface.platform.autoscaler.decisions[KEY] = list(given)
    shell = Shell(interface.directory, interface.directory)
    return shell.run("explain", *arguments, environment={"TZ": "UTC"})


def lines(interface: Served, *given: Decision, settings: RevisionSettings = SETTINGS) -> list[str]:
    """What is printed of hello when these were the decisions."""
    store(interface, "hello-00001", r00001=100)
    return lines_of(interface, *given, settings=settings)


def lines_of(interface: Served, *given: Decision, settings: RevisionSettings = SETTINGS) -> list[str]:
    """The same once hello is stored."""
    interface.platform.autoscaler.under[KEY] = settings
    done = explained(interface, "hello", given=given)
    assert done.code == 0, done.err
    return done.out.splitlines()


def section(printed: list[str], title: str) -> list[str]:
    """The indented lines below a title."""
    begin = printed.index(title) + 1
    end = next((at for at in range(begin, len(printed)) if not printed[at].startswith("  ")), len(printed))
    return [line.strip() for line in printed[begin:end]]


def panicking(held: int, since: float) -> State:
    return State(panic_since=since, max_panic_replicas=held, delay=None, excess_burst_capacity=0)


def test_the_first_sentence_says_how_many_and_why(interface: Served) -> None:
    points = KeptPoints()
    for at, ready in ((NOON - 60, 2), (NOON - 40, 3), (NOON - 2, 3)):
        points.add(at, 140.0, 3, ready)
    interface.platform.autoscaler.points[KEY] = points
    interface.platform.autoscaler.started[KEY] = [ReplicaStart(NOON - each, 0.01) for each in (90, 41, 20)]
    printed = lines(interface, decided(Inputs(140.0, 140.0, 3), state=panicking(3, NOON - 30)))
    assert printed[0] == (
        "hello-00001 has 3 replicas since 11:59:19: 140 requests in flight on average over 60 s ask for 2,"
        " panic holds 3 until 12:00:30."
    )


def test_then_whether_requests_pass_the_activator_in_numbers(interface: Served) -> None:
    printed = lines(interface, decided(Inputs(140.0, 140.0, 3)))
    assert printed[1:3] == [
        "Requests pass the gateway, which is the activator too, at any load.",
        "Excess burst capacity is 3 x 100 - 211 - 140 = -51: behind another ingress it would stay in the path"
        " (6 activators) until 4 replicas are ready.",
    ]
    ample = lines_of(interface, decided(Inputs(140.0, 140.0, 4)))
    assert ample[2] == (
        "Excess burst capacity is 4 x 100 - 211 - 140 = 49: behind another ingress it would leave the path."
    )


def size_of(picture: Path) -> tuple[int, int]:
    """Of a PNG, by its header."""
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data[12:16] == b"IHDR"
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def test_a_plot_is_written_of_each_revision_and_the_text_as_ever(interface: Served) -> None:
    points = KeptPoints()
    for ago in range(100, 0, -2):
        points.add(NOON - ago, 140.0 + ago, 3, 2 + ago % 3)
    interface.platform.autoscaler.points[KEY] = points
    printed = lines(interface, decided(Inputs(140.0, 140.0, 3), state=panicking(3, NOON - 30)))
    done = explained(interface, "hello", "--plot", "hello.png")
    assert (done.out.splitlines(), done.err) == (printed, "hello.png written\n")
    width, height = size_of(interface.directory / "hello.png")
    assert width >= 800
    assert height >= 400
    done = explained(interface, "hello", "--plot", "nowhere/hello.png")
    assert (done.code, done.err) == (2, "Error: nowhere/hello.png: cannot be written: No such file or directory\n")
    assert "write FILE.png" in explained(interface, "hello", "--plot", "hello.svg").err


def test_describe_begins_as_explain_does(interface: Served) -> None:
    first = lines(interface, decided(Inputs(140.0, 140.0, 3)))[0]
    shell = Shell(interface.directory, interface.directory)
    for kind, name in (("ksvc", "hello"), ("rev", "hello-00001")):
        assert section(shell.fine("describe", kind, name).splitlines(), "Scaling:") == [first]


@pytest.mark.parametrize(
    ("burst", "said"),
    [
        (-1.0, "stay in the path always: target-burst-capacity is -1"),
        (0.0, "leave the path: target-burst-capacity"),
    ],
)
def test_a_burst_capacity_that_decides_alone_is_named(interface: Served, burst: float, said: str) -> None:
    settings = replace(SETTINGS, target_burst_capacity=burst)
    assert said in lines(interface, decided(Inputs(140.0, 140.0, 3), settings), settings=settings)[2]


def test_then_what_would_change_it(interface: Served) -> None:
    printed = lines(interface, decided(Inputs(100.0, 100.0, 2)))
    assert section(printed, "What would change it:") == [
        "one more    above 140 requests in flight over 60 s",
        "one fewer   at or below 70 requests in flight over 60 s",
        "panic       above 210 requests in flight over 6 s, to 4",
    ]


def test_limits_stand_where_no_load_changes_anything(interface: Served) -> None:
    settings = replace(SETTINGS, min_scale=2, max_scale=2)
    changes = section(lines(interface, decided(Inputs(100.0, 100.0, 2), settings), settings=settings), CHANGES)
    assert changes[:2] == ["no more    max-scale is 2", "no fewer   min-scale is 2"]


def test_the_end_of_panic_and_the_time_of_zero_are_told(interface: Served) -> None:
    panic = decided(Inputs(140.0, 140.0, 3), state=panicking(3, NOON - 30))
    assert section(lines(interface, panic), CHANGES)[-1] == (
        "at 12:00:30   panic is over, which leaves 2 if the load stays as it is"
    )
    idle = decided(Inputs(0.0, 0.0, 1))
    done = explained(interface, "hello", given=(idle,))
    assert done.out.startswith(
        "hello-00001 has 1 replica: no request was there for 60 s,"
        " the grace period before zero begins and lasts until 12:00:30.\n"
    )


CHANGES = "What would change it:"


def test_at_zero_the_first_request_is_what_changes_it(interface: Served) -> None:
    inactive = Activity(Status.INACTIVE, NOON - 1000, True)
    printed = lines(interface, decided(Inputs(0.0, 0.0, 0, missing=Missing.NO_DATA), activity=inactive))
    assert printed[0] == "hello-00001 has no replica: nobody asks for it."
    assert section(printed, CHANGES) == ["one more   with the first request"]


def test_decisions_are_a_table_with_reasons(interface: Served) -> None:
    first = decided(Inputs(300.0, 600.0, 2), now=NOON - 20)
    then = decided(Inputs(100.0, 90.0, 4), state=first.state, now=NOON)
    assert section(lines(interface, first, then), "Decisions:") == [
        "TIME       LOAD 60s   LOAD 6s   READY   WANT   SCALE   REASON",
        "11:59:40   300        600       2       9      9       600 over 6 s ask for 9,"
        " 2 or more times what is ready: panic, which holds 9",
        "12:00:00   100        90        4       9      9       panic holds 9",
    ]


def test_each_of_several_metrics_is_listed_and_the_binding_one_named(interface: Served) -> None:
    signals = (
        SignalWant("concurrency", 100.0, 70.0, 2, 2),
        SignalWant("cpu", 300.0, 80.0, 4, 4),
        SignalWant("backlog", 0.0, 10.0, 0, 0, Missing.METRICS_FAILED),
    )
    decision = decided(Inputs(100.0, 100.0, 2))._replace(
        signals=signals, binding="cpu", desired=4, undelayed=4, scale=4, wanted=4
    )
    printed = lines(interface, decision)
    assert printed[0] == "hello-00001 has 2 replicas: of 3 metrics cpu asks for the most, 4."
    assert [line.split(maxsplit=4) for line in section(printed, "Metrics:")] == [
        ["METRIC", "IN", "ALL", "A", "REPLICA   WANT   MORE ABOVE"],
        ["concurrency", "100", "70", "2"],
        ["cpu", "300", "80", "4", "320          asks for the most"],
        ["backlog", "unknown", "10", "40", "not measured yet, or not readable"],
    ]


def test_starts_are_told_with_how_long_they_took(interface: Served) -> None:
    interface.platform.autoscaler.started[KEY] = [ReplicaStart(NOON - 5, each) for each in (0.007, 0.009, 0.03)]
    printed = lines(interface, decided(Inputs(140.0, 140.0, 3)))
    assert "Starts:  3 replicas were started, in 9 ms at the median, 30 ms at most" in printed


def test_one_start_has_no_median(interface: Served) -> None:
    interface.platform.autoscaler.started[KEY] = [ReplicaStart(NOON - 5, 0.007)]
    assert "Starts:  1 replica was started, in 7 ms" in lines(interface, decided(Inputs(140.0, 140.0, 3)))


def test_json_and_yaml_are_one_record_with_times_in_utc(interface: Served) -> None:
    decision = decided(Inputs(140.0, 140.0, 3), state=panicking(3, NOON - 30))
    points = KeptPoints()
    points.add(NOON - 2, float("nan"), -1, 3)
    interface.platform.autoscaler.points[KEY] = points
    store(interface, "hello-00001", r00001=100)
    told = json.loads(explained(interface, "hello", "-o", "json", given=(decision,)).out)
    (one,) = told["revisions"]
    assert (one["service"], one["revision"], one["percent"]) == ("hello", "hello-00001", 100)
    assert one["latest"]["at"] == "2023-11-15T12:00:00.000Z"
    assert one["latest"]["sentence"] == decision.sentence()
    assert one["outlook"]["moments"] == [{"at": "2023-11-15T12:00:30.000Z", "turn": "panic-ends", "scale": 2}]
    assert one["path"]["mode"] == "Proxy"
    assert one["series"] == [{"at": "2023-11-15T11:59:58.000Z", "load": None, "want": None, "ready": 3}]
    assert one["settings"]["target_value"] == 70.0
    again = yaml.safe_load(explained(interface, "hello", "-o", "yaml").out)
    assert again["revisions"] == told["revisions"]
    explanation = Explained.from_json(told).revisions[0]
    assert explanation.latest.outcome == decision.outcome
    assert json.loads(json.dumps(explanation.to_json())) == one


@pytest.mark.parametrize(
    "inputs",
    [
        Inputs(140.0, 300.0, 3),
        Inputs(0.0, 0.0, 1),
        Inputs(0.0, 0.0, 0, missing=Missing.NO_DATA),
        Inputs(1.0, 1.0, 0, 1, None, 7.0),
    ],
)
def test_a_decision_comes_back_from_json_as_it_was(inputs: Inputs) -> None:
    decision = decided(inputs)._replace(signals=(SignalWant("cpu", 1.0, 2.0, 1, 1, Missing.METRICS_FAILED),))
    assert decision_from_json(json.loads(json.dumps(decision_to_json(decision)))) == decision


def test_what_is_older_than_asked_for_is_left_out_but_for_what_held_then(interface: Served) -> None:
    interface.platform.autoscaler.started[KEY] = [ReplicaStart(NOON - 600, 0.01)]
    old = [decided(Inputs(70.0 * each, 0.0, each), now=NOON - 600 + each) for each in range(1, 30)]
    printed = lines(interface, *old)
    assert len(section(printed, "Decisions (9 earlier ones with --since):")) == 21
    told = json.loads(explained(interface, "hello", "--since", "1m", "-o", "json").out)["revisions"][0]
    assert (len(told["history"]), told["starts"]) == (1, [])
    assert explained(interface, "hello", "--since", "1000000h").code == 2
    assert len(section(explained(interface, "hello", "--since", "7000h").out.splitlines(), "Decisions:")) == 30


def test_a_services_revisions_with_traffic_or_replicas_are_told_and_no_other(interface: Served) -> None:
    store(interface, "hello-00001", "hello-00002", "hello-00003", "hello-00004", r00003=100, r00004=0)
    for number in range(1, 5):
        interface.platform.autoscaler.decisions[f"default/hello-0000{number}"] = [decided(Inputs(70.0, 70.0, 1))]
    replica = Replica("x", "default/hello-00002", Endpoint(path="/x"), ReplicaState.READY, 0.0)
    interface.platform.running["default/hello-00002"] = (replica,)
    told = json.loads(explained(interface, "hello", "-o", "json").out)
    assert [(each["revision"], each["percent"]) for each in told["revisions"]] == [
        ("hello-00002", 0),
        ("hello-00003", 100),
    ]
    for named in ("hello-00001", "rev/hello-00001", "revision/hello-00001"):
        told = json.loads(explained(interface, named, "-o", "json").out)
        assert [each["revision"] for each in told["revisions"]] == ["hello-00001"]
    assert explained(interface, "ksvc/hello-00001").code == 1


def test_what_is_not_there_and_what_was_not_decided_are_errors(interface: Served) -> None:
    done = explained(interface, "nobody")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: service.serving.knative.dev/nobody: not found in the namespace default\n")
    store(interface, "hello-00001")
    condition = {"type": "Ready", "status": "False", "reason": "Failed", "message": "main.py raises"}
    interface.run(_condition(interface, condition))
    done = explained(interface, "hello")
    assert done.code == 1
    assert done.err == "Error: service.serving.knative.dev/hello: nothing was decided yet\n  main.py raises\n"


async def _condition(interface: Served, condition: dict[str, str]) -> None:
    manifest = revision("hello-00001", conditions=[condition])
    await interface.platform.objects.update_status(manifest)


def test_a_poke_that_panics_says_so_once(interface: Served) -> None:
    poked = decided(Inputs(0.0, 0.0, 1, in_flight=300.0))
    printed = lines(interface, poked)
    said = "300 at once ask for 5, 2 or more times what is ready: panic, which holds 5"
    assert printed[0] == f"hello-00001 had 1 replica at 12:00:00 and was given 5: {said}."
    assert section(printed, "Decisions:")[1].split(maxsplit=6)[-1] == said


def test_a_poke_that_raises_from_zero_names_what_waits(interface: Served) -> None:
    poked = decided(Inputs(0.0, 0.0, 0, missing=Missing.NO_DATA, in_flight=1.0))
    printed = lines(interface, poked)
    assert printed[0] == "hello-00001 had no replica at 12:00:00 and was given 1: 1 request at once asks for 1."
    assert section(printed, "Decisions:")[1].endswith("   1 at once asks for 1")


@pytest.mark.parametrize(("load", "said"), [(100.0, "the load over 60 s asks for 2"), (0.0, "60 s asks for none")])
def test_the_window_that_decided_is_named_with_what_it_asks_for(interface: Served, load: float, said: str) -> None:
    printed = lines(interface, decided(Inputs(load, load, 2)))
    assert said in section(printed, "Decisions:")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deploy/hello"], "deploy has no replicas of its own"),
        (["rev/"], "a name is missing"),
        (["hello", "--since", "soon"], "'soon' is no duration"),
        (["hello", "-o", "table"], "is not one of"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_what_names_nothing_is_refused(interface: Served, arguments: list[str], said: str) -> None:
    done = explained(interface, *arguments)
    assert done.code == 2
    assert said in done.err


def test_without_a_platform_the_socket_is_named(tmp_path: Path) -> None:
    done = Shell(tmp_path, tmp_path).run("explain", "hello")
    assert done.code == 1
    assert "no platform is running" in done.err

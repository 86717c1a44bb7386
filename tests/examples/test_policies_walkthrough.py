"""What examples/policies has its readers type, on a platform of `upwell up`, under load of `upwell load`.

How long things last (a minute, twenty seconds) is held under a fake clock in tests/gateway; here it is shortened,
or left out.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command import PATIENCE, Shell, Started

EXAMPLES = Path(__file__).parents[2] / "examples"
POLICIES = EXAMPLES / "policies"
ARTICLE = Path(__file__).parents[1] / "golden" / "article"
HTTPBIN = f"example.com/httpbin={EXAMPLES / 'httpbin'}"
HELLOWORLD = f"registry.{{REGION-ID}}.aliyuncs.com/knative-sample/helloworld-go={EXAMPLES / 'helloworld'}"


class Walk:
    """A platform with the functions of the walk-throughs, and its reader."""

    def __init__(self, shell: Shell, up: Started) -> None:
        self.shell = shell
        self.up = up

    def ask(self, name: str, path: str = "/", method: str = "GET") -> tuple[int, dict[str, str], str]:
        """Status, header and body of one request."""
        host = name if "." in name else f"{name}.default.localhost"
        connection = http.client.HTTPConnection("127.0.0.1", self.up.port(), timeout=PATIENCE)
        try:
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def statuses(self, count: int, name: str, path: str = "/") -> list[int]:
        return [self.ask(name, path)[0] for _ in range(count)]

    def load(self, *arguments: str) -> Any:
        """The report of a run of `upwell load`."""
        return json.loads(self.shell.fine("load", *arguments, "--json"))

    def outcomes(self, *arguments: str) -> dict[str, int]:
        """What became of the requests of a run."""
        found = self.load(*arguments)["total"]["outcomes"]
        return {outcome: count for outcome, count in found.items() if count}

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"did not come about: {what}"

    def replicas(self, service: str, count: int) -> dict[str, str]:
        """The zones of a service's replicas by their processes, once there are so many."""
        found: dict[str, str] = {}

        def are_there() -> bool:
            described = self.shell.fine("describe", "ksvc", service)
            rows = re.findall(r"^  \S+ +ready +(\d+) +(\S*/\S+)?", described, re.MULTILINE)
            found.update(rows)
            return len(rows) == count

        self.until(are_there, f"{count} replicas of {service}")
        return found


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    directory = tmp_path_factory.mktemp("walk")
    shell = Shell(directory, directory / "data")
    with shell.up("--zone", "cn-hangzhou/a") as up:
        shell.fine("apply", "-f", f"{POLICIES / 'httpbin.yaml'}", "--image", HTTPBIN, "--wait")
        shell.fine("apply", "-f", f"{POLICIES / 'helloworld-go.yaml'}", "--image", HELLOWORLD, "--wait")
        walk = Walk(shell, up)
        walk.replicas("httpbin", 2)
        yield walk


@pytest.fixture
def walk(walked: Walk) -> Iterator[Walk]:
    """The platform, on which no policy is left afterwards."""
    yield walked
    for kind in ("asmlocalratelimiters", "asmcircuitbreakers", "quotaschedulingpolicies", "dr"):
        for line in walked.shell.fine("get", kind, "-A").splitlines()[1:]:
            namespace, name = line.split()[:2]
            walked.shell.fine("delete", kind, name, "-n", namespace)


def applied(walk: Walk, name: str, **changed: Any) -> str:
    """Apply one of the manifests, a printed one at that where nothing is changed, and say where it acts."""
    manifest = yaml.safe_load((POLICIES / name).read_text())
    text = (POLICIES / name).read_text()
    if changed:
        change(manifest["spec"], changed)
        text = yaml.safe_dump(manifest)
    walk.shell.fine("apply", "-f", "-", given=text)
    kind, of = manifest["kind"].lower(), manifest["metadata"]

    def acts() -> bool:
        got = json.loads(walk.shell.fine("get", kind, of["name"], "-n", of["namespace"], "-o", "json"))
        conditions = got.get("status", {}).get("conditions", [])
        told.extend(each["message"] for each in conditions if each["status"] == "True")
        return bool(told)

    told: list[str] = []
    walk.until(acts, f"{name} in force")
    return told[0]


def change(spec: dict[str, Any], changed: dict[str, Any]) -> None:
    """Put values in the place of others, wherever these names stand."""
    for name, value in spec.items():
        if name in changed:
            spec[name] = changed[name]
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                change(each, changed)


def test_the_manifests_are_the_articles_as_printed() -> None:
    for printed in ARTICLE.glob("*.yaml"):
        assert (POLICIES / printed.name).read_text() == printed.read_text()


def test_every_manifest_is_told_of_and_can_be_applied(walk: Walk) -> None:
    page = (POLICIES / "README.md").read_text()
    names = sorted(each.name for each in POLICIES.glob("*.yaml"))
    assert [name for name in names if name not in page] == []
    for name in names:
        walk.shell.fine("apply", "--dry-run", "-f", f"{POLICIES / name}")


# ASMLocalRateLimiter


def test_of_a_burst_sixty_pass_the_limiter_as_printed(walk: Walk) -> None:
    assert applied(walk, "asm-local-rate-limiter.yaml") == "acts on route default/helloworld-go"
    began = time.monotonic()
    report = walk.load("helloworld-go", "-qps", "0", "-c", "20", "-n", "400")
    seconds = time.monotonic() - began
    outcomes = report["total"]["outcomes"]
    assert outcomes["succeeded"] + outcomes["limited"] == 400
    assert 60 <= outcomes["succeeded"] <= 61 + 30 * seconds, "30 a second come back"
    assert set(report["total"]["statuses"]) == {"200", "429"}


def test_the_sixty_first_is_refused_where_no_token_comes_back_meanwhile(walk: Walk) -> None:
    applied(walk, "asm-local-rate-limiter.yaml", fill_interval={"seconds": 3600})
    assert walk.outcomes("helloworld-go", "-qps", "0", "-c", "8", "-n", "60") == {"succeeded": 60}
    status, headers, body = walk.ask("helloworld-go")
    assert (status, body) == (429, "local_rate_limited")
    assert headers["x-local-rate-limit"] == "true"


def test_with_two_a_minute_the_third_is_refused_at_any_host_of_the_route(walk: Walk) -> None:
    applied(walk, "two-a-minute.yaml")
    assert walk.ask("helloworld-go")[0] == 200
    assert walk.ask("helloworld-go.default.example.com")[0] == 200
    assert walk.statuses(2, "helloworld-go") == [429, 429]
    assert walk.ask("helloworld-go.default.svc.cluster.local")[0] == 429
    assert walk.ask("httpbin", "/status/200")[0] == 200
    walk.shell.fine("delete", "-f", f"{POLICIES / 'two-a-minute.yaml'}")
    assert walk.statuses(5, "helloworld-go") == [200] * 5


# ASMCircuitBreaker


def test_after_the_sixth_slow_request_the_breaker_answers_as_it_is_told_to(walk: Walk) -> None:
    assert applied(walk, "asm-circuit-breaker.yaml") == "acts on revision default/httpbin-00001"
    slow = walk.outcomes("httpbin", "--path", "/delay/0.6", "-qps", "0", "-c", "5", "-n", "5")
    assert slow == {"succeeded": 5}
    assert walk.ask("httpbin", "/delay/0.6")[0] == 200, "five are allowed"
    status, headers, body = walk.ask("httpbin", "/status/200")
    assert (status, body) == (498, "delay break!")
    assert headers["x-envoy-overload"] == "true"
    assert walk.outcomes("httpbin", "--path", "/get", "-qps", "0", "-c", "2", "-n", "20") == {"broken": 20}
    walk.up.wait_for(r"498 .* broken  ASMCircuitBreaker knative-serving/httpbin-delay")


# DestinationRule


def test_three_503_of_one_replica_put_it_out_and_the_other_answers_until_it_is_back(walk: Walk) -> None:
    acts = applied(walk, "destination-rule.yaml", baseEjectionTime="2s", interval="1s")
    assert acts == "acts on revision default/httpbin-00001"
    failing = walk.ask("httpbin", "/fail/503/600", "POST")[2].split()[0]
    seen: list[str] = []
    walk.until(lambda: note(walk, seen).count(f"{failing} fails") == 3, "three 503 of one replica")
    walk.up.wait_for("replica ejected .*3 502, 503 or 504 in a row .*DestinationRule default/httpbin")
    assert failing not in note(walk, [])[0], "it is out from the third on"
    walk.until(lambda: f"{failing} fails" in note(walk, seen)[-1:], "the replica is back")
    walk.shell.fine("delete", "-f", f"{POLICIES / 'destination-rule.yaml'}")
    walk.until(lambda: walk.ask("httpbin", "/fail/503/0", "POST")[2].split()[0] == failing, "it is well again")


def note(walk: Walk, seen: list[str]) -> list[str]:
    """With who answered now."""
    seen.append(walk.ask("httpbin", "/replica")[2].strip())
    return seen


def test_when_every_replica_is_out_as_the_rule_allows_none_is_healthy(walk: Walk) -> None:
    applied(walk, "destination-rule.yaml")
    answers: list[str] = []
    walk.until(lambda: "no healthy upstream" in failed(walk, answers), "two replicas that are out")
    assert len(answers) >= 7, "three 503 of each"
    assert walk.ask("httpbin", "/status/200")[0] == 503


def failed(walk: Walk, answers: list[str]) -> list[str]:
    """With the answer to a request that fails."""
    status, _, body = walk.ask("httpbin", "/status/503")
    assert status == 503
    answers.append(body)
    return answers


# QuotaSchedulingPolicy


def test_subscribers_get_the_larger_share_and_wait_less_with_both_classes_at_once(walk: Walk) -> None:
    assert applied(walk, "quota-scheduling-policy.yaml") == "acts on revision default/httpbin-00001"
    classes = [f"--class={each}:user_type: {each}" for each in ("guest", "subscriber")]
    report = walk.load("httpbin", "--path", "/status/200", "-qps", "0", "-c", "8", "-t", "8s", *classes)
    found = {each["name"]: each for each in report["classes"]}
    guest, subscriber = found["guest"], found["subscriber"]
    assert set(report["total"]["statuses"]) == {"200"}, "they wait, and are not refused"
    assert subscriber["outcomes"]["succeeded"] >= 2 * guest["outcomes"]["succeeded"]
    assert subscriber["durations"]["all"]["p50"] < guest["durations"]["all"]["p50"] / 2


# Zones


def test_requests_stay_in_the_gateways_zone_until_its_replicas_are_full(walk: Walk) -> None:
    walk.shell.fine("apply", "-f", f"{POLICIES / 'zoned.yaml'}", "--image", HTTPBIN, "--wait")
    zones = walk.replicas("zoned", 4)
    assert Counter(zones.values()) == {"cn-hangzhou/a": 2, "cn-hangzhou/b": 2}

    def zone_that_answers() -> str:
        return zones[walk.ask("zoned", "/replica")[2].strip()]

    assert {zone_that_answers() for _ in range(20)} == {"cn-hangzhou/a"}
    with walk.shell.started("load", "zoned", "--path", "/delay/1", "-qps", "0", "-c", "8", "-t", "0"):
        walk.until(lambda: zone_that_answers() == "cn-hangzhou/b", "a request that is spilled over")
    walk.shell.fine("delete", "-f", f"{POLICIES / 'zoned.yaml'}")


# KIngress


def test_the_printed_ingress_serves_on_its_own_and_is_what_a_service_gets(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "data")
    printed = yaml.safe_load((POLICIES / "kingress.yaml").read_text())
    with shell.up() as up:
        walk = Walk(shell, up)
        host = "httpbin.default.example.com"
        shell.fine("apply", "-f", f"{POLICIES / 'configuration.yaml'}", "--image", HTTPBIN, "--wait")
        assert walk.ask(host, "/status/200")[0] == 404
        shell.fine("apply", "-f", f"{POLICIES / 'kingress.yaml'}")
        walk.until(lambda: walk.ask(host, "/status/200")[0] == 200, "the Ingress is served")
        headers = json.loads(walk.ask(host, "/headers")[2])["headers"]
        assert headers["knative-serving-revision"] == "httpbin-00001"
        shell.fine("delete", "king", "httpbin")
        shell.fine("delete", "cfg", "httpbin")
        shell.fine("apply", "-f", f"{POLICIES / 'knative-config.yaml'}")
        shell.fine("apply", "-f", f"{POLICIES / 'httpbin.yaml'}", "--image", HTTPBIN, "--wait")
        made = json.loads(shell.fine("get", "king", "httpbin", "-o", "json"))
        assert made["spec"] == printed["spec"]
        assert made["metadata"]["labels"] == printed["metadata"]["labels"]
        assert printed["metadata"]["annotations"].items() - made["metadata"]["annotations"].items() == {
            (f"serving.knative.dev/{name}", "1281429699509011-1724722123") for name in ("creator", "lastModifier")
        }

"""What is written for a service is read as it was meant: by the gateway and by the host."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.cluster import revision
from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.source import deployed_revision, function_source
from upwell.runtime.control.conditions import READY, StatusCondition, holds_for_generation, merge
from upwell.runtime.control.domains import Domains
from upwell.runtime.control.ingress import (
    programmed_status,
    routed_revisions,
    virtual_hosts,
)
from upwell.runtime.control.kingress import IngressSettings, route_ingress
from upwell.runtime.control.resources import deployment, deployment_name
from upwell.runtime.control.rollout import Assigned, wanted_rollout
from upwell.runtime.gateway.routes import RouteTable
from upwell.runtime.host.source import FunctionSource

BUNDLES = Path("/bundles")


def service(name: str = "hello") -> Manifest:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "generation": 1}
    return {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": metadata, "spec": {}}


def service_ingress(service: Manifest, revision: str, domains: Sequence[str]) -> Manifest:
    """The Ingress of a service whose traffic is one revision's."""
    traffic = [Assigned(revision, service["metadata"]["name"], 100, True, "")]
    settings = IngressSettings(Domains((), tuple(domains)))
    return route_ingress(service, traffic, settings, wanted_rollout(traffic))


# Revision → Deployment → what the host runs


def test_what_a_revision_declares_reaches_the_host() -> None:
    declared = revision(
        containerConcurrency=3, timeoutSeconds=20, responseStartTimeoutSeconds=5, idleTimeoutSeconds=7
    )
    declared["spec"]["containers"][0]["env"] = [{"name": "TARGET", "value": "World"}]
    source = function_source(deployment(declared, "hello"), BUNDLES, show_errors=True)
    assert source.revision == "default/hello-00001"
    assert isinstance(source, FunctionSource)
    assert (source.root, source.module, source.attribute) == (BUNDLES / "bundle-of-hello-00001", "main", "greet")
    assert source.origin == Path("/home/me/hello")
    assert source.container_concurrency == 3
    assert source.timeout_seconds == 20
    assert (source.response_start_timeout_seconds, source.idle_timeout_seconds) == (5, 7)
    assert source.environment["TARGET"] == "World"
    assert source.environment["K_REVISION"] == "hello-00001"
    assert source.environment["K_SERVICE"] == source.environment["K_CONFIGURATION"] == "hello"
    assert source.show_errors


def test_what_a_revision_leaves_out_is_the_hosts_default() -> None:
    source = function_source(deployment(revision(), "hello"), BUNDLES, show_errors=False)
    assert (source.container_concurrency, source.timeout_seconds) == (0, 300)
    assert (source.response_start_timeout_seconds, source.idle_timeout_seconds) == (0, 0)


def test_what_the_platform_says_wins_over_a_variable_of_the_same_name() -> None:
    declared = revision(timeoutSeconds=20)
    declared["spec"]["containers"][0]["env"] = [{"name": "REVISION_TIMEOUT_SECONDS", "value": "never"}]
    assert function_source(deployment(declared, "hello"), BUNDLES, show_errors=False).timeout_seconds == 20
    del declared["spec"]["timeoutSeconds"]
    with pytest.raises(InvalidFunction, match="never"):
        function_source(deployment(declared, "hello"), BUNDLES, show_errors=False)


@given(st.from_regex(r"[a-z][-a-z0-9]{0,61}[a-z0-9]", fullmatch=True))
def test_a_deployment_names_its_revision_however_long_that_is(name: str) -> None:
    manifest = deployment(revision(name), "hello")
    assert len(manifest["metadata"]["name"]) <= 63
    assert manifest["metadata"]["name"] == deployment_name(name)
    assert deployed_revision(manifest) == f"default/{name}"


@pytest.mark.parametrize("annotations", [{}, {"upwell.dev/source": "{"}, {"upwell.dev/source": '{"x": 1}'}])
def test_a_source_that_is_not_told_or_told_wrongly_is_refused(annotations: dict[str, str]) -> None:
    declared = revision()
    declared["metadata"]["annotations"] = annotations
    with pytest.raises(InvalidFunction):
        function_source(deployment(declared, "hello"), BUNDLES, show_errors=False)


def test_a_deployment_without_the_label_runs_nothing() -> None:
    manifest = deployment(revision(), "hello")
    manifest["metadata"]["labels"] = {}
    with pytest.raises(InvalidFunction, match="label"):
        function_source(manifest, BUNDLES, show_errors=False)


# Ingress → routes


def test_a_service_answers_to_its_names_inside_and_on_every_domain() -> None:
    ingress = service_ingress(service(), "hello-00002", ("localhost", "example.com"))
    inside, outside = virtual_hosts(ingress)
    assert (inside.name, inside.is_private, inside.tag) == ("default/hello", True, "")
    assert inside.hosts == ("hello.default", "hello.default.svc", "hello.default.svc.cluster.local")
    assert (outside.name, outside.is_private, outside.redirects) == ("default/hello", False, False)
    assert outside.hosts == ("hello.default.localhost", "hello.default.example.com")
    assert inside.only is not None
    assert inside.rules == outside.rules
    (target,) = inside.only.targets
    assert (target.revision, target.percent) == ("default/hello-00002", 100)
    assert dict(target.headers) == {
        b"knative-serving-namespace": b"default",
        b"knative-serving-revision": b"hello-00002",
    }
    assert routed_revisions(ingress) == ["hello-00002"]


def test_rules_that_split_differently_are_virtual_hosts_of_their_own() -> None:
    ingress = service_ingress(service(), "hello-00001", ("localhost", "example.com"))
    split: dict[str, Any] = ingress["spec"]["rules"][2]["http"]["paths"][0]["splits"][0]
    first = split | {"serviceName": "hello-00002", "percent": 30}
    ingress["spec"]["rules"][2]["http"]["paths"] = [{"splits": [first, split | {"percent": 70}]}]
    table = RouteTable(virtual_hosts(ingress))
    assert len(table.vhosts) == 3
    shared = table.find(b"hello.default.example.com")
    assert shared is not None
    assert shared.only is not None
    assert [(t.revision, t.percent) for t in shared.only.targets] == [
        ("default/hello-00002", 30),
        ("default/hello-00001", 70),
    ]
    assert routed_revisions(ingress) == ["hello-00001", "hello-00002"]


def test_what_answers_outside_answers_below_localhost_too_once_for_each_tag() -> None:
    article = yaml.safe_load((Path(__file__).parents[1] / "golden" / "article" / "kingress.yaml").read_text())
    first = "httpbin.default.localhost"
    inside, outside = virtual_hosts(article, ("localhost",))
    assert outside.hosts == ("httpbin.default.example.com", first)
    assert first not in inside.hosts
    names = copy.deepcopy(article["spec"]["rules"])
    for rule in names:
        rule["hosts"] = [host.replace("httpbin", "v1-httpbin") for host in rule["hosts"]]
        rule["http"]["paths"][0]["splits"][0]["serviceName"] = "httpbin-00002"
    article["spec"]["rules"] += names
    *_, tagged = virtual_hosts(article, ("localhost",))
    assert (tagged.tag, tagged.hosts[-1]) == ("v1", "v1-httpbin.default.localhost")


def test_hosts_that_an_ingress_gives_itself_are_not_taken_by_those_below_localhost() -> None:
    ingress = service_ingress(service(), "hello-00001", ("example.com", "localhost"))
    (split,) = ingress["spec"]["rules"][2]["http"]["paths"][0]["splits"]
    ingress["spec"]["rules"][2]["http"]["paths"] = [{"splits": [split | {"serviceName": "hello-00009"}]}]
    found = RouteTable(virtual_hosts(ingress, ("localhost",))).find(b"hello.default.localhost")
    assert found is not None
    assert [target.revision for target in found.rules[0].targets] == ["default/hello-00009"]
    private = service_ingress(service(), "hello-00001", ())
    assert [vhost.is_private for vhost in virtual_hosts(private, ("localhost",))] == [True]
    private["spec"]["rules"] = [{"http": private["spec"]["rules"][0]["http"]}]
    assert [vhost.hosts for vhost in virtual_hosts(private, ("localhost",))] == [()]


def test_only_one_that_is_alone_and_answers_outside_answers_to_the_fallback_hosts() -> None:
    one = virtual_hosts(service_ingress(service("one"), "one-00001", ("localhost",)))
    two = virtual_hosts(service_ingress(service("two"), "two-00001", ("localhost",)))
    alone = RouteTable(fallback_hosts=["localhost", "127.0.0.1"]).changed({"default/one": one})
    assert alone.find(b"localhost") is alone.find(b"127.0.0.1") is alone.find(b"one.default.localhost")
    assert alone.find(b"localhost") is not None
    assert alone.changed({"default/two": two}).find(b"localhost") is None
    assert alone.changed({"default/one": ()}).find(b"localhost") is None
    assert RouteTable(one).find(b"localhost") is None
    private = virtual_hosts(service_ingress(service("one"), "one-00001", ()))
    assert alone.changed({"default/one": private}).find(b"localhost") is None


def test_a_programmed_ingress_is_ready_for_its_generation_and_no_other() -> None:
    ingress = service_ingress(service(), "hello-00001", ("localhost",))
    ingress["metadata"]["generation"] = 3
    assert not holds_for_generation(ingress, READY)
    ingress["status"] = programmed_status(ingress, 3, 1_700_000_000.0)
    assert holds_for_generation(ingress, READY)
    ingress["metadata"]["generation"] = 4
    assert not holds_for_generation(ingress, READY)


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    first = merge({}, [StatusCondition("Ready", "Unknown", "Deploying")], 0.0)
    same = merge({"status": {"conditions": first}}, [StatusCondition("Ready", "Unknown", "Waiting")], 60.0)
    assert same[0]["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    assert same[0]["reason"] == "Waiting"
    changed = merge({"status": {"conditions": same}}, [StatusCondition("Ready", "True")], 60.0)
    assert changed == [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"}]

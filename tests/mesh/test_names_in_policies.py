"""Names in policies are logical: a host stands for its Route, a private service for its revision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.mesh.naming import RevisionPlace, RoutePlace, canonical, is_service_port, selects

ROUTE = RoutePlace.of("default/httpbin", ["httpbin.default", "httpbin.default.svc", "httpbin.default.example.com"])
REVISION = RevisionPlace.of("default/httpbin-00001", {"serving.knative.dev/service": "httpbin", "tier": "front"})


@pytest.mark.parametrize(
    "host",
    [
        "httpbin",
        "httpbin.default",
        "httpbin.default.svc",
        "httpbin.default.svc.cluster.local",
        "HTTPBIN.default.svc.cluster.local.",
        "httpbin.default.example.com",
        "*.example.com",
        "*.default.svc.cluster.local",
        "*",
    ],
)
def test_a_route_is_meant_by_any_of_its_hosts_however_they_are_spelled(host: str) -> None:
    assert ROUTE.is_named(host, "default")


@pytest.mark.parametrize("host", ["httpbin.other", "httpbin2", "example.com", "*.other", "xhttpbin.default", ""])
def test_a_route_is_not_meant_by_another_name(host: str) -> None:
    assert not ROUTE.is_named(host, "default")


def test_a_short_name_is_seen_from_the_policys_namespace() -> None:
    assert not ROUTE.is_named("httpbin", "istio-system")
    assert ROUTE.is_named("httpbin.default", "istio-system")


@pytest.mark.parametrize(
    "host",
    [
        "httpbin-00001",
        "httpbin-00001-private",
        "httpbin-00001-private.default",
        "httpbin-00001-private.default.svc.cluster.local",
    ],
)
def test_a_revision_is_meant_by_its_service_and_its_private_service(host: str) -> None:
    assert REVISION.is_named(host, "default")
    assert not REVISION.belongs_to(host, "default")


def test_a_revision_belongs_to_its_service() -> None:
    assert REVISION.belongs_to("httpbin.default.svc.cluster.local", "knative-serving")
    assert not REVISION.is_named("httpbin.default.svc.cluster.local", "knative-serving")
    assert not REVISION.belongs_to("httpbin.other.svc.cluster.local", "default")


def test_replicas_carry_the_labels_of_their_revision_and_those_that_knative_adds() -> None:
    assert selects({"tier": "front"}, REVISION.labels)
    assert selects({"app": "httpbin-00001"}, REVISION.labels)
    assert selects({"serving.knative.dev/revision": "httpbin-00001"}, REVISION.labels)
    assert not selects({"tier": "front", "app": "other"}, REVISION.labels)
    assert selects({}, {})


def test_only_ports_of_a_service_stand_for_it() -> None:
    assert all(is_service_port(port) for port in (None, 0, 80, 443, 8012, 8013))
    assert not any(is_service_port(port) for port in (1, 8000, 15006))


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True), st.sampled_from(["a", "b-c"]))
def test_every_spelling_of_a_service_comes_to_the_same(name: str, namespace: str) -> None:
    spellings = [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]
    assert {canonical(each, namespace) for each in spellings} == {f"{name}.{namespace}"}

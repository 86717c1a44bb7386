"""An ASMLocalRateLimiter as an EnvoyFilter: Envoy's local rate limit, for the hosts and requests that it means."""

import json
from pathlib import Path
from typing import Any

from support.crd_schema import violations
from upwell.functions.api.asm import ASMLocalRateLimiter
from upwell.functions.manifest import load_manifests
from upwell.runtime.control.istio_limits import FILTER, envoy_filter
from upwell.runtime.control.rendering import render_istio

SCHEMA = json.loads((Path(__file__).parent / "data" / "istio-schemas.json").read_text())["EnvoyFilter"]
LIMIT = {"fill_interval": {"seconds": 2}, "quota": 60}
VHOST = {"vhost": {"name": "hello.default.svc.cluster.local", "port": 80}}


def rendered(*configs: dict[str, Any], **spec: Any) -> list[dict[str, Any]]:
    """The patches."""
    limiter = ASMLocalRateLimiter.model_validate(
        {
            "apiVersion": "istio.alibabacloud.com/v1",
            "kind": "ASMLocalRateLimiter",
            "metadata": {"name": "hello", "namespace": "istio-system"},
            "spec": {"isGateway": True, "configs": list(configs), **spec},
        }
    )
    made = envoy_filter(limiter)
    assert list(violations(made["spec"], SCHEMA)) == []
    assert made["metadata"] == {"name": "hello", "namespace": "istio-system"}
    patches: list[dict[str, Any]] = made["spec"]["configPatches"]
    return patches


def limit_of(patch: dict[str, Any]) -> dict[str, Any]:
    typed: dict[str, Any] = patch["patch"]["value"]["typed_per_filter_config"][FILTER]
    assert typed["type_url"].endswith("local_ratelimit.v3.LocalRateLimit")
    value: dict[str, Any] = typed["value"]
    return value


def test_the_filter_stands_before_the_router_and_limits_nothing_by_itself() -> None:
    first = rendered({"match": VHOST, "limit": LIMIT})[0]
    assert (first["applyTo"], first["patch"]["operation"]) == ("HTTP_FILTER", "INSERT_BEFORE")
    assert first["patch"]["value"]["name"] == FILTER
    assert "token_bucket" not in first["patch"]["value"]["typed_config"]["value"]


def test_a_limit_is_given_to_its_virtual_host() -> None:
    _, patch = rendered({"match": VHOST, "limit": LIMIT})
    assert patch["applyTo"] == "VIRTUAL_HOST"
    assert patch["match"] == {
        "context": "GATEWAY",
        "routeConfiguration": {"vhost": {"name": "hello.default.svc.cluster.local:80"}},
    }
    value = limit_of(patch)
    assert value["token_bucket"] == {"max_tokens": 60, "tokens_per_fill": 60, "fill_interval": "2s"}
    assert value["response_headers_to_add"][0]["header"] == {"key": "x-local-rate-limit", "value": "true"}
    assert value["filter_enforced"]["default_value"] == {"numerator": 100, "denominator": "HUNDRED"}


def test_fields_of_a_limit_have_their_places() -> None:
    limit = {
        "fill_interval": {"nanos": 50_000_000},
        "quota": 1,
        "status": 430,
        "per_downstream_connection": True,
        "response_headers_to_add": {"x-limited": "yes"},
        "custom_response_body": "slow down",
    }
    _, patch, body = rendered({"match": VHOST, "limit": limit})
    value = limit_of(patch)
    assert value["token_bucket"]["fill_interval"] == "0.05s"
    assert value["status"] == {"code": 430}
    assert value["local_rate_limit_per_downstream_connection"] is True
    assert value["response_headers_to_add"][1]["header"] == {"key": "x-limited", "value": "yes"}
    (mapper,) = body["patch"]["value"]["typed_config"]["value"]["local_reply_config"]["mappers"]
    assert mapper["body"] == {"inline_string": "slow down"}


def test_a_limit_for_all_hosts_names_none() -> None:
    _, everywhere = rendered({"match": {"vhost": {"name": "*"}}, "limit": LIMIT})
    assert everywhere["match"] == {"context": "GATEWAY"}
    _, port = rendered({"match": {"vhost": {"name": "*", "port": 80}}, "limit": LIMIT})
    assert port["match"]["routeConfiguration"] == {"portNumber": 80}


def test_a_route_by_its_name() -> None:
    match = {"vhost": {"name": "hello", "port": 80, "route": {"name_match": "slow"}}}
    _, patch = rendered({"match": match, "limit": LIMIT})
    assert patch["applyTo"] == "HTTP_ROUTE"
    assert patch["match"]["routeConfiguration"]["vhost"] == {"name": "hello:80", "route": {"name": "slow"}}


def test_services_that_are_meant_are_virtual_hosts_too() -> None:
    targets = [
        {"kind": "Service", "name": "hello", "namespace": "default", "port": 8000},
        {"kind": "VirtualService", "name": "all", "section_name": "slow"},
    ]
    _, service, route = rendered({"target_services": targets, "limit": LIMIT})
    assert service["match"]["routeConfiguration"]["vhost"] == {"name": "hello.default.svc.cluster.local:8000"}
    assert route["match"]["routeConfiguration"]["vhost"] == {"route": {"name": "slow"}}


def test_where_it_acts_is_the_context_and_the_selector() -> None:
    config = {"match": VHOST, "limit": LIMIT}
    contexts = {
        traffic: rendered(config, isGateway=False, **applied)[1]["match"]["context"]
        for traffic, applied in (
            ("none", {}),
            ("sidecar_outbound", {"applyToTraffic": "sidecar_outbound"}),
            ("gateway", {"applyToTraffic": "gateway"}),
        )
    }
    assert contexts == {"none": "SIDECAR_INBOUND", "sidecar_outbound": "SIDECAR_OUTBOUND", "gateway": "GATEWAY"}


def test_an_override_is_a_descriptor_with_a_bucket_of_its_own() -> None:
    override = {
        "request_match": {
            "header_match": [{"name": ":path", "prefix_match": "/api"}, {"name": "x", "invert_match": True}],
            "query_match": [{"name": "q", "exact_match": "1", "ignore_case": True}],
            "remote_address": {"address": "10.1.2.3", "v4_prefix_mask_len": 16},
        },
        "limit": {"fill_interval": {"seconds": 4}, "quota": 5},
    }
    _, patch = rendered({"name": "a", "match": VHOST, "limit": LIMIT, "limit_overrides": [override]})
    value = limit_of(patch)
    (descriptor,) = value["descriptors"]
    assert descriptor["token_bucket"]["fill_interval"] == "4s"
    assert descriptor["entries"] == [
        {"key": "header_match", "value": "a-0"},
        {"key": "query_match", "value": "a-0"},
        {"key": "masked_remote_address", "value": "10.1.0.0/16"},
    ]
    headers, query, address = value["rate_limits"][0]["actions"]
    assert headers["header_value_match"]["headers"] == [
        {"name": ":path", "string_match": {"prefix": "/api"}},
        {"name": "x", "present_match": True, "invert_match": True},
    ]
    assert query["query_parameter_value_match"]["query_parameters"] == [
        {"name": "q", "string_match": {"exact": "1", "ignore_case": True}}
    ]
    assert address == {"masked_remote_address": {"v4_prefix_mask_len": 16}}


MISPLACED = """
apiVersion: istio.alibabacloud.com/v1
kind: ASMLocalRateLimiter
metadata: {name: hello, namespace: istio-system}
spec:
  configs:
  - limit: {fill_interval: {seconds: 2}, quota: 60}
    match: {vhost: {name: hello.default.svc.cluster.local, port: 80}}
    isGateway: true
    workloadSelector: {labels: {istio: ingressgateway}}
"""


def test_fields_that_stand_in_a_well_known_wrong_place_are_rendered_with_a_warning() -> None:
    rendered = render_istio(load_manifests(MISPLACED, "test.yaml"))
    (filter,) = rendered.objects
    assert filter["spec"]["workloadSelector"] == {"labels": {"istio": "ingressgateway"}}
    assert filter["spec"]["configPatches"][1]["match"]["context"] == "GATEWAY"
    assert [warning.partition(": ")[0] for warning in rendered.warnings] == ["test.yaml:2", "test.yaml:2"]
    assert "spec.isGateway" in rendered.warnings[0]

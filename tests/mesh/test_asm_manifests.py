"""Manifests of ASMLocalRateLimiter and ASMCircuitBreaker: what applies, what is refused, what moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from upwell.functions.api.asm import ASMCircuitBreaker, ASMLocalRateLimiter
from upwell.functions.api.meta import faults

LIMITER_OF_THE_ARTICLE = """
apiVersion: istio.alibabacloud.com/v1
kind: ASMLocalRateLimiter
metadata:
  name: helloworld
  namespace: istio-system
spec:
  configs:
  - limit:
      fill_interval:
        seconds: 2
      quota: 60
    match:
      vhost:
        name: helloworld-go.default.svc.cluster.local
        port: 80
    isGateway: true
    workloadSelector:
      labels:
        istio: ingressgateway
"""

BREAKER_OF_THE_ARTICLE = """
apiVersion: istio.alibabacloud.com/v1
kind: ASMCircuitBreaker
metadata:
  name: httpbin-delay
  namespace: knative-serving
spec:
  configs:
  - breaker_config:
      break_duration: 60s
      custom_response:
        body: "delay break!"
        header_to_add:
          x-envoy-overload: "true"
        status_code: 498
      max_slow_requests: 5
      min_request_amount: 2
      slow_request_rt: 0.5s
      window_size: 10s
    match:
      vhost:
        name: httpbin-00001-private.default.svc.cluster.local
        port: 8012
    workloadSelector:
      labels:
        app: activator
"""

LIMIT = {"fill_interval": {"seconds": 2}, "quota": 60}
MATCH = {"vhost": {"name": "hello.default.svc.cluster.local", "port": 80}}
ANY_HEADER = {"header_match": [{"name": "x-a"}]}


def limiter(*configs: Any, **spec: Any) -> dict[str, Any]:
    return _manifest("ASMLocalRateLimiter", {**spec, "configs": list(configs)})


def breaker(*configs: Any, **spec: Any) -> dict[str, Any]:
    return _manifest("ASMCircuitBreaker", {**spec, "configs": list(configs)})


def limited(**limit: Any) -> dict[str, Any]:
    return limiter({"match": MATCH, "limit": {**LIMIT, **limit}})


def overridden(*overrides: Any) -> dict[str, Any]:
    return limiter({"match": MATCH, "limit": LIMIT, "limit_overrides": list(overrides)})


def matching(**matcher: Any) -> dict[str, Any]:
    return overridden({"request_match": matcher, "limit": LIMIT})


def broken(**settings: Any) -> dict[str, Any]:
    return breaker({"match": MATCH, "breaker_config": settings})


def _manifest(kind: str, spec: Any) -> dict[str, Any]:
    return {"apiVersion": "istio.alibabacloud.com/v1", "kind": kind, "metadata": {"name": "one"}, "spec": spec}


def validated(manifest: dict[str, Any]) -> ASMLocalRateLimiter | ASMCircuitBreaker:
    kind = ASMLocalRateLimiter if manifest["kind"] == "ASMLocalRateLimiter" else ASMCircuitBreaker
    return kind.model_validate(manifest)


def test_the_articles_limiter_applies_as_printed_and_is_told_what_stands_in_the_wrong_place() -> None:
    printed = yaml.safe_load(LIMITER_OF_THE_ARTICLE)
    before = copy.deepcopy(printed)
    lifted, told = ASMLocalRateLimiter.lift(printed)
    policy = ASMLocalRateLimiter.model_validate(lifted)
    assert printed == before
    assert told == [
        "spec.configs[0].isGateway stands in the wrong place: spec.isGateway is the right one",
        "spec.configs[0].workloadSelector stands in the wrong place: spec.workloadSelector is the right one",
    ]
    assert policy.spec.is_gateway is True
    assert policy.spec.labels == {"istio": "ingressgateway"}
    config = policy.spec.configs[0]
    assert (config.host, config.port) == ("helloworld-go.default.svc.cluster.local", 80)
    assert (config.limit.quota, config.limit.fill_interval.nanoseconds) == (60, 2_000_000_000)
    assert policy.to_manifest() == lifted
    assert policy.warnings() == []


def test_the_articles_breaker_applies_as_printed() -> None:
    lifted, told = ASMCircuitBreaker.lift(yaml.safe_load(BREAKER_OF_THE_ARTICLE))
    policy = ASMCircuitBreaker.model_validate(lifted)
    assert len(told) == 1
    assert policy.spec.labels == {"app": "activator"}
    settings = policy.spec.configs[0].breaker_config
    assert (settings.window_seconds, settings.break_seconds, settings.slow_seconds) == (10.0, 60.0, 0.5)
    assert policy.to_manifest() == lifted
    assert policy.warnings() == [
        "spec.configs[0].breaker_config.min_request_amount has no effect: it concerns error_percent, "
        "which is not set"
    ]


def test_what_stands_in_the_right_place_is_not_moved() -> None:
    manifest = limiter({"match": MATCH, "limit": LIMIT}, isGateway=True)
    lifted, told = ASMLocalRateLimiter.lift(manifest)
    assert lifted is manifest
    assert told == []


def test_a_field_in_the_wrong_place_that_contradicts_the_right_one_is_refused_there() -> None:
    manifest = limiter({"match": MATCH, "limit": LIMIT, "isGateway": False}, isGateway=True)
    lifted, _ = ASMLocalRateLimiter.lift(manifest)
    with pytest.raises(ValidationError) as raised:
        validated(lifted)
    assert [fault.field for fault in faults(raised.value)] == ["spec.configs[0].isGateway"]


@pytest.mark.parametrize("spec", [None, [], {"configs": None}, {"configs": ["a", 1]}, {}])
def test_a_manifest_of_another_shape_is_left_for_validation(spec: Any) -> None:
    manifest = {"kind": "ASMLocalRateLimiter", "spec": spec}
    assert ASMLocalRateLimiter.lift(manifest) == (manifest, [])


EVERY_LIMIT = {
    "fill_interval": {"seconds": 60, "nanos": 500_000_000},
    "quota": 10,
    "per_downstream_connection": True,
    "custom_response_body": "no",
    "response_headers_to_add": {"X-A": "1"},
    "status": 503,
}
EVERY_MATCHER = {
    "header_match": [
        {"name": ":path", "prefix_match": "/a"},
        {"name": "X-A", "regex_match": "a|b", "invert_match": True},
        {"name": "x-b", "is_exact_match_empty": True},
        {"name": "x-c", "suffix_match": "z"},
        {"name": "x-d", "present_match": False},
    ],
    "remote_address": {"address": "10.0.0.1", "v4_prefix_mask_len": 8, "v6_prefix_mask_len": 64},
    "query_match": [
        {"name": "a", "exact_match": "1", "ignore_case": True},
        {"name": "b", "contains_match": "2"},
        {"name": "c", "present_match": True},
    ],
}


def test_every_field_of_a_limiter_applies_and_is_printed_again_as_it_was_given() -> None:
    manifest = limiter(
        {
            "name": "first",
            "match": {"vhost": {"name": "*", "port": 0, "route": {"name_match": "r"}}},
            "limit": EVERY_LIMIT,
            "limit_overrides": [{"request_match": EVERY_MATCHER, "limit": EVERY_LIMIT}],
        },
        {
            "target_services": [
                {"name": "httpbin", "port": 8000},
                {"kind": "VirtualService", "namespace": "a", "name": "vs", "section_name": "route"},
            ],
            "limit": LIMIT,
        },
        workloadSelector={"labels": {"app": "sleep"}},
        isGateway=False,
        applyToTraffic="sidecar_outbound",
    )
    policy = validated(manifest)
    assert {**policy.to_manifest()["metadata"], "namespace": None} == {"name": "one", "namespace": None}
    assert policy.to_manifest()["spec"] == manifest["spec"]
    first, second = policy.spec.configs
    assert (first.host, first.port, first.route_name, first.targets) == ("*", None, "r", ())
    assert first.header_names == {":path", "x-a", "x-b", "x-c", "x-d"}
    assert (second.host, second.port, second.route_name) == (None, None, None)
    assert [target.resource_kind for target in second.targets] == ["Service", "VirtualService"]


def test_every_field_of_a_breaker_applies_and_is_printed_again_as_it_was_given() -> None:
    settings = {
        "window_size": "12s",
        "break_duration": "90s",
        "slow_request_rt": "0.1s",
        "average_request_rt": "0.01s",
        "max_slow_requests": 4294967295,
        "error_percent": {"value": 60},
        "gateway_error_percent": {"value": 100},
        "min_request_amount": 3,
        "custom_response": {"status_code": 599, "header_to_add": {"x-a": "1"}, "body": "b"},
    }
    manifest = breaker({"name": "b", "match": MATCH, "breaker_config": settings}, applyToTraffic="gateway")
    policy = validated(manifest)
    assert policy.to_manifest()["spec"] == manifest["spec"]
    place = "spec.configs[0].breaker_config"
    assert policy.warnings() == [
        f"{place}.average_request_rt has no effect: no condition is documented that reads it",
        f"{place}: a percentage of 100 has no effect, since no share is above it",
    ]


def test_a_breaker_has_the_documented_defaults() -> None:
    policy = validated(broken(error_percent={"value": 0}))
    assert isinstance(policy, ASMCircuitBreaker)
    settings = policy.spec.configs[0].breaker_config
    assert (settings.window_seconds, settings.break_seconds, settings.slow_seconds) == (10.0, 30.0, None)


def test_deprecated_and_idle_fields_are_warned_of_with_their_places() -> None:
    route = {"name_match": "r", "header_match": [{"name": "X-A"}]}
    limit = {**LIMIT, "response_header_to_add": {"x-a": "1"}, "status": 200}
    policy = validated(limiter({"match": {"vhost": {"name": "*", "route": route}}, "limit": limit}))
    places = [warning.split(" ")[0].rstrip(":") for warning in policy.warnings()]
    assert places == [
        "spec.configs[0].match.vhost.route.header_match",
        "spec.configs[0].match.vhost.route.name_match",
        "spec.configs[0].limit.response_header_to_add",
        "spec.configs[0].limit.status",
    ]
    assert "without slow_request_rt" in validated(broken(max_slow_requests=5)).warnings()[0]
    assert "without max_slow_requests" in validated(broken(slow_request_rt="1s")).warnings()[0]


C = "spec.configs[0]"
O = f"{C}.limit_overrides[0]"  # noqa: E741
H = f"{O}.request_match.header_match[0]"
Q = f"{O}.request_match.query_match[0]"
B = f"{C}.breaker_config"


def headers(**matcher: Any) -> dict[str, Any]:
    return matching(header_match=[matcher])


def query(**matcher: Any) -> dict[str, Any]:
    return matching(query_match=[matcher])


@pytest.mark.parametrize(
    ("manifest", "field", "message"),
    [
        (limiter(), "spec.configs", "at least 1"),
        (limiter({"limit": LIMIT}), C, "match.vhost or target_services"),
        (limiter({"match": MATCH}), f"{C}.limit", "required"),
        (limiter({"match": {}, "limit": LIMIT}), f"{C}.match.vhost", "required"),
        (limiter({"match": {"vhost": {}}, "limit": LIMIT}), f"{C}.match.vhost.name", "required"),
        (limiter({"match": {"vhost": {"name": "a b"}}, "limit": LIMIT}), f"{C}.match.vhost.name", "no host"),
        (limiter({"match": {"vhost": {"name": "a*"}}, "limit": LIMIT}), f"{C}.match.vhost.name", "no host"),
        (
            limiter({"match": {"vhost": {"name": "a", "port": 65536}}, "limit": LIMIT}),
            f"{C}.match.vhost.port",
            "65535",
        ),
        (
            limiter({"match": {"vhost": {"name": "a", "port": "80"}}, "limit": LIMIT}),
            f"{C}.match.vhost.port",
            "integer",
        ),
        (limiter({"match": MATCH, "limit": LIMIT, "distinct": {}}), f"{C}.distinct", "unknown field"),
        (
            limiter({"match": MATCH, "limit": LIMIT}, applyToTraffic="sideways"),
            "spec.applyToTraffic",
            "'sidecar_inbound'",
        ),
        (
            limiter({"match": MATCH, "limit": LIMIT}, workloadSelector={"app": "a"}),
            "spec.workloadSelector.app",
            "unknown field",
        ),
        (
            limiter({"target_services": [{"port": 80}], "limit": LIMIT}),
            f"{C}.target_services[0].name",
            "required",
        ),
        (
            limiter({"target_services": [{"name": "a", "kind": "Pod"}], "limit": LIMIT}),
            f"{C}.target_services[0].kind",
            "'Service'",
        ),
        (
            limiter({"target_services": [{"name": "a", "port": 0}], "limit": LIMIT}),
            f"{C}.target_services[0].port",
            "greater",
        ),
        (
            limiter({"target_services": [{"name": "a", "section_name": "b"}], "limit": LIMIT}),
            f"{C}.target_services[0].section_name",
            "VirtualService",
        ),
        (limited(quota=0), f"{C}.limit.quota", "greater"),
        (limited(quota=2**31), f"{C}.limit.quota", "less"),
        (limited(quota=1.5), f"{C}.limit.quota", "integer"),
        (limited(fill_interval={}), f"{C}.limit.fill_interval", "50 ms"),
        (limited(fill_interval={"nanos": 49_999_999}), f"{C}.limit.fill_interval", "50 ms"),
        (limited(fill_interval={"seconds": -1}), f"{C}.limit.fill_interval.seconds", "greater"),
        (limited(fill_interval={"nanos": 10**9}), f"{C}.limit.fill_interval.nanos", "less"),
        (limited(fill_interval="2s"), f"{C}.limit.fill_interval", "dictionary"),
        (limited(status=199), f"{C}.limit.status", "200"),
        (limited(status=600), f"{C}.limit.status", "599"),
        (limited(custom_response_body=""), f"{C}.limit.custom_response_body", "at least 1"),
        (limited(response_header_to_add={}), f"{C}.limit.response_header_to_add", "at least 1"),
        (limited(response_headers_to_add={"a b": "1"}), f"{C}.limit.response_headers_to_add['a b']", "name"),
        (limited(response_headers_to_add={"a": "1\r\nb: 2"}), f"{C}.limit.response_headers_to_add.a", "value"),
        (
            limited(response_headers_to_add={"Content-Length": "1"}),
            f"{C}.limit.response_headers_to_add.Content-Length",
            "frames",
        ),
        (limited(response_headers_to_add={"a": True}), f"{C}.limit.response_headers_to_add.a", "string"),
        (limited(per_downstream_connection="yes"), f"{C}.limit.per_downstream_connection", "boolean"),
        (limited(header_to_add={"a": "1"}), f"{C}.limit.header_to_add", "unknown field"),
        (
            overridden({"request_match": ANY_HEADER, "limit": {**LIMIT, "fill_interval": {"seconds": 3}}}),
            f"{O}.limit.fill_interval",
            "whole multiple",
        ),
        (
            overridden({"request_match": ANY_HEADER, "limit": {**LIMIT, "fill_interval": {"seconds": 1}}}),
            f"{O}.limit.fill_interval",
            "whole multiple",
        ),
        (
            overridden(*[{"request_match": ANY_HEADER, "limit": {**LIMIT, "quota": n}} for n in (1, 2)]),
            f"{C}.limit_overrides[1].request_match",
            "limit_overrides[0]",
        ),
        (matching(), f"{O}.request_match", "at least one"),
        (overridden({"limit": LIMIT}), f"{O}.request_match", "required"),
        (overridden({"request_match": ANY_HEADER}), f"{O}.limit", "required"),
        (headers(exact_match="a"), f"{H}.name", "required"),
        (headers(name="a b"), f"{H}.name", "name of a header"),
        (headers(name=""), f"{H}.name", "name of a header"),
        (headers(name=":status"), f"{H}.name", ":authority"),
        (headers(name="a", exact_match="a", prefix_match="b"), f"{H}.prefix_match", "only one"),
        (headers(name="a", exact_match="a", present_match=True), f"{H}.present_match", "only one"),
        (
            headers(name="a", prefix_match="a", is_exact_match_empty=True),
            f"{H}.is_exact_match_empty",
            "prefix_match",
        ),
        (headers(name="a", regex_match="("), f"{H}.regex_match", "not closed"),
        (headers(name="a", regex_match="(?=a)"), f"{H}.regex_match", "RE2"),
        (headers(name="a", contains_match="b"), f"{H}.contains_match", "unknown field"),
        (query(name="a"), Q, "one condition"),
        (query(name="a", exact_match=""), Q, "one condition"),
        (query(name="", exact_match="b"), f"{Q}.name", "at least 1"),
        (query(name="a", exact_match="b", contains_match="c"), f"{Q}.contains_match", "only one"),
        (query(name="a", regex_match="b", ignore_case=True), f"{Q}.ignore_case", "no meaning"),
        (query(name="a", exact_match="b", invert_match=True), f"{Q}.invert_match", "unknown field"),
        (
            matching(remote_address={"address": "10.0.0.0/8"}),
            f"{O}.request_match.remote_address.address",
            "no IP address",
        ),
        (
            matching(remote_address={"address": "10.0.0.1", "v4_prefix_mask_len": 33}),
            f"{O}.request_match.remote_address.v4_prefix_mask_len",
            "32",
        ),
        (
            matching(remote_address={"address": "::1", "v6_prefix_mask_len": 129}),
            f"{O}.request_match.remote_address.v6_prefix_mask_len",
            "128",
        ),
        (breaker({"match": MATCH}), B, "required"),
        (breaker({"breaker_config": {"error_percent": {"value": 1}}}), C, "match.vhost or target_services"),
        (broken(), B, "at least one field"),
        (broken(window_size="12.1s"), f"{B}.window_size", "12s at most"),
        (broken(window_size="0s"), f"{B}.window_size", "too short"),
        (broken(window_size={"seconds": 1}), f"{B}.window_size", "string"),
        (broken(window_size=10), f"{B}.window_size", "string"),
        (broken(break_duration="60"), f"{B}.break_duration", "not a duration"),
        (broken(break_duration="0s"), f"{B}.break_duration", "too short"),
        (broken(slow_request_rt="-1s"), f"{B}.slow_request_rt", "not a duration"),
        (broken(average_request_rt="fast"), f"{B}.average_request_rt", "not a duration"),
        (broken(max_slow_requests=-1), f"{B}.max_slow_requests", "greater"),
        (broken(max_slow_requests=2**32), f"{B}.max_slow_requests", "less"),
        (broken(min_request_amount=1.0), f"{B}.min_request_amount", "integer"),
        (broken(error_percent=60), f"{B}.error_percent", "dictionary"),
        (broken(error_percent={}), f"{B}.error_percent.value", "required"),
        (broken(error_percent={"value": 101}), f"{B}.error_percent.value", "100"),
        (broken(gateway_error_percent={"value": -1}), f"{B}.gateway_error_percent.value", "greater"),
        (broken(custom_response={}), f"{B}.custom_response", "at least one field"),
        (broken(custom_response={"status_code": 199}), f"{B}.custom_response.status_code", "200"),
        (broken(custom_response={"status_code": 600}), f"{B}.custom_response.status_code", "599"),
        (broken(custom_response={"body": ""}), f"{B}.custom_response.body", "at least 1"),
        (broken(custom_response={"header_to_add": {}}), f"{B}.custom_response.header_to_add", "at least 1"),
        (
            broken(custom_response={"response_headers_to_add": {"a": "b"}}),
            f"{B}.custom_response.response_headers_to_add",
            "unknown field",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(manifest: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        validated(manifest)
    found = [(fault.field, fault.message) for fault in faults(raised.value)]
    assert [each for each, _ in found] == [field]
    assert message in found[0][1]

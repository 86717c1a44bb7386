"""VirtualServices are taken with every field that Istio has, and refused with the field that is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from support.virtual_service import TO_HTTPBIN, manifest, to_httpbin, virtual_service
from upwell.functions.api.meta import faults
from upwell.functions.api.virtual_service import VirtualService, VirtualServiceSpec

SCHEMAS = json.loads((Path(__file__).parents[1] / "control" / "data" / "istio-schemas.json").read_text())

EVERY_FIELD: dict[str, Any] = {
    "name": "all",
    "match": [
        {
            "name": "one",
            "uri": {"prefix": "/api"},
            "scheme": {"exact": "http"},
            "method": {"regex": "GET|POST"},
            "authority": {"exact": "httpbin.default.example.com"},
            "headers": {"x-user": {}, "x-group": {"regex": "*"}},
            "withoutHeaders": {"x-old": {"exact": "1"}},
            "queryParams": {"debug": {"exact": "true"}},
            "ignoreUriCase": True,
            "port": 80,
            "sourceLabels": {"app": "activator"},
            "sourceNamespace": "knative-serving",
            "gateways": ["mesh"],
            "statPrefix": "all",
        }
    ],
    "route": [
        {
            "destination": {"host": "httpbin", "subset": "v1", "port": {"number": 80}},
            "weight": 75,
            "headers": {"request": {"set": {"x-version": "1"}}, "response": {"remove": ["server"]}},
        },
        {"destination": {"host": "httpbin-v2.other.svc.cluster.local"}, "weight": 25},
    ],
    "rewrite": {"authority": "inner.example.com", "uriRegexRewrite": {"match": "^/api/(.*)", "rewrite": "/\\1"}},
    "timeout": "2.5s",
    "retries": {
        "attempts": 3,
        "perTryTimeout": "500ms",
        "retryOn": "5xx, reset,409",
        "retryRemoteLocalities": True,
        "retryIgnorePreviousHosts": False,
        "backoff": "10ms",
    },
    "fault": {
        "delay": {"fixedDelay": "1s", "percentage": {"value": 0.1}},
        "abort": {"httpStatus": 418, "percentage": {"value": 50}},
    },
    "mirrors": [{"destination": {"host": "shadow"}, "percentage": {"value": 12.5}}],
    "corsPolicy": {
        "allowOrigins": [{"exact": "https://example.com"}, {"regex": "https://.*[.]example[.]com"}],
        "allowMethods": ["GET", "POST"],
        "allowHeaders": ["x-token"],
        "exposeHeaders": ["x-trace"],
        "maxAge": "24h",
        "allowCredentials": True,
        "unmatchedPreflights": "IGNORE",
    },
    "headers": {"request": {"add": {"x-seen": "1"}, "remove": ["x-secret"]}, "response": {"set": {"x-by": "me"}}},
}


def refused(*http: dict[str, Any], **spec: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as error:
        virtual_service(*http, **spec)
    return [(fault.field, fault.message) for fault in faults(error.value)]


def test_every_field_is_taken_and_printed_again_as_it_was_given() -> None:
    spec = {"gateways": ["mesh", "knative-serving/knative-ingress-gateway"], "exportTo": ["*"]}
    given = manifest(EVERY_FIELD, **spec)
    assert VirtualService.model_validate(given).to_manifest()["spec"] == given["spec"]


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_all_versions_are_one(version: str) -> None:
    assert f"networking.istio.io/{version}" in VirtualService.VERSIONS


def fields(schema: dict[str, Any]) -> Any:
    """The names of all fields below, nested as they are."""
    if schema.get("type") == "array":
        return fields(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        return fields(schema["additionalProperties"])
    return {name: fields(each) for name, each in schema.get("properties", {}).items()}


def known(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for each in schema.get("anyOf", []):
        if each.get("type") != "null":
            return known(each, definitions)
    if schema.get("type") == "array":
        return known(schema["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        return known(schema["additionalProperties"], definitions)
    return {name: known(each, definitions) for name, each in schema.get("properties", {}).items()}


def test_the_fields_are_those_of_istios_schema() -> None:
    schema = VirtualServiceSpec.model_json_schema(by_alias=True, mode="serialization")
    ours = known(schema, schema["$defs"])
    theirs = fields(SCHEMAS["VirtualService"])
    del ours["tcp"], ours["tls"], theirs["http"]["mirror_percent"]  # the last is another spelling
    assert ours == theirs


def test_both_spellings_of_the_deprecated_percentage_are_taken() -> None:
    for name in ("mirrorPercent", "mirror_percent"):
        parsed = virtual_service(to_httpbin(mirror={"host": "shadow"}, **{name: 30}))
        assert parsed.to_manifest()["spec"]["http"][0]["mirrorPercent"] == 30
    assert refused(to_httpbin(direct_response={"status": 200})) == [
        ("spec.http[0].direct_response", "unknown field")
    ]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({}, "route"),
        (to_httpbin(timeout="0s"), "timeout"),
        (to_httpbin(timeout="5"), "timeout"),
        (to_httpbin(timeout="-1s"), "timeout"),
        (to_httpbin(redirect={"uri": "/new"}), "route"),
        ({"redirect": {"uri": "/new"}, "rewrite": {"uri": "/x"}}, "rewrite"),
        ({"redirect": {}}, "redirect"),
        ({"redirect": {"port": 80, "derivePort": "FROM_REQUEST_PORT"}}, "redirect.derivePort"),
        ({"redirect": {"uri": "/a b"}}, "redirect.uri"),
        ({"redirect": {"uri": "/", "redirectCode": 200}}, "redirect.redirectCode"),
        ({"redirect": {"scheme": "ftp"}}, "redirect.scheme"),
        ({"directResponse": {"status": 199}}, "directResponse.status"),
        ({"directResponse": {"status": 200, "body": {"bytes": "%"}}}, "directResponse.body.bytes"),
        ({"directResponse": {"status": 200}, "fault": {"delay": {"fixedDelay": "1s"}}}, "fault"),
        ({"delegate": {"name": "x"}, "route": [TO_HTTPBIN]}, "route"),
        ({"route": [{"destination": {"host": "*"}}]}, "route[0].destination.host"),
        ({"route": [{"destination": {"host": "a", "port": {"number": 0}}}]}, "route[0].destination.port.number"),
        ({"route": [{"destination": {"host": "a", "subset": "A"}}]}, "route[0].destination.subset"),
        ({"route": [{**TO_HTTPBIN, "weight": 0}, TO_HTTPBIN]}, "route"),
        ({"route": [{**TO_HTTPBIN, "weight": -1}]}, "route[0].weight"),
        (to_httpbin(match=[{"uri": {"exact": "/", "prefix": "/"}}]), "match[0].uri.prefix"),
        (to_httpbin(match=[{"uri": {"regex": "("}}]), "match[0].uri.regex"),
        (to_httpbin(match=[{"uri": {"regex": "(a)\\1"}}]), "match[0].uri.regex"),
        (to_httpbin(match=[{"headers": {"a b": {}}}]), "match[0].headers['a b']"),
        (to_httpbin(match=[{"port": 70000}]), "match[0].port"),
        (to_httpbin(match=[{"path": "/"}]), "match[0].path"),
        (to_httpbin(rewrite={}), "rewrite"),
        (
            to_httpbin(rewrite={"uri": "/a", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}),
            "rewrite.uriRegexRewrite",
        ),
        (
            to_httpbin(rewrite={"uriRegexRewrite": {"match": "a", "rewrite": "\\1"}}),
            "rewrite.uriRegexRewrite.rewrite",
        ),
        (to_httpbin(rewrite={"authority": "a/b"}), "rewrite.authority"),
        (to_httpbin(retries={"retryOn": "5xx"}), "retries.retryOn"),
        (to_httpbin(retries={"attempts": 1, "retryOn": "4xx"}), "retries.retryOn"),
        (to_httpbin(retries={"attempts": 1, "retryOn": "999"}), "retries.retryOn"),
        (to_httpbin(retries={"attempts": -1}), "retries.attempts"),
        (to_httpbin(fault={}), "fault"),
        (to_httpbin(fault={"delay": {}}), "fault.delay.fixedDelay"),
        (to_httpbin(fault={"delay": {"exponentialDelay": "1s"}}), "fault.delay.exponentialDelay"),
        (to_httpbin(fault={"abort": {"httpStatus": 600}}), "fault.abort.httpStatus"),
        (to_httpbin(fault={"abort": {"httpStatus": 500, "grpcStatus": "INTERNAL"}}), "fault.abort.grpcStatus"),
        (to_httpbin(fault={"abort": {"grpcStatus": "internal"}}), "fault.abort.grpcStatus"),
        (
            to_httpbin(fault={"abort": {"httpStatus": 500, "percentage": {"value": 100.5}}}),
            "fault.abort.percentage.value",
        ),
        (to_httpbin(mirror={"host": "a"}, mirrors=[{"destination": {"host": "b"}}]), "mirrors"),
        (to_httpbin(corsPolicy={"allowOrigins": [{}]}), "corsPolicy.allowOrigins[0]"),
        (to_httpbin(corsPolicy={"allowMethods": ["get"]}), "corsPolicy.allowMethods[0]"),
        (to_httpbin(corsPolicy={"maxAge": "1.5s"}), "corsPolicy.maxAge"),
        (to_httpbin(headers={"request": {"set": {"content-length": "0"}}}), "headers.request.set.content-length"),
        (to_httpbin(headers={"response": {"remove": ["Transfer-Encoding"]}}), "headers.response.remove[0]"),
        (to_httpbin(headers={"response": {"set": {"host": "a"}}}), "headers.response.set.host"),
        (to_httpbin(headers={"request": {"remove": ["Host"]}}), "headers.request.remove[0]"),
        (to_httpbin(headers={"request": {"set": {"x": "a\nb"}}}), "headers.request.set.x"),
        (
            to_httpbin(headers={"request": {"set": {"Host": "a"}}}, rewrite={"authority": "b"}),
            "headers.request",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_field(rule: dict[str, Any], field: str) -> None:
    assert [name for name, _ in refused(rule)] == [f"spec.http[0].{field}"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"hosts": []}, "spec.hosts"),
        ({"hosts": ["a", "a"]}, "spec.hosts[1]"),
        ({"hosts": ["a b"]}, "spec.hosts[0]"),
        ({"hosts": ["*"]}, "spec.hosts[0]"),
        ({"http": []}, "spec.http"),
        ({"host": "a"}, "spec.host"),
    ],
)
def test_the_spec_must_name_hosts_and_routes(spec: dict[str, Any], field: str) -> None:
    assert [name for name, _ in refused(to_httpbin(), **spec)] == [field]


def test_a_gateway_may_take_every_host() -> None:
    assert virtual_service(to_httpbin(), hosts=["*"], gateways=["public"]).spec.hosts == ["*"]


def test_what_works_otherwise_than_one_may_expect_is_warned_of() -> None:
    told = virtual_service(
        to_httpbin(fault={"abort": {"httpStatus": 500}}, headers={"request": {"set": {"x": "%REQ(a)%"}}}),
        to_httpbin(mirror={"host": "a"}, mirrorPercent=5),
        tcp=[{}],
        exportTo=["."],
    ).warnings()
    assert told == [
        "spec.tcp: has no effect: upwell's gateway routes HTTP only",
        "spec.exportTo: has no effect: there is one gateway, which sees every namespace",
        "spec.http[0].fault.abort: aborts no request: percentage.value is not set",
        "spec.http[0].headers.request.set['x']: is sent as written: nothing is put in for %...%",
        "spec.http[1].mirrorPercent: is deprecated: use mirrorPercentage.value",
        "spec.http[1]: no request reaches it: http[0] takes all that are left",
    ]


def test_an_ordinary_one_warns_of_nothing() -> None:
    assert virtual_service(to_httpbin(match=[{"uri": {"prefix": "/api"}}]), to_httpbin()).warnings() == []

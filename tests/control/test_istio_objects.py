"""What Istio is told for Services and Ingresses is what Knative's net-istio writes, and fits Istio's schemas."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command import UPWELL
from support.crd_schema import violations
from upwell.functions.errors import InvalidManifest
from upwell.functions.manifest import load_manifests
from upwell.runtime.control.istio import (
    IstioSettings,
    distinct_prefixes,
    expanded_hosts,
    network_hash,
    pod_addressable,
    virtual_services,
)
from upwell.runtime.control.rendering import render_istio

SCHEMAS = json.loads((Path(__file__).parent / "data" / "istio-schemas.json").read_text())

SPLIT = {"serviceName": "hello-00001", "serviceNamespace": "default", "servicePort": 80, "percent": 100}
LOCAL = ["hello.default", "hello.default.svc", "hello.default.svc.cluster.local"]


def rule(hosts: list[str], visibility: str, **path: Any) -> dict[str, Any]:
    return {"hosts": hosts, "visibility": visibility, "http": {"paths": [{"splits": [SPLIT], **path}]}}


def ingress(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {
            "name": "hello",
            "namespace": "default",
            "labels": {"serving.knative.dev/route": "hello", "serving.knative.dev/service": "hello"},
            "annotations": {"networking.knative.dev/ingress.class": "istio.ingress.networking.knative.dev"},
        },
        "spec": {"httpOption": "Enabled", "rules": list(rules), **spec},
    }


PUBLIC = ingress(rule(LOCAL, "ClusterLocal"), rule(["hello.default.example.com"], "ExternalIP"))

SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec:
  template:
    spec:
      containers: [{image: example.com/hello}]
"""

TAGGED = """
  traffic:
  - {latestRevision: true, percent: 90}
  - {revisionName: hello-old, percent: 10, tag: old}
"""


def render(text: str) -> list[dict[str, Any]]:
    objects = render_istio(load_manifests(text, "test.yaml")).objects
    for each in objects:
        assert list(violations(each["spec"], SCHEMAS[each["kind"]])) == []
    return objects


def rendered(*manifests: dict[str, Any]) -> list[dict[str, Any]]:
    return render(yaml.safe_dump_all(manifests))


def by_name(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in objects}


def test_an_ingress_is_one_virtual_service_for_sidecars_and_one_for_gateways() -> None:
    assert [f"{each['kind']}/{each['metadata']['name']}" for each in rendered(PUBLIC)] == [
        "Gateway/knative-ingress-gateway",
        "Gateway/knative-local-gateway",
        "VirtualService/hello-mesh",
        "VirtualService/hello-ingress",
    ]


def test_metadata_are_the_ingresss_without_the_routes_labels() -> None:
    described = by_name(rendered(PUBLIC))["VirtualService/hello-ingress"]["metadata"]
    assert described == {
        "name": "hello-ingress",
        "namespace": "default",
        "labels": {"serving.knative.dev/service": "hello", "networking.internal.knative.dev/ingress": "hello"},
        "annotations": {"networking.knative.dev/ingress.class": "istio.ingress.networking.knative.dev"},
    }


def test_each_path_stands_first_for_the_probe_and_then_for_all() -> None:
    spec = by_name(rendered(PUBLIC))["VirtualService/hello-mesh"]["spec"]
    assert (spec["hosts"], spec["gateways"]) == (LOCAL, ["mesh"])
    probe, plain = spec["http"]
    assert plain == {
        "match": [{"gateways": ["mesh"], "authority": {"prefix": "hello.default"}}],
        "route": [
            {
                "destination": {"host": "hello-00001.default.svc.cluster.local", "port": {"number": 80}},
                "weight": 100,
            }
        ],
        "retries": {},
    }
    assert probe["match"][0]["headers"] == {"K-Network-Hash": {"exact": "override"}}
    assert probe["headers"] == {"request": {"set": {"K-Network-Hash": network_hash(PUBLIC)}}}


def test_a_rule_is_matched_by_the_gateways_of_its_visibility() -> None:
    spec = by_name(rendered(PUBLIC))["VirtualService/hello-ingress"]["spec"]
    matches = [match for route in spec["http"] for match in route["match"] if "headers" not in match]
    assert matches == [
        {"gateways": ["knative-serving/knative-local-gateway"], "authority": {"prefix": "hello.default"}},
        {
            "gateways": ["knative-serving/knative-ingress-gateway"],
            "authority": {"prefix": "hello.default.example.com"},
        },
    ]
    assert spec["hosts"] == sorted([*LOCAL, "hello.default.example.com"])


def test_paths_headers_and_rewrites_have_their_places() -> None:
    path = {
        "path": "/api",
        "headers": {"Knative-Serving-Tag": {"exact": "old"}},
        "appendHeaders": {"x-a": "1"},
        "rewriteHost": "inner.example.com",
        "splits": [{**SPLIT, "appendHeaders": {"x-b": "2"}}],
    }
    route = by_name(rendered(ingress(rule(["a.example.com"], "ExternalIP", **path))))
    plain = route["VirtualService/hello-ingress"]["spec"]["http"][1]
    assert plain["match"][0]["uri"] == {"prefix": "/api"}
    assert plain["match"][0]["headers"] == {"Knative-Serving-Tag": {"exact": "old"}}
    assert plain["headers"] == {"request": {"set": {"x-a": "1"}}}
    assert plain["route"][0]["headers"] == {"request": {"set": {"x-b": "2"}}}
    assert plain["rewrite"] == {"authority": "inner.example.com"}
    assert "VirtualService/hello-mesh" not in route


def test_the_hash_is_that_of_the_fields_in_gos_order() -> None:
    split = '{"serviceNamespace":"default","serviceName":"hello-00001","servicePort":80,"percent":100}'
    tagged = '"headers":{"A":{"exact":"1"},"b":{"exact":"2"}}'
    text = (
        '{"rules":[{"hosts":["a.b"],"visibility":"ExternalIP","http":{"paths":[{'
        f'"path":"/\\u0026",{tagged},"splits":[{split}],"appendHeaders":{{"x":"1"}}}}]}}}}],"httpOption":"Enabled"}}'
    )
    headers = {"b": {"exact": "2"}, "A": {"exact": "1"}}
    given = ingress(rule(["a.b"], "ExternalIP", path="/&", headers=headers, appendHeaders={"x": "1"}))
    assert network_hash(given) == hashlib.sha256(f"{text}defaulthello".encode()).hexdigest()


def test_hosts_get_their_shorter_names_but_no_impossible_ones() -> None:
    assert expanded_hosts(["a.b.svc.cluster.local"]) == {"a.b", "a.b.svc", "a.b.svc.cluster.local"}
    assert expanded_hosts(["10.0.0.1", "a." + "x" * 64, "a.1.svc.cluster.local"]) == {
        "a.1.svc",
        "a.1.svc.cluster.local",
    }


def test_one_prefix_stands_for_all_hosts_that_begin_with_it() -> None:
    assert distinct_prefixes(LOCAL) == ["hello.default"]
    assert distinct_prefixes(["b.c", "a.b", "a.bc"]) == ["a.b", "b.c"]


def test_an_ingress_that_redirects_has_a_gateway_of_its_own() -> None:
    objects = by_name(rendered(ingress(rule(["a.example.com"], "ExternalIP"), httpOption="Redirected")))
    name = next(each for each in objects if each.startswith("Gateway/hello-"))
    server = objects[name]["spec"]["servers"][0]
    assert server == {
        "hosts": ["a.example.com"],
        "port": {"name": "http-server", "number": 80, "protocol": "HTTP"},
        "tls": {"httpsRedirect": True},
    }
    used = objects["VirtualService/hello-ingress"]["spec"]["gateways"]
    assert used == [f"default/{name.removeprefix('Gateway/')}"]


def test_certificates_are_servers_of_that_gateway() -> None:
    tls = [{"hosts": ["a.example.com"], "secretName": "cert", "secretNamespace": "default"}]
    objects = by_name(rendered(ingress(rule(["a.example.com"], "ExternalIP"), tls=tls)))
    servers = next(each for name, each in objects.items() if name.startswith("Gateway/hello-"))["spec"]["servers"]
    assert [(each["port"]["name"], each["port"]["number"]) for each in servers] == [
        ("default/hello:0", 443),
        ("http-server", 80),
    ]
    assert servers[0]["tls"]["credentialName"] == "cert"
    assert "tls" not in servers[1]


def test_a_private_ingress_needs_no_certificate() -> None:
    private = ingress(rule(LOCAL, "ClusterLocal"), httpOption="Redirected")
    assert [each["metadata"]["name"] for each in rendered(private) if each["kind"] == "Gateway"] == [
        "knative-ingress-gateway",
        "knative-local-gateway",
    ]


def test_a_mesh_without_gateways_needs_the_sidecars_rules_alone() -> None:
    settings = IstioSettings(external_gateways=(), local_gateways=())
    only = virtual_services(PUBLIC, settings)
    assert [each["metadata"]["name"] for each in only] == ["hello-mesh"]
    assert only[0]["spec"]["hosts"] == ["hello.default.svc.cluster.local"]


def test_a_stored_ingress_owns_what_is_made_of_it() -> None:
    stored = {**PUBLIC, "metadata": {**PUBLIC["metadata"], "uid": "1-2"}}
    (reference,) = virtual_services(stored, IstioSettings())[0]["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["name"], reference["uid"]) == ("Ingress", "hello", "1-2")


def test_a_service_is_rendered_as_it_is_once_it_is_ready() -> None:
    objects = by_name(render(SERVICE))
    spec = objects["VirtualService/hello-ingress"]["spec"]
    assert "hello.default.example.com" in spec["hosts"]
    assert {each["destination"]["host"] for route in spec["http"] for each in route["route"]} == {
        "hello-00001.default.svc.cluster.local"
    }
    assert "ownerReferences" not in objects["VirtualService/hello-ingress"]["metadata"]


def test_traffic_and_tags_of_a_service_are_routes() -> None:
    spec = by_name(render(SERVICE + TAGGED))["VirtualService/hello-ingress"]["spec"]
    assert "old-hello.default.example.com" in spec["hosts"]
    shares = {
        (each["destination"]["host"].partition(".")[0], each["weight"])
        for r in spec["http"]
        for each in r["route"]
    }
    assert shares == {("hello-00001", 90), ("hello-old", 10), ("hello-old", 100)}


def test_config_maps_among_the_manifests_decide() -> None:
    domain = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "config-domain", "namespace": "knative-serving"},
        "data": {"apps.example.org": ""},
    }
    network = {
        **domain,
        "metadata": {"name": "config-network", "namespace": "knative-serving"},
        "data": {"enable-mesh-pod-addressability": "true"},
    }
    objects = by_name(render(yaml.safe_dump_all([domain, network]) + "---" + SERVICE))
    assert "hello.default.apps.example.org" in objects["VirtualService/hello-ingress"]["spec"]["hosts"]
    assert objects["DestinationRule/hello-00001-private"] == pod_addressable("hello-00001", "default")[0]


def test_pods_are_called_by_their_addresses_where_that_is_asked_for() -> None:
    destination_rule, service = pod_addressable("hello-00001", "default")
    host = "hello-00001-private.default.svc.cluster.local"
    assert destination_rule["spec"] == {
        "host": host,
        "subsets": [
            {"name": "normal", "trafficPolicy": {"loadBalancer": {"simple": "LEAST_REQUEST"}}},
            {"name": "direct", "trafficPolicy": {"loadBalancer": {"simple": "PASSTHROUGH"}}},
        ],
    }
    direct, normal = service["spec"]["http"]
    assert direct["match"] == [{"headers": {"K-Passthrough-Lb": {"exact": "true"}}}]
    assert [each["route"][0]["destination"]["subset"] for each in (direct, normal)] == ["direct", "normal"]
    assert list(violations(service["spec"], SCHEMAS["VirtualService"])) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (
            SERVICE.replace("containers:", "replicas: 1\n      containers:"),
            "test.yaml:8: spec.template.spec.replicas",
        ),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", "test.yaml:2: kind"),
    ],
)
def test_a_manifest_that_is_wrong_is_named_with_its_field(text: str, where: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        render(text)
    assert error.value.where == where


def test_the_command_prints_yaml_that_can_be_applied(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(SERVICE)
    done = subprocess.run(
        [*UPWELL, "render", "istio", "-f", str(file)], capture_output=True, text=True, check=True
    )
    assert list(yaml.safe_load_all(done.stdout)) == render(SERVICE)
    file.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n")
    refused = subprocess.run([*UPWELL, "render", "istio", "-f", str(file)], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Secret is not rendered" in refused.stderr

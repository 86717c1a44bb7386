"""The Ingress of a Route: what Knative makes, rule for rule, and the templates that name its hosts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from upwell.runtime.control.config import ConfigLayers, check_config_map, platform_config
from upwell.runtime.control.domains import Domains
from upwell.runtime.control.gc import RetentionSettings
from upwell.runtime.control.kingress import DOMAIN_VALUES, IngressSettings, host_names, route_ingress, url_of
from upwell.runtime.control.rollout import Assigned, Rollout, wanted_rollout
from upwell.runtime.control.templates import Template

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
LAYERS = ConfigLayers(("example.com",))
RECORDED: dict[str, Any] = json.loads(gzip.decompress((GOLDEN / "routes.json.gz").read_bytes()))


def route(
    name: str, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": "u-1"}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Route",
        "metadata": {**metadata, "labels": labels or {}, "annotations": annotations or {}},
    }


@pytest.mark.parametrize("case", RECORDED["ingresses"])
def test_every_recorded_ingress_of_knative_is_ours(case: dict[str, Any]) -> None:
    maps = {name: case[name] for name in ("config-network", "config-features", "config-domain")}
    traffic = [Assigned(*target) for target in case["traffic"]]
    rollout = Rollout.from_json(case["rollout"]) or wanted_rollout(traffic)
    settings = platform_config(maps, LAYERS).ingress
    assert route_ingress(case["route"], traffic, settings, rollout) == case["ingress"]


def test_the_ingress_that_the_article_prints_is_what_ours_is_for_that_service() -> None:
    wanted = yaml.safe_load((GOLDEN / "article" / "kingress.yaml").read_text())
    user = "1281429699509011-1724722123"
    annotations = {"serving.knative.dev/creator": user, "serving.knative.dev/lastModifier": user}
    traffic = [Assigned("httpbin-00001", "httpbin", 100, True, "")]
    maps = {"config-features": {"tag-header-based-routing": "enabled"}}
    made = route_ingress(
        route("httpbin", {"serving.knative.dev/service": "httpbin"}, annotations),
        traffic,
        platform_config(maps, LAYERS).ingress,
        wanted_rollout(traffic),
    )
    (owner,) = made["metadata"].pop("ownerReferences")
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Route", "httpbin", True)
    assert made == wanted


def test_each_external_host_has_a_rule_of_its_own_with_the_url_first() -> None:
    settings = IngressSettings(Domains((), ("example.com", "localhost")))
    traffic = [Assigned("shop-00001", "shop", 100, True, "")]
    made = route_ingress(route("shop"), traffic, settings, wanted_rollout(traffic))
    assert [(rule["visibility"], rule["hosts"]) for rule in made["spec"]["rules"]] == [
        ("ClusterLocal", ["shop.default", "shop.default.svc", "shop.default.svc.cluster.local"]),
        ("ExternalIP", ["shop.default.example.com"]),
        ("ExternalIP", ["shop.default.localhost"]),
    ]
    assert (
        url_of(host_names(route("shop"), "", settings), settings, 8080) == "http://shop.default.example.com:8080"
    )
    assert url_of(host_names(route("shop"), "v1", settings), settings, 80) == "http://v1-shop.default.example.com"


def test_a_private_route_has_names_inside_alone() -> None:
    settings = IngressSettings(Domains((), ("example.com",)))
    private = route("shop", {"networking.knative.dev/visibility": "cluster-local"})
    traffic = [Assigned("shop-00001", "shop", 100, True, "v1")]
    made = route_ingress(private, traffic, settings, wanted_rollout(traffic))
    assert {rule["visibility"] for rule in made["spec"]["rules"]} == {"ClusterLocal"}
    assert (
        url_of(host_names(private, "v1", settings), settings, 8080) == "http://v1-shop.default.svc.cluster.local"
    )


def test_the_state_of_a_rollout_stays_the_platforms_whatever_the_route_says() -> None:
    traffic = [Assigned("shop-00001", "shop", 100, True, "")]
    told = route("shop", annotations={"networking.internal.knative.dev/rollout": "{}", "mine": "kept"})
    made = route_ingress(told, traffic, IngressSettings(Domains((), ())), wanted_rollout(traffic))
    annotations = made["metadata"]["annotations"]
    assert Rollout.from_json(annotations["networking.internal.knative.dev/rollout"]) == wanted_rollout(traffic)
    assert annotations["mine"] == "kept"


# config-network, config-features, config-gc


def test_config_network_sets_hosts_class_option_scheme_and_duration() -> None:
    data = {
        "domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}",
        "tag-template": "{{.Name}}--{{.Tag}}",
        "ingress-class": "kourier.ingress.networking.knative.dev",
        "http-protocol": "redirected",
        "rollout-duration": "90",
        "default-external-scheme": "https",
    }
    assert check_config_map("config-network", data, LAYERS) == ({}, [])
    settings = platform_config({"config-network": data}, LAYERS).ingress
    assert (settings.http_option, settings.rollout_seconds) == ("Redirected", 90)
    hosts = host_names(route("shop"), "v1", settings)
    assert hosts.external == ("shop--v1-default.example.com",)
    assert hosts.local[0] == "shop--v1.default", "inside the default template holds"
    assert url_of(hosts, settings, 8080) == "https://shop--v1-default.example.com"
    assert settings.ingress_class == "kourier.ingress.networking.knative.dev"


def test_of_two_spellings_of_a_key_the_newer_counts() -> None:
    data = {"domainTemplate": "{{.Name}}.old.{{.Domain}}", "domain-template": "{{.Name}}.new.{{.Domain}}"}
    settings = platform_config({"config-network": data}, LAYERS).ingress
    assert host_names(route("a"), "", settings).external == ("a.new.example.com",)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("domain-template", "{{.Name}}.{{.Domain}}/x"),
        ("domain-template", "{{.Nmae}}"),
        ("domain-template", ""),
        ("tag-template", "{{.Tag}}-{{.Namespace}}"),
        ("rollout-duration", "-1"),
        ("rollout-duration", "1m"),
        ("http-protocol", "on"),
        ("default-external-scheme", "ftp"),
    ],
)
def test_a_key_of_config_network_that_cannot_be_used_is_told_and_leaves_the_default(key: str, text: str) -> None:
    assert list(check_config_map("config-network", {key: text}, LAYERS).faults) == [key]
    assert platform_config({"config-network": {key: text}}, LAYERS) == platform_config({}, LAYERS)


def test_what_does_nothing_here_is_taken_with_a_warning() -> None:
    network = check_config_map("config-network", {"mesh-compatibility-mode": "auto", "x": ""}, LAYERS)
    assert network.faults == {}
    assert [warning.partition(":")[0] for warning in network.warnings] == [
        "data.x",
        "data.mesh-compatibility-mode",
    ]
    features = check_config_map("config-features", {"multi-container": "enabled"}, LAYERS)
    assert features == ({}, ["data.multi-container: kept, but does nothing on this machine"])
    odd = check_config_map("config-features", {"tag-header-based-routing": "yes"}, LAYERS)
    assert "not Enabled, Allowed or Disabled" in odd.warnings[0]


@pytest.mark.parametrize(
    ("flag", "is_on"), [("Enabled", True), ("allowed", False), ("disabled", False), ("1", False)]
)
def test_only_enabled_lets_a_header_choose_the_tag(flag: str, is_on: bool) -> None:
    config = platform_config({"config-features": {"tag-header-based-routing": flag}}, LAYERS)
    assert config.ingress.has_tag_header_routing is is_on


def test_config_gc_says_what_is_kept() -> None:
    data = {
        "retain-since-create-time": "1h",
        "retain-since-last-active-time": "Disabled",
        "min-non-active-revisions": "2",
        "max-non-active-revisions": "disabled",
    }
    assert check_config_map("config-gc", data, LAYERS) == ({}, [])
    assert platform_config({"config-gc": data}, LAYERS).retention == RetentionSettings(3600, None, 2, None)
    assert platform_config({}, LAYERS).retention == RetentionSettings()


@pytest.mark.parametrize(
    "data",
    [
        {"min-non-active-revisions": "-1"},
        {"min-non-active-revisions": "disabled"},
        {"min-non-active-revisions": "5", "max-non-active-revisions": "4"},
        {"min-non-active-revisions": "1001"},
    ],
)
def test_a_minimum_that_cannot_be_kept_is_refused(data: dict[str, str]) -> None:
    assert list(check_config_map("config-gc", data, LAYERS).faults) == ["min-non-active-revisions"]


# Templates


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{.Name}}.{{ .Namespace }}", "name.namespace"),
        ("a {{- .Name -}} b", "anameb"),
        ('{{index .Labels "team"}}-{{.Annotations.sub}}-{{.Labels.none}}', "blue-eu-"),
        ('{{if .Labels.team}}yes{{else}}no{{end}}{{if index .Labels "x"}}x{{end}}', "yes"),
        ('{{if eq .Labels.team "red" "green"}}1{{else if ne .Name "n"}}2{{else}}3{{end}}', "2"),
        ('{{or .Labels.none (index .Labels "team") "other"}}{{/* why */}}', "blue"),
        ("{{if and .Labels.team (not .Labels.none)}}{{`raw`}}{{end}}", "raw"),
        ('{{eq .Name "name"}}', "true"),
        ("{{if .Labels}}labels{{end}}", "labels"),
    ],
)
def test_a_template_makes_what_go_makes_of_it(text: str, made: str) -> None:
    values = {**DOMAIN_VALUES, "Labels": {"team": "blue"}, "Annotations": {"sub": "eu"}}
    assert Template.read(text, DOMAIN_VALUES).render(values) == made


@pytest.mark.parametrize(
    "text",
    [
        "{{.Foo}}",
        "{{.Name.Foo}}",
        "{{.Labels}}",
        "{{if .Name}}",
        "{{end}}",
        "{{else}}",
        "{{.Name",
        "{{}}",
        "{{.Name | printf}}",
        "{{printf .Name}}",
        "{{range .Labels}}{{end}}",
        '{{index .Name "x"}}',
        "{{index .Labels}}",
        "{{eq .Name}}",
        "{{eq .Labels .Name}}",
        "{{if .Labels.never}}{{.Foo}}{{end}}",
        "{{(.Name}}",
        "{{.Name .Domain}}",
        "{{" + "(" * 4000,
        "{{" + "(" * 2000 + ".Name" + ")" * 2000 + "}}",
        "{{if .Name}}" * 300 + "{{end}}" * 300 + "{{.Foo}}",
        "x" * 5000,
    ],
)
def test_a_template_that_go_or_this_platform_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Template.read(text, DOMAIN_VALUES)

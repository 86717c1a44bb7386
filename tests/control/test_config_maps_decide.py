"""What the platform's ConfigMaps come to, by themselves and between what is presumed and what flags say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.api.serving import Defaults
from upwell.runtime.control.config import CONFIG_MAPS, ConfigLayers, check_config_map, platform_config
from upwell.runtime.control.domains import Domains, loopback_domains, read_domains

OWN = ("localhost", "example.com")
LAYERS = ConfigLayers(OWN, {"initial-scale": "0", "allow-zero-initial-scale": "true"}, {"stable-window": "30s"})
LOCAL = {"networking.knative.dev/visibility": "cluster-local"}


def domains(**data: str) -> Domains:
    found, faults = read_domains({key.replace("_", "."): text for key, text in data.items()}, OWN)
    assert faults == {}
    return found


# config-domain


def test_without_a_config_map_the_platforms_own_domains_hold() -> None:
    assert platform_config({}, LAYERS).domains.of({"app": "x"}) == OWN


def test_a_domain_without_a_selector_is_for_everybody() -> None:
    assert domains(mydomain_com="").of({}) == ("mydomain.com",)
    assert domains(mydomain_com="{}").of({}) == ("mydomain.com",)
    assert domains(mydomain_com="selector:").of({"a": "b"}) == ("mydomain.com",)


def test_names_below_localhost_always_lead_here() -> None:
    assert loopback_domains(("localhost", "example.com", "a.localhost", "notlocalhost")) == (
        "localhost",
        "a.localhost",
    )


def test_the_domain_with_the_most_labels_that_fit_wins_and_then_the_first_by_name() -> None:
    found = domains(
        everybody_com="",
        app_com="selector:\n  app: x",
        blog_com="selector:\n  app: x",
        both_com="selector:\n  app: x\n  tier: y",
    )
    assert found.of({})[0] == "everybody.com"
    assert found.of({"app": "x"})[0] == "app.com"
    assert found.of({"app": "x", "tier": "y"})[0] == "both.com"
    assert found.of({"tier": "y"})[0] == "everybody.com"


def test_without_a_default_the_others_answer_inside_only() -> None:
    found = domains(app_com="selector:\n  app: x")
    assert found.of({"app": "x"}) == ("app.com",)
    assert found.of({}) == ()
    inside = domains(everybody_com="", svc_cluster_local="selector:\n  app: secret")
    assert inside.of({"app": "secret"}) == ()


def test_a_service_that_is_cluster_local_has_no_domain() -> None:
    assert domains(mydomain_com="").of(LOCAL) == ()
    assert platform_config({}, LAYERS).domains.of(LOCAL) == ()


def test_the_example_sets_nothing() -> None:
    found, faults = read_domains({"_example": "not: [yaml", "a.com": ""}, OWN)
    assert (found.of({}), faults) == (("a.com",), {})


@pytest.mark.parametrize("text", ["[", "- a", "text", "selector: a", "selector: {a: 1}", "selectors: {a: b}"])
def test_a_domain_whose_value_is_no_selector_is_told_by_its_key(text: str) -> None:
    assert list(check_config_map("config-domain", {"a.com": text, "b.com": ""}, LAYERS).faults) == ["a.com"]


@pytest.mark.parametrize("key", ["A.com", "a..b", ".a", "a_b", "-a"])
def test_a_key_that_is_no_domain_is_refused(key: str) -> None:
    assert list(check_config_map("config-domain", {key: ""}, LAYERS).faults) == [key]


# config-autoscaler


def test_the_autoscalers_config_map_lies_between_the_platforms_defaults_and_its_flags() -> None:
    data = {"stable-window": "20s", "initial-scale": "2", "target-burst-capacity": "0"}
    config = platform_config({"config-autoscaler": data}, LAYERS).autoscaler
    assert (config.stable_window, config.initial_scale, config.target_burst_capacity) == (30.0, 2, 0.0)
    assert config.allow_zero_initial_scale
    assert platform_config({}, LAYERS).autoscaler.initial_scale == 0


def test_an_unusable_key_of_the_autoscaler_is_told() -> None:
    assert check_config_map("config-autoscaler", {"max-scale-up-rate": "1"}, LAYERS).faults == {
        "max-scale-up-rate": "must be above 1"
    }
    found = check_config_map("config-autoscaler", {"max-scale": "x"}, LAYERS).faults
    assert found["max-scale"].startswith("cannot be read")


# config-defaults


def test_defaults_are_read_and_the_first_bytes_limit_follows_the_whole_requests() -> None:
    data = {
        "revision-timeout-seconds": "100",
        "container-concurrency": "5",
        "allow-container-concurrency-zero": "false",
        "container-name-template": "app",
        "enable-service-links": "True",
    }
    assert platform_config({"config-defaults": data}, LAYERS).defaults == Defaults(
        timeout_seconds=100,
        response_start_timeout_seconds=100,
        container_concurrency=5,
        allow_zero_concurrency=False,
        container_name="app",
        enable_service_links=True,
    )


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"max-revision-timeout-seconds": "100"}, "revision-timeout-seconds"),
        ({"revision-timeout-seconds": "0"}, "revision-timeout-seconds"),
        ({"revision-timeout-seconds": "1.5"}, "revision-timeout-seconds"),
        ({"revision-idle-timeout-seconds": "301"}, "revision-idle-timeout-seconds"),
        ({"revision-response-start-timeout-seconds": "-1"}, "revision-response-start-timeout-seconds"),
        ({"container-concurrency": "1001"}, "container-concurrency"),
        ({"container-concurrency-max-limit": "0"}, "container-concurrency-max-limit"),
        ({"allow-container-concurrency-zero": "maybe"}, "allow-container-concurrency-zero"),
        ({"container-name-template": "{{.Name}}"}, "container-name-template"),
    ],
)
def test_defaults_that_cannot_be_are_told_by_their_key(data: dict[str, str], key: str) -> None:
    assert list(check_config_map("config-defaults", data, LAYERS).faults) == [key]
    assert platform_config({"config-defaults": data}, LAYERS).defaults == Defaults()


def test_keys_that_do_nothing_here_are_warned_of() -> None:
    data = {"revision-cpu-limit": "1", "revision-timeout": "1", "_example": "x"}
    assert check_config_map("config-defaults", data, LAYERS).warnings == [
        "data.revision-timeout: not a key of this ConfigMap, so it sets nothing; "
        "did you mean revision-timeout-seconds?",
        "data.revision-cpu-limit: kept, but does nothing on this machine",
    ]


# Whatever is stored

KEYS = st.sampled_from(
    ["a.com", "_example", "stable-window", "max-scale", "revision-timeout-seconds", "container-concurrency"]
)
VALUES = st.sampled_from(["", "0", "-1", "60s", "selector:\n  a: b", "[", "1e9", "true"]) | st.text(max_size=8)


@given(st.dictionaries(st.sampled_from(CONFIG_MAPS), st.dictionaries(KEYS, VALUES)))
def test_whatever_is_stored_the_platform_has_a_configuration(maps: dict[str, dict[str, str]]) -> None:
    config = platform_config(maps, LAYERS)
    assert isinstance(config.domains.of({"a": "b"}), tuple)
    assert 0 < config.defaults.timeout_seconds <= config.defaults.max_timeout_seconds

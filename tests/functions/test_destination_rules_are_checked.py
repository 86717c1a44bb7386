"""DestinationRules: Istio's fields, defaults and checks, and what is warned of."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from upwell.functions.api.destination_rule import DestinationRule
from upwell.functions.api.meta import faults
from upwell.functions.api.traffic_policy import OutlierDetection

ARTICLE = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "DestinationRule",
    "metadata": {"name": "httpbin", "namespace": "default"},
    "spec": {
        "host": "httpbin-00001-private",
        "trafficPolicy": {
            "outlierDetection": {
                "baseEjectionTime": "20s",
                "consecutiveErrors": 3,
                "interval": "5s",
                "maxEjectionPercent": 100,
            }
        },
    },
}


def rule(policy: dict[str, Any] | None = None, **spec: Any) -> DestinationRule:
    policies = {} if policy is None else {"trafficPolicy": policy}
    return DestinationRule.model_validate({**ARTICLE, "spec": {"host": "httpbin", **policies, **spec}})


def refused(policy: dict[str, Any] | None = None, **spec: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        rule(policy, **spec)
    return [fault.field for fault in faults(caught.value)]


def outlier(**fields: Any) -> OutlierDetection:
    return OutlierDetection.model_validate(fields)


# As printed


def test_the_articles_rule_is_taken_and_printed_as_it_is() -> None:
    assert DestinationRule.model_validate(ARTICLE).to_manifest() == ARTICLE


def test_the_articles_rule_is_warned_of_with_the_names_of_todays_fields() -> None:
    (warning,) = DestinationRule.model_validate(ARTICLE).warnings()
    assert warning.startswith("spec.trafficPolicy.outlierDetection.consecutiveErrors: deprecated")
    assert "consecutiveGatewayErrors: 3" in warning
    assert "consecutive5xxErrors: 3" in warning


def test_every_field_of_istio_is_taken() -> None:
    policy = {
        "loadBalancer": {
            "consistentHash": {
                "httpCookie": {"name": "u", "path": "/", "ttl": "0s"},
                "maglev": {"tableSize": 101},
            },
            "localityLbSetting": {"enabled": True, "failover": [{"from": "eu", "to": "us"}]},
            "warmup": {"duration": "30s", "minimumPercent": 10, "aggression": 1.5},
        },
        "connectionPool": {
            "tcp": {
                "maxConnections": 1,
                "connectTimeout": "30ms",
                "tcpKeepalive": {"probes": 3, "time": "7200s", "interval": "75s"},
                "maxConnectionDuration": "1h",
                "idleTimeout": "0s",
            },
            "http": {
                "http1MaxPendingRequests": 1,
                "http2MaxRequests": 1,
                "maxRequestsPerConnection": 1,
                "maxRetries": 1,
                "idleTimeout": "5s",
                "h2UpgradePolicy": "DO_NOT_UPGRADE",
                "useClientProtocol": False,
                "maxConcurrentStreams": 1,
            },
        },
        "outlierDetection": {
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 3,
            "consecutiveGatewayErrors": 2,
            "consecutive5xxErrors": 4,
            "interval": "1m30s",
            "baseEjectionTime": "1.5s",
            "maxEjectionPercent": 100,
            "minHealthPercent": 20,
            "outlierDetectionHttpErrorCodes": [429, 503],
        },
        "tls": {"mode": "ISTIO_MUTUAL", "sni": "x"},
        "portLevelSettings": [{"port": {"number": 80}, "loadBalancer": {"simple": "RANDOM"}}],
        "proxyProtocol": {"version": "V1"},
        "retryBudget": {"percent": 20, "minRetryConcurrency": 3},
    }
    subsets = [
        {"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}
    ]
    spec = {"host": "httpbin", "trafficPolicy": policy, "subsets": subsets, "exportTo": ["."]}
    manifest = {**ARTICLE, "spec": {**spec, "workloadSelector": {"matchLabels": {"app": "activator"}}}}
    assert DestinationRule.model_validate(manifest).to_manifest() == manifest


# Defaults


def test_unset_numbers_are_istios() -> None:
    unset = outlier()
    assert (unset.server_errors, unset.gateway_errors, unset.local_failures) == (5, 0, 0)
    assert (unset.interval_seconds, unset.base_ejection_seconds, unset.most_ejected_percent) == (10.0, 30.0, 10)
    assert outlier(maxEjectionPercent=0).most_ejected_percent == 10
    assert outlier(splitExternalLocalOriginErrors=True).local_failures == 5
    assert outlier(consecutive5xxErrors=0).server_errors == 0


def test_consecutive_errors_is_gateway_errors_alone_unless_a_current_field_is_set() -> None:
    old = outlier(consecutiveErrors=3)
    assert (old.server_errors, old.gateway_errors) == (0, 3)
    both = outlier(consecutiveErrors=3, consecutive5xxErrors=7)
    assert (both.server_errors, both.gateway_errors) == (7, 0)
    assert outlier(consecutiveErrors=0).server_errors == 5


# What is refused, by its field


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({}, ""),
        ({"outlierDetection": {"maxEjectionPercent": 101}}, ".outlierDetection.maxEjectionPercent"),
        ({"outlierDetection": {"interval": "0s"}}, ".outlierDetection.interval"),
        ({"outlierDetection": {"interval": "5"}}, ".outlierDetection.interval"),
        ({"outlierDetection": {"consecutiveErrors": -1}}, ".outlierDetection.consecutiveErrors"),
        ({"outlierDetection": {"consecutiveErors": 1}}, ".outlierDetection.consecutiveErors"),
        (
            {"outlierDetection": {"consecutiveLocalOriginFailures": 1}},
            ".outlierDetection.consecutiveLocalOriginFailures",
        ),
        (
            {"outlierDetection": {"outlierDetectionHttpErrorCodes": [600]}},
            ".outlierDetection.outlierDetectionHttpErrorCodes[0]",
        ),
        ({"loadBalancer": {"simple": "LEAST"}}, ".loadBalancer.simple"),
        ({"loadBalancer": {"consistentHash": {}}}, ".loadBalancer.consistentHash"),
        (
            {"loadBalancer": {"simple": "RANDOM", "consistentHash": {"useSourceIp": True}}},
            ".loadBalancer.consistentHash",
        ),
        (
            {"loadBalancer": {"consistentHash": {"useSourceIp": True, "httpHeaderName": "x"}}},
            ".loadBalancer.consistentHash.useSourceIp",
        ),
        (
            {"loadBalancer": {"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 100}}}},
            ".loadBalancer.consistentHash.maglev.tableSize",
        ),
        ({"loadBalancer": {"warmup": {}}}, ".loadBalancer.warmup.duration"),
        ({"loadBalancer": {"warmup": {"duration": "1s", "aggression": 0.5}}}, ".loadBalancer.warmup.aggression"),
        ({"connectionPool": {}}, ".connectionPool"),
        ({"connectionPool": {"http": {"maxRetries": -1}}}, ".connectionPool.http.maxRetries"),
        ({"portLevelSettings": [{"port": {"number": 80}}]}, ".portLevelSettings[0]"),
        ({"portLevelSettings": [{"port": {"number": 0}, "tls": {}}]}, ".portLevelSettings[0].port.number"),
    ],
)
def test_a_wrong_field_is_named(policy: dict[str, Any], field: str) -> None:
    assert refused(policy) == [f"spec.trafficPolicy{field}"]


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"distribute": [{"from": "eu", "to": {"eu/a": 50, "eu/b": 40}}]}, "distribute[0].to"),
        ({"distribute": [{"from": "eu", "to": {"eu/*": 50, "eu/b": 50}}]}, "distribute[0].to"),
        ({"distribute": [{"from": "e*/a", "to": {"eu": 100}}]}, "distribute"),
        ({"distribute": [{"from": "eu", "to": {"eu": 0}}]}, "distribute[0].to.eu"),
        ({"failover": [{"from": "eu", "to": "eu"}]}, "failover[0].to"),
        ({"failover": [{"from": "eu/a", "to": "us"}]}, "failover[0].from"),
        (
            {"distribute": [{"from": "eu", "to": {"eu": 100}}], "failover": [{"from": "eu", "to": "us"}]},
            "failover",
        ),
        (
            {"failover": [{"from": "eu", "to": "us"}], "failoverPriority": ["topology.kubernetes.io/zone"]},
            "failoverPriority[0]",
        ),
    ],
)
def test_a_wrong_locality_is_named(setting: dict[str, Any], field: str) -> None:
    policy = {"loadBalancer": {"localityLbSetting": setting}, "outlierDetection": {}}
    assert refused(policy) == [f"spec.trafficPolicy.loadBalancer.localityLbSetting.{field}"]


def test_subsets_have_names_of_their_own_and_a_rule_has_a_host() -> None:
    assert refused(subsets=[{"name": "v1"}, {"name": "v1"}]) == ["spec.subsets[1].name"]
    assert refused(host="") == ["spec.host"]


# What is warned of


@pytest.mark.parametrize(
    ("policy", "part"),
    [
        ({"outlierDetection": {"maxEjectionPercent": 50}}, "of fewer than 2 replicas none"),
        ({"outlierDetection": {}}, "unset, so 10; as in Envoy, of fewer than 10 replicas none"),
        (
            {"outlierDetection": {"consecutive5xxErrors": 0, "maxEjectionPercent": 100}},
            "no replica is ever ejected",
        ),
        (
            {"outlierDetection": {"consecutiveGatewayErrors": 5, "maxEjectionPercent": 100}},
            "consecutiveGatewayErrors: sets nothing",
        ),
        ({"loadBalancer": {"simple": "LEAST_CONN"}}, "write LEAST_REQUEST"),
        ({"loadBalancer": {"simple": "PASSTHROUGH"}}, "PASSTHROUGH"),
        ({"loadBalancer": {"simple": "RANDOM", "warmup": {"duration": "1s"}}}, "warmup: sets nothing"),
        ({"loadBalancer": {"warmupDurationSecs": "1s"}}, "write warmup.duration: 1s"),
        ({"loadBalancer": {"localityLbSetting": {"enabled": True}}}, "without outlierDetection"),
        ({"tls": {"mode": "SIMPLE"}}, "tls: sets nothing"),
        ({"connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE"}}}, "h2UpgradePolicy: sets nothing"),
        ({"connectionPool": {"tcp": {"tcpKeepalive": {}}}}, "tcpKeepalive: sets nothing"),
    ],
)
def test_a_field_without_the_expected_effect_is_warned_of(policy: dict[str, Any], part: str) -> None:
    (warning,) = rule(policy).warnings()
    assert part in warning
    assert warning.startswith("spec.trafficPolicy.")


def test_a_plain_rule_warns_of_nothing() -> None:
    assert rule({"loadBalancer": {"simple": "ROUND_ROBIN"}}).warnings() == []


# What holds for whom


def test_settings_of_a_port_take_the_place_of_all_others() -> None:
    found = rule(
        {
            "outlierDetection": {"maxEjectionPercent": 100},
            "portLevelSettings": [{"port": {"number": 8012}, "loadBalancer": {"simple": "RANDOM"}}],
        }
    )
    at_port = found.traffic_policy({}, ports={8012})
    assert at_port.outlier_detection is None
    assert at_port.load_balancer is not None
    assert found.traffic_policy({}, ports={80}).outlier_detection is not None


def test_a_subset_overrides_part_by_part_what_carries_its_labels() -> None:
    subset = {"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}
    found = rule({"outlierDetection": {}, "loadBalancer": {"simple": "ROUND_ROBIN"}}, subsets=[subset])
    chosen = {}
    for name, labels in (("in", {"version": "v1", "app": "x"}), ("out", {"version": "v2"})):
        policy = found.traffic_policy(labels)
        assert policy.outlier_detection is not None
        assert policy.load_balancer is not None
        chosen[name] = policy.load_balancer.simple
    assert chosen == {"in": "RANDOM", "out": "ROUND_ROBIN"}
    named = found.traffic_policy({}, subset="v1").load_balancer
    assert named is not None
    assert named.simple == "RANDOM"

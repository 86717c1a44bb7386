"""Routes, Ingresses and policies in tables, and what `describe` tells of traffic that is on its way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from upwell.runtime.api.resources import DESTINATION_RULE, RATE_LIMITER, VIRTUAL_SERVICE
from upwell.runtime.cli.routing import RULE_HEADERS, TRAFFIC_HEADERS, rollout_lines, rule_rows, traffic_rows
from upwell.runtime.cli.table import table
from upwell.runtime.cli.views import columns, row
from upwell.runtime.cluster.kinds import CONFIGURATION, INGRESS, ROUTE
from upwell.runtime.control.domains import Domains
from upwell.runtime.control.kingress import IngressSettings, route_ingress
from upwell.runtime.control.rollout import Assigned, Rollout, step, wanted_rollout

NOW = 1_700_000_000
NANOSECONDS = 1_000_000_000
METADATA = {"name": "shop", "namespace": "default", "uid": "u", "creationTimestamp": "2023-11-14T22:08:20Z"}
READY = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "RolloutInProgress"}]}
SETTINGS = IngressSettings(Domains((), ("example.com", "localhost")), has_tag_header_routing=True)


def lines(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [line.rstrip() for line in click.unstyle(table(headers, rows)).splitlines()]


def shown(kind: str, manifest: Mapping[str, Any], *, wide: bool = False) -> list[str]:
    chosen = columns(kind, wide=wide, with_namespace=False)
    return lines([column.header for column in chosen], [row(chosen, manifest, NOW)])


def traffic(generation: int) -> list[Assigned]:
    return [
        Assigned(f"shop-{generation:05d}", "shop", 80, True, "current"),
        Assigned("shop-00001", "shop", 20, False, ""),
    ]


def ingress(rollout: Rollout, generation: int = 2) -> dict[str, Any]:
    route = {"apiVersion": "serving.knative.dev/v1", "kind": "Route", "metadata": METADATA}
    made = route_ingress(route, traffic(generation), SETTINGS, rollout)
    made["metadata"]["creationTimestamp"] = METADATA["creationTimestamp"]
    return made | {"status": READY}


def test_a_route_shows_its_url_and_its_traffic() -> None:
    shares = [{"revisionName": "shop-00002", "percent": 80}, {"revisionName": "shop-00001", "percent": 20}]
    manifest = {
        "metadata": METADATA,
        "status": {**READY, "url": "http://shop.default.localhost", "traffic": shares},
    }
    assert shown(ROUTE, manifest) == [
        "NAME   URL                             READY     REASON              TRAFFIC",
        "shop   http://shop.default.localhost   Unknown   RolloutInProgress   shop-00002=80%,shop-00001=20%",
    ]


def test_a_configuration_shows_its_newest_revisions() -> None:
    status = {"latestCreatedRevisionName": "shop-00002", "latestReadyRevisionName": "shop-00001"}
    assert shown(CONFIGURATION, {"metadata": METADATA, "spec": {}, "status": status}) == [
        "NAME   LATESTCREATED   LATESTREADY   READY   REASON",
        "shop   shop-00002      shop-00001",
    ]


def test_an_ingress_shows_where_it_answers_and_how_its_main_rule_is_shared() -> None:
    manifest = ingress(wanted_rollout(traffic(2)))
    hosts = "shop.default.example.com,shop.default.localhost,"
    hosts += "current-shop.default.example.com,current-shop.default.localhost"
    name = "istio.ingress.networking.knative.dev"
    header, cells = shown(INGRESS, manifest, wide=True)
    assert header.split() == ["NAME", "READY", "REASON", "HOSTS", "TRAFFIC", "CLASS", "AGE"]
    traffic_cell = "shop-00002=80%,shop-00001=20%"
    assert cells.split() == ["shop", "Unknown", "RolloutInProgress", hosts, traffic_cell, name, "5m"]
    private = manifest | {"spec": {"rules": manifest["spec"]["rules"][:1]}}
    assert shown(INGRESS, private)[1].endswith("shop.default,shop.default.svc,shop.default.svc.cluster.local")


def test_policies_show_whom_they_are_for_and_whether_they_stand() -> None:
    rule = {"metadata": METADATA, "spec": {"host": "shop-00001-private.default"}, "status": READY}
    assert shown(DESTINATION_RULE, rule) == [
        "NAME   HOST                         READY     REASON              AGE",
        "shop   shop-00001-private.default   Unknown   RolloutInProgress   5m",
    ]
    service = {"metadata": METADATA, "spec": {"hosts": ["a.com", "b.com"], "gateways": ["g"]}}
    assert shown(VIRTUAL_SERVICE, service) == [
        "NAME   GATEWAYS   HOSTS         READY   REASON   AGE",
        "shop   g          a.com,b.com                    5m",
    ]
    assert shown(RATE_LIMITER, {"metadata": METADATA, "spec": {}})[0] == "NAME   READY   REASON   AGE"


def test_traffic_is_told_with_its_tags() -> None:
    told = [
        {
            "revisionName": "b",
            "percent": 80,
            "latestRevision": True,
            "tag": "now",
            "url": "http://now-a.default.x",
        },
        {"revisionName": "a", "percent": 20, "latestRevision": False},
    ]
    assert lines(TRAFFIC_HEADERS, traffic_rows({"status": {"traffic": told}})) == [
        "PERCENT   REVISION   LATEST   TAG   URL",
        "80%       b          yes      now   http://now-a.default.x",
        "20%       a",
    ]
    assert traffic_rows({}) == []


def test_the_rules_of_an_ingress_are_told_in_the_order_in_which_they_are_tried() -> None:
    rows = rule_rows(ingress(wanted_rollout(traffic(2))))
    assert lines(RULE_HEADERS, rows[2:4]) == [
        "HOSTS                      VISIBILITY   PATH   HEADERS                       TRAFFIC",
        "shop.default.example.com   ExternalIP   /      Knative-Serving-Tag=current   shop-00002=100%",
        f"shop.default.example.com   ExternalIP   /      {'':27}   shop-00002=80%,shop-00001=20%",
    ]


def test_what_is_on_its_way_is_told_with_its_next_step() -> None:
    now = NOW * NANOSECONDS
    begun = step(wanted_rollout(traffic(2)), wanted_rollout(traffic(3)), now, 20, became_ready=False).rollout
    assert list(rollout_lines(ingress(begun, 3), NOW)) == [
        "shop-00002 79% to shop-00003 1%; goes on when the gateway answers with this",
        "tag current: shop-00002 99% to shop-00003 1%; goes on when the gateway answers with this",
    ]
    timed = step(begun, wanted_rollout(traffic(3)), now + 2 * NANOSECONDS, 20, became_ready=True).rollout
    assert next(rollout_lines(ingress(timed, 3), NOW + 2)) == (
        "shop-00002 79% to shop-00003 1%; 9% more every 2s, the next in 2s"
    )
    third = step(timed, wanted_rollout(traffic(4)), now, 20, became_ready=False).rollout
    assert next(rollout_lines(ingress(third, 4), NOW)).startswith("shop-00002 79% to shop-00004 1%")
    assert list(rollout_lines(ingress(wanted_rollout(traffic(2))), NOW)) == []
    spoilt = ingress(begun)
    spoilt["metadata"]["annotations"] = {
        "networking.internal.knative.dev/rollout": json.dumps({"configurations": 1})
    }
    assert list(rollout_lines(spoilt, NOW)) == []

"""What is printed of objects, to the letter."""

import json
from typing import Any

import click
import pytest
import yaml

from upwell.functions.errors import InvalidInput
from upwell.runtime.api.resources import (
    CIRCUIT_BREAKER,
    DESTINATION_RULE,
    QUOTA_SCHEDULING,
    RATE_LIMITER,
    RESOURCES,
    VIRTUAL_SERVICE,
)
from upwell.runtime.cli.named import find_resource, named_objects
from upwell.runtime.cli.options import duration as parse_duration
from upwell.runtime.cli.output import as_json, as_yaml
from upwell.runtime.cli.selector import carries, parse_labels
from upwell.runtime.cli.table import Table, age, duration, table
from upwell.runtime.cli.views import columns, row
from upwell.runtime.cluster.kinds import (
    CONFIG_MAP,
    CONFIGURATION,
    DEPLOYMENT,
    INGRESS,
    REVISION,
    ROUTE,
    SERVICE,
)

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def service(name: str, ready: str, reason: str = "") -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready} | ({"reason": reason} if reason else {})
    revision = f"{name}-00001"
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2023-11-14T22:08:20Z",
        },
        "spec": {"template": {"spec": {"containers": [{"image": "registry.example.com/x:1"}]}}},
        "status": {
            "conditions": [condition],
            "url": f"http://{name}.team.localhost:8080",
            "latestCreatedRevisionName": revision,
            "traffic": [{"revisionName": revision, "percent": 100}] if ready == "True" else [],
        }
        | ({"latestReadyRevisionName": revision} if ready == "True" else {}),
    }


def shown(kind: str, objects: list[dict[str, Any]], *, wide: bool = False, everywhere: bool = False) -> list[str]:
    chosen = columns(kind, wide=wide, with_namespace=everywhere)
    headers = [column.header for column in chosen]
    return click.unstyle(table(headers, [row(chosen, each, NOW) for each in objects])).splitlines()


def test_services_are_listed_with_knatives_columns() -> None:
    assert shown(SERVICE, [service("hello", "True"), service("goodbye", "False", "RevisionFailed")]) == [
        "NAME      URL                                  LATESTCREATED   LATESTREADY   READY   REASON",
        "hello     http://hello.team.localhost:8080     hello-00001     hello-00001   True",
        "goodbye   http://goodbye.team.localhost:8080   goodbye-00001                 False   RevisionFailed",
    ]


def test_a_service_that_says_nothing_yet_is_blank() -> None:
    bare = {"metadata": {"name": "new", "namespace": "team"}, "spec": {}}
    assert shown(SERVICE, [bare]) == ["NAME   URL   LATESTCREATED   LATESTREADY   READY   REASON", "new"]


def test_wide_and_all_namespaces_add_columns() -> None:
    header, line = shown(SERVICE, [service("hello", "True")], wide=True, everywhere=True)
    assert header.split()[0] == "NAMESPACE"
    assert header.split()[-3:] == ["TRAFFIC", "IMAGE", "AGE"]
    assert line.split()[0] == "team"
    assert line.split()[-3:] == ["hello-00001=100%", "registry.example.com/x:1", "5m"]


def test_revisions_are_listed_with_knatives_columns() -> None:
    revision = {
        "metadata": {
            "name": "hello-00001",
            "labels": {
                "serving.knative.dev/configuration": "hello",
                "serving.knative.dev/configurationGeneration": "1",
            },
        },
        "spec": {"containers": [{"image": "x"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "actualReplicas": 0, "desiredReplicas": 0},
    }
    assert shown(REVISION, [revision]) == [
        "NAME          CONFIG NAME   GENERATION   READY   REASON   ACTUAL REPLICAS   DESIRED REPLICAS",
        "hello-00001   hello         1            True             0                 0",
    ]


def test_other_kinds_have_their_columns() -> None:
    metadata = {"name": "x", "creationTimestamp": "2023-11-14T21:13:20Z"}
    deployment = {"metadata": metadata, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}}
    assert shown(DEPLOYMENT, [deployment]) == ["NAME   READY   AVAILABLE   AGE", "x      1/2     1           60m"]
    config = {"metadata": metadata, "data": {"a": "1", "b": "2"}}
    assert shown(CONFIG_MAP, [config]) == ["NAME   DATA   AGE", "x      2      60m"]
    assert shown("Pizza.example.com", [{"metadata": metadata}])[0] == "NAME   READY   REASON   AGE"


def test_a_later_row_is_aligned_with_what_was_printed() -> None:
    growing = Table(["NAME", "READY"])
    assert growing.header([["hello", "True"]]) == "NAME    READY"
    assert [click.unstyle(line) for line in growing.lines([["a-longer-name", "True"]])] == ["a-longer-name   True"]
    assert [click.unstyle(line) for line in growing.lines([["b", "True"]])] == ["b               True"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"), (0, "0s"), (119.9, "119s"), (120, "2m"), (125, "2m5s"), (599, "9m59s"), (600, "10m"),
        (3 * 3600 - 1, "179m"), (3 * 3600, "3h"), (7.5 * 3600, "7h30m"), (8.5 * 3600, "8h"), (47 * 3600, "47h"),
        (50 * 3600, "2d2h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (731 * 86400, "2y1d"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_as_kubectl_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_needs_a_time() -> None:
    assert age("2023-11-14T22:13:15Z", NOW) == "5s"
    assert age(None, NOW) == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("2m", 120), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("7", 7)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "-1s", "1m30", "1 m", "nan", "1d", "60s "])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no duration"):
        parse_duration(text)


def test_yaml_is_without_the_stores_own_and_in_the_usual_order() -> None:
    text = as_yaml([dict(reversed(service("a", "True").items())), service("b", "True")])
    first, second = yaml.safe_load_all(text)
    assert list(first) == ["apiVersion", "kind", "metadata", "spec", "status"]
    assert set(first["metadata"]) == {"name", "namespace", "creationTimestamp"}
    assert second["metadata"]["name"] == "b"


def test_a_templates_metadata_stand_before_its_spec() -> None:
    one = service("a", "True")
    one["spec"] = {
        "traffic": [],
        "template": {"spec": one["spec"]["template"]["spec"], "metadata": {"name": "a-1"}},
    }
    assert list(next(yaml.safe_load_all(as_yaml([one])))["spec"]["template"]) == ["metadata", "spec"]


def test_json_is_whole_and_several_are_a_list() -> None:
    one = service("a", "True")
    assert json.loads(as_json([one], one=True)) == one
    assert json.loads(as_json([one], one=False)) == {"apiVersion": "v1", "kind": "List", "items": [one]}


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("ksvc kservice kservices service services Services services.serving.knative.dev", SERVICE),
        ("service.serving.knative.dev rev", None),
        ("rev revision revisions revisions.serving.knative.dev", REVISION),
        ("deploy deployment deployments deployments.apps", DEPLOYMENT),
        ("cfg config configuration configurations configurations.serving.knative.dev", CONFIGURATION),
        ("rt route routes routes.serving.knative.dev", ROUTE),
        ("dr destinationrule destinationrules.networking.istio.io", DESTINATION_RULE),
        ("vs virtualservice virtualservices.networking.istio.io", VIRTUAL_SERVICE),
        ("asmlocalratelimiter asmlocalratelimiters.istio.alibabacloud.com", RATE_LIMITER),
        ("asmcircuitbreakers ASMCircuitBreaker", CIRCUIT_BREAKER),
        ("quotaschedulingpolicy quotaschedulingpolicies", QUOTA_SCHEDULING),
        ("king kingress ingress ingresses ingresses.networking.internal.knative.dev", INGRESS),
        ("cm configmap configmaps", CONFIG_MAP),
    ],
)
def test_kinds_go_by_all_their_names(names: str, kind: str | None) -> None:
    found = {find_resource(name).type for name in names.split()}
    assert found == ({kind} if kind else {SERVICE, REVISION})


def test_no_two_kinds_share_a_name() -> None:
    names = [name for each in RESOURCES for name in each.names]
    assert len(names) == len(set(names))


def test_an_unknown_kind_is_refused_with_what_is_alike_or_what_there_is() -> None:
    with pytest.raises(InvalidInput, match="Did you mean revisions"):
        find_resource("revisons")
    with pytest.raises(InvalidInput, match="ksvc/services, rev/revisions"):
        find_resource("pizza")


def test_objects_are_named_with_a_slash_or_without() -> None:
    assert [str(each) for each in named_objects("ksvc", ["a", "b"], None)] == [
        "service.serving.knative.dev/a",
        "service.serving.knative.dev/b",
    ]
    (found,) = named_objects("ksvc/a", [], "team")
    assert (found.namespace, found.name) == ("team", "a")
    assert named_objects("ns", ["team"], "x")[0].namespace == ""
    for kind, names in (("ksvc", []), ("ksvc/", []), ("ksvc/a", ["b"]), ("ksvc", [""])):
        with pytest.raises(InvalidInput):
            named_objects(kind, names, None)


def test_labels_select_by_equality() -> None:
    labels = parse_labels(["a=1,b==2", "c="])
    assert labels == {"a": "1", "b": "2", "c": ""}
    assert carries({"metadata": {"labels": {"a": "1", "b": "2", "c": "", "d": "4"}}}, labels)
    assert not carries({"metadata": {}}, labels)
    for wrong in ("a", "a!=1", "=1", "a in (b)"):
        with pytest.raises(InvalidInput, match="LABEL=VALUE"):
            parse_labels([wrong])

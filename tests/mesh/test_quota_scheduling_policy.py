"""QuotaSchedulingPolicy as an object: as printed, in its place, refused with the field at fault."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from support.quota import priorities, quota_of
from upwell.functions.api.meta import faults
from upwell.functions.api.regex import Regex
from upwell.functions.api.scheduling import QuotaSchedulingPolicy, searching
from upwell.functions.errors import InvalidInput

MATCHER = "spec.quota_scheduler.scheduler.workloads[0].label_matcher"


def refused(manifest: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        QuotaSchedulingPolicy.model_validate(manifest)
    return {fault.field: fault.message for fault in faults(caught.value)}


def with_matcher(matcher: dict[str, Any]) -> dict[str, Any]:
    manifest = priorities()
    quota_of(manifest)["scheduler"]["workloads"][0]["label_matcher"] = matcher
    return manifest


def test_a_policy_prints_as_it_was_written() -> None:
    manifest = priorities(decision_deadline_margin="0.02s", denied_response_status_code="TooManyRequests")
    assert QuotaSchedulingPolicy.model_validate(manifest).to_manifest() == manifest


EXPRESSION = {
    "all": {
        "of": [
            {"not": {"label_exists": "one"}},
            {"any": {"of": [{"label_equals": {"label": "two", "value": "b"}}]}},
            {"label_matches": {"label": "three", "regex": "^c"}},
        ]
    }
}


def test_a_policy_knows_the_labels_that_it_reads() -> None:
    manifest = with_matcher(
        {
            "match_labels": {"four": "d"},
            "match_list": [{"key": "five", "operator": "Exists"}],
            "match_expressions": [{"key": "six", "operator": "In", "values": ["f"]}],
            "expression": EXPRESSION,
        }
    )
    quota_of(manifest)["rate_limiter"]["limit_by_label_key"] = "seven"
    quota_of(manifest)["selectors"][0]["label_matcher"] = {"match_labels": {"eight": "h"}}
    for name in ("tokens", "priority", "workload", "fairness"):
        quota_of(manifest)["scheduler"][f"{name}_label_key"] = name
    policy = QuotaSchedulingPolicy.model_validate(manifest)
    assert policy.to_manifest() == manifest
    assert policy.spec.quota_scheduler.labels == {
        *("one", "two", "three", "four", "five", "six", "seven", "eight"),
        *("tokens", "priority", "workload", "fairness"),
        "http.request.header.user_type",
    }


def test_selectors_below_the_scheduler_are_lifted_with_a_warning_that_names_the_right_place() -> None:
    manifest = priorities()
    printed = deepcopy(manifest)
    quota_of(printed)["scheduler"]["selectors"] = quota_of(printed).pop("selectors")
    before = deepcopy(printed)
    lifted, warnings = QuotaSchedulingPolicy.lift(printed)
    assert lifted == manifest
    assert printed == before
    assert warnings == [
        "spec.quota_scheduler.scheduler.selectors is read as spec.quota_scheduler.selectors, where it belongs"
    ]


def test_what_is_in_place_is_not_moved() -> None:
    manifest = priorities()
    assert QuotaSchedulingPolicy.lift(manifest) == (manifest, [])
    for odd in ({}, {"spec": None}, {"spec": {"quota_scheduler": [1]}}):
        assert QuotaSchedulingPolicy.lift(odd) == (odd, [])


def test_selectors_in_both_places_are_a_fault() -> None:
    manifest = priorities()
    quota_of(manifest)["scheduler"]["selectors"] = quota_of(manifest)["selectors"]
    lifted, warnings = QuotaSchedulingPolicy.lift(manifest)
    assert warnings == []
    assert refused(lifted) == {"spec.quota_scheduler.scheduler.selectors": "unknown field"}


def test_what_is_absent_has_the_defaults_of_the_reference() -> None:
    manifest = priorities()
    quota_of(manifest)["scheduler"] = {}
    quota = QuotaSchedulingPolicy.model_validate(manifest).spec.quota_scheduler
    assert quota.rate_limiter.fills_continuously
    assert quota.rate_limiter.max_idle_seconds == 7200
    assert quota.scheduler.margin_seconds == 0.01
    assert quota.scheduler.denied_status == 503
    assert quota.selectors[0].is_ingress
    assert quota.selectors[0].port_number is None


def test_a_status_may_be_named_or_numbered() -> None:
    for given_status, meant in (("TooManyRequests", 429), (429, 429), ("ServiceUnavailable", 503), (0, 503)):
        manifest = priorities(denied_response_status_code=given_status)
        scheduler = QuotaSchedulingPolicy.model_validate(manifest).spec.quota_scheduler.scheduler
        assert scheduler.denied_status == meant


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("bucket_capacity",), -1, "bucket_capacity"),
        (("bucket_capacity",), "10", "bucket_capacity"),
        (("fill_amount",), float("inf"), "fill_amount"),
        (("rate_limiter", "interval"), "0s", "rate_limiter.interval"),
        (("rate_limiter", "interval"), 1, "rate_limiter.interval"),
        (("rate_limiter", "intervall"), "1s", "rate_limiter.intervall"),
        (("scheduler", "decision_deadline_margin"), "soon", "scheduler.decision_deadline_margin"),
        (("scheduler", "denied_response_status_code"), 199, "scheduler.denied_response_status_code"),
        (("scheduler", "denied_response_status_code"), "Odd", "scheduler.denied_response_status_code"),
        (("selectors",), [], "selectors"),
    ],
)
def test_a_wrong_field_is_refused_with_its_path(path: tuple[str, ...], value: object, field: str) -> None:
    manifest = priorities()
    place = quota_of(manifest)
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert list(refused(manifest)) == [f"spec.quota_scheduler.{field}"]


@pytest.mark.parametrize("name", ["bucket_capacity", "fill_amount", "rate_limiter", "scheduler", "selectors"])
def test_what_is_required_is_asked_for(name: str) -> None:
    manifest = priorities()
    del quota_of(manifest)[name]
    assert refused(manifest) == {f"spec.quota_scheduler.{name}": "required, but missing"}


@pytest.mark.parametrize("priority", [0, -1, float("nan")])
def test_a_priority_is_above_zero(priority: float) -> None:
    manifest = priorities(default_workload_parameters={"priority": priority})
    assert list(refused(manifest)) == ["spec.quota_scheduler.scheduler.default_workload_parameters.priority"]


@pytest.mark.parametrize(("index", "name"), [(1, "guest"), (0, "default"), (1, "0"), (1, "1")])
def test_names_of_workloads_are_their_own(index: int, name: str) -> None:
    manifest = priorities()
    quota_of(manifest)["scheduler"]["workloads"][index]["name"] = name
    (field,) = refused(manifest)
    assert field == f"spec.quota_scheduler.scheduler.workloads[{index}].name"


@pytest.mark.parametrize(
    ("matcher", "field"),
    [
        ({"match_list": [{"key": "a", "operator": "In"}]}, ".match_list[0].values"),
        ({"match_list": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, ".match_list[0].values"),
        ({"match_expressions": [{"key": "a", "operator": "Like"}]}, ".match_expressions[0].operator"),
        ({"expression": {}}, ".expression"),
        ({"expression": {"label_exists": "a", "not": {"label_exists": "b"}}}, ".expression"),
        ({"expression": {"any": {"of": [{"label_exists": ""}]}}}, ".expression.any.of[0].label_exists"),
        ({"expression": {"label_matches": {"label": "a", "regex": "("}}}, ".expression.label_matches.regex"),
        (
            {"expression": {"label_matches": {"label": "a", "regex": "(?!b)"}}},
            ".expression.label_matches.regex",
        ),
    ],
)
def test_a_matcher_is_refused_with_the_field_at_fault(matcher: dict[str, Any], field: str) -> None:
    assert list(refused(with_matcher(matcher))) == [MATCHER + field]


def test_expressions_stand_in_each_other_to_a_bounded_depth() -> None:
    expression: dict[str, Any] = {"label_exists": "a"}
    for _ in range(31):
        expression = {"not": expression}
    assert QuotaSchedulingPolicy.model_validate(with_matcher({"expression": expression})).warnings() == []
    assert f"{MATCHER}.expression" in refused(with_matcher({"expression": {"not": expression}}))


@pytest.mark.parametrize(
    ("label", "is_warned_of"),
    [
        ("http.request.headers.user_type", True),
        ("http.request.header.user-type", True),
        ("http.request.header.User_type", True),
        ("http.verb", True),
        ("http.request.header.user_type", False),
        ("http.method", False),
        ("user_type", False),
    ],
)
def test_a_label_that_no_request_has_is_told(label: str, is_warned_of: bool) -> None:
    manifest = with_matcher({"match_labels": {label: "guest"}})
    warnings = QuotaSchedulingPolicy.model_validate(manifest).warnings()
    said = f"spec.quota_scheduler: no request has the label {label!r}: "
    assert [warning.startswith(said) for warning in warnings] == [True] * is_warned_of


def test_a_field_of_one_type_or_another_is_told_once_and_by_its_own_name() -> None:
    manifest = priorities()
    quota_of(manifest)["scheduler"]["workloads"][0]["parameters"]["priority"] = "many"
    assert refused(manifest) == {
        "spec.quota_scheduler.scheduler.workloads[0].parameters.priority": "must be a number"
    }


def test_what_has_no_effect_is_told() -> None:
    manifest = with_matcher({})
    quota_of(manifest)["rate_limiter"]["lazy_sync"] = {"enabled": True, "num_sync": 4}
    quota_of(manifest)["selectors"] = [
        {"control_point": "egress"},
        {"control_point": "listener", "agent_group": "mine"},
        {"label_matcher": {"match_expressions": [{"key": "a", "operator": "Exists"}]}},
    ]
    told = QuotaSchedulingPolicy.model_validate(manifest).warnings()
    assert [each.split(" ")[0] for each in told] == [
        "spec.quota_scheduler.rate_limiter.lazy_sync",
        "spec.quota_scheduler.selectors[0].control_point:",
        "spec.quota_scheduler.selectors[1].control_point",
        "spec.quota_scheduler.selectors[1].agent_group",
        "spec.quota_scheduler.selectors[2].label_matcher.match_expressions",
        "spec.quota_scheduler.scheduler.workloads[1]",
    ]


PIECES = ["a", "b", "^", "$", "|", "(a|b)", "[|ab]", "\\|", "\\$", ".", "a*", "[^a]", "[]|]", "\\\\"]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.text("ab|$]\\", max_size=6))
def test_a_search_finds_what_a_search_by_another_engine_finds(pattern: str, text: str) -> None:
    compiled = re.compile(pattern, re.DOTALL)
    try:
        expression = Regex(searching(pattern))
    except InvalidInput:
        # An anchor in the middle is refused; nothing else here is.
        assert "^" in pattern or "$" in pattern
        return
    assert expression.matches(text) == (compiled.search(text) is not None)

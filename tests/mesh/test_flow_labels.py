"""Conditions on flow labels, and the readers that spare a request the making of all its labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.quota import GUEST, HEADER, SUBSCRIBER, request_with
from upwell.functions.api.scheduling import LabelMatcher
from upwell.runtime.mesh.flow_labels import compile_matcher, read_label

NAMES = ["user_type", "user-type", "a-b_c", "a-b-c", "a_b_c", "x", "baggage", "ce-type", "a-b-c-d-e"]
LABELS = [HEADER + name.replace("-", "_") for name in NAMES]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["1", "2", "user_type=3,http.method=4"]))),
    st.sampled_from(
        [*(HEADER + name.replace("-", "_") for name in NAMES), HEADER + "user-type", "http.method", "z"]
    ),
    st.sampled_from([(), ({"type": "t", "x": "4"},)]),
)
def test_a_reader_gives_what_stands_in_the_labels(
    fields: list[tuple[str, str]], label: str, events: tuple[dict[str, str], ...]
) -> None:
    request = request_with(*((name.encode(), value.encode()) for name, value in fields), events=events)
    assert read_label(label)(request) == request.labels.get(label)


def test_a_reader_of_a_header_does_not_make_all_labels() -> None:
    request = request_with(GUEST)
    assert read_label(f"{HEADER}user_type")(request) == "guest"
    assert request._labels is None


@pytest.mark.parametrize("spelling", [b"user_type", b"user-type"])
def test_both_spellings_of_a_header_are_one_label(spelling: bytes) -> None:
    matches = compile_matcher(LabelMatcher(match_labels={f"{HEADER}user_type": "guest"}))
    assert matches is not None
    assert matches(request_with((spelling, b"guest")))
    assert not matches(request_with((spelling, b"Guest")))


def test_an_empty_matcher_asks_for_nothing() -> None:
    assert compile_matcher(None) is None
    assert compile_matcher(LabelMatcher()) is None
    assert compile_matcher(LabelMatcher(match_labels={}, match_list=[])) is None


TYPE = f"{HEADER}user_type"


def requirement(operator: str, *values: str) -> dict[str, Any]:
    return {"match_list": [{"key": TYPE, "operator": operator, **({"values": list(values)} if values else {})}]}


def expression(**variant: Any) -> dict[str, Any]:
    return {"expression": variant}


EXISTS = {"label_exists": TYPE}
IS_GUEST = {"label_equals": {"label": TYPE, "value": "guest"}}


@pytest.mark.parametrize(
    ("matcher", "guest", "subscriber", "nobody"),
    [
        (requirement("In", "guest", "x"), True, False, False),
        (requirement("NotIn", "guest"), False, True, True),
        (requirement("Exists"), True, True, False),
        (requirement("DoesNotExist"), False, False, True),
        ({"match_expressions": requirement("In", "guest")["match_list"]}, True, False, False),
        ({**requirement("Exists"), "match_labels": {TYPE: "guest"}}, True, False, False),
        ({**requirement("NotIn", "guest"), **expression(label_exists=TYPE)}, False, True, False),
        (expression(label_exists=TYPE), True, True, False),
        (expression(label_equals={"label": TYPE, "value": "guest"}), True, False, False),
        (expression(label_equals={"label": TYPE}), False, False, False),
        (expression(label_matches={"label": TYPE, "regex": "ub"}), False, True, False),
        (expression(label_matches={"label": TYPE, "regex": "^gu|er$"}), True, True, False),
        (expression(label_matches={"label": TYPE, "regex": "^uest$"}), False, False, False),
        (expression(label_matches={"label": TYPE, "regex": ".*"}), True, True, False),
        (expression(**{"not": EXISTS}), False, False, True),
        (expression(all={"of": [EXISTS, {"not": IS_GUEST}]}), False, True, False),
        (expression(any={"of": [IS_GUEST, {"not": EXISTS}]}), True, False, True),
        (expression(all={"of": []}), True, True, True),
        (expression(any={"of": []}), False, False, False),
    ],
)
def test_what_a_matcher_asks_for(matcher: dict[str, Any], guest: bool, subscriber: bool, nobody: bool) -> None:
    matches = compile_matcher(LabelMatcher.model_validate(matcher))
    assert matches is not None
    found = [matches(request) for request in (request_with(GUEST), request_with(SUBSCRIBER), request_with())]
    assert found == [guest, subscriber, nobody]

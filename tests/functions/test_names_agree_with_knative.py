"""Generated names are those that Knative would give, and always valid."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.api.names import (
    LONGEST,
    child_name,
    is_dns_1035_label,
    is_dns_1123_label,
    revision_name,
)

labels = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
suffixes = st.from_regex(r"-[a-z0-9]([-a-z0-9]{0,70}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("parent", "suffix", "expected"),
    [
        ("hello", "-00001", "hello-00001"),
        ("asdf", "-deployment", "asdf-deployment"),
        ("f" * 63, "-deployment", "ffffffffffffffffffff105d7597f637e83cc711605ac3ea4957-deployment"),
        ("f" * 63, "-deploy", "ffffffffffffffffffffffff105d7597f637e83cc711605ac3ea4957-deploy"),
    ],
)
def test_child_names_are_knatives(parent: str, suffix: str, expected: str) -> None:
    assert child_name(parent, suffix) == expected


@given(labels, suffixes)
def test_child_of_a_valid_name_has_a_valid_name(parent: str, suffix: str) -> None:
    assert is_dns_1035_label(child_name(parent, suffix))


@given(labels, suffixes)
def test_child_name_that_fits_is_parent_and_suffix(parent: str, suffix: str) -> None:
    fits = len(parent) + len(suffix) <= LONGEST
    assert (child_name(parent, suffix) == parent + suffix) is fits


@given(st.sets(labels.map(lambda label: "a" * 50 + label[:13].rstrip("-")), min_size=2), suffixes)
def test_children_of_different_parents_have_different_names(parents: set[str], suffix: str) -> None:
    assert len({child_name(parent, suffix) for parent in parents}) == len(parents)


@pytest.mark.parametrize(
    ("generation", "expected"), [(1, "hello-00001"), (99_999, "hello-99999"), (123_456, "hello-123456")]
)
def test_revision_is_named_by_its_generation(generation: int, expected: str) -> None:
    assert revision_name("hello", generation) == expected


@pytest.mark.parametrize("name", ["", "Hello", "1st", "-a", "a-", "a.b", "a_b", "ä", "a\n", "a" * 64])
def test_what_is_no_label_is_told(name: str) -> None:
    assert not is_dns_1035_label(name)


@given(st.text(max_size=70))
def test_labels_are_what_the_rfc_says(name: str) -> None:
    letters = re.fullmatch(r"[a-z0-9-]{1,63}", name) is not None and name[-1] != "-"
    assert is_dns_1123_label(name) == (letters and name[0] != "-")
    assert is_dns_1035_label(name) == (letters and name[0].isalpha())

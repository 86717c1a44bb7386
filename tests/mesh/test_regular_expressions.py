"""The expressions of policies: RE2's meaning, against Python's where both agree, and time that stays linear."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.api.regex import MOST_KEPT, Regex
from upwell.functions.api.regex_syntax import MOST_POSITIONS
from upwell.functions.errors import InvalidInput


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("guest|vip", ["guest", "vip"], ["guests", "vi", ""]),
        (r"\d{3}", ["123"], ["1234", "12"]),
        (r"/api/v[12]/.*", ["/api/v1/", "/api/v2/x?y"], ["/api/v3/", "/api/v1"]),
        ("^a.c$", ["abc"], ["abcd", "a\nc"]),
        ("(?s)a.c", ["a\nc"], ["ac"]),
        ("(?i)bearer [a-f]+", ["BEARER ABF", "bearer abc"], ["bearer xyz"]),
        ("a(?i:b)c", ["abc", "aBc"], ["aBC", "Abc"]),
        ("(?i)a(?-i:b)", ["ab", "Ab"], ["aB"]),
        ("(?i)[^a]", ["b"], ["a", "A"]),
        ("(?P<user>[a-z]+)-(?<number>[0-9]+)", ["ab-1"], ["ab-"]),
        ("[[:alpha:]_][[:^digit:]]", ["_x", "Zz"], ["_1", "1x"]),
        ("[]a-]+", ["]a-"], ["b"]),
        (r"[\d.-]+", ["1.2-3"], ["1,2"]),
        (r"[^\s/]+", ["abc"], ["a b", "a/b"]),
        (r"\Qa.b*\E+", ["a.b*", "a.b**"], ["axb*"]),
        (r"\x41\x{1F600}\.", ["A\U0001f600."], ["A."]),
        ("a{2,3}?", ["aa", "aaa"], ["a", "aaaa"]),
        ("a{2,}", ["aa", "aaaaaa"], ["a"]),
        ("a{0}b", ["b"], ["ab"]),
        ("(a*)*b|", ["aab", "b", ""], ["a"]),
        ("a{,2}", ["a{,2}"], ["aa"]),
        ("(^a|b$)", ["a", "b"], ["ab"]),
        (r"\A\w+\z", ["a_1"], ["a-1"]),
        (r"\t\D\W\S", ["\tx-y"], ["\t1-y"]),
    ],
)
def test_an_expression_matches_whole_texts_as_re2_does(
    pattern: str, matching: list[str], other: list[str]
) -> None:
    regex = Regex(pattern)
    assert [text for text in matching + other if regex.matches(text)] == matching


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a", "not closed"),
        ("a)", "closes nothing"),
        ("[a", "not closed"),
        ("*a", "nothing that"),
        ("a**", "repeated"),
        ("a++", "repeated"),
        ("a{1001}", "within 0 to 1000"),
        ("a{3,2}", "within 0 to 1000"),
        (r"(a)\1", "cannot be used"),
        ("(?=a)", "RE2"),
        ("(?<!a)b", "RE2"),
        ("(?>a)", "RE2"),
        (r"\bword", "cannot be used"),
        (r"\pL", "cannot be used"),
        ("[z-a]", "range"),
        (r"[a-\d]", "range"),
        ("[[:nothing:]]", "no class"),
        ("a^b", "only at the start"),
        ("($a)", "only at the start"),
        ("(^a)*", "only at the start"),
        ("(" * 60 + ")" * 60, "deep"),
        ("((a{100}){100}){100}", f"may name {MOST_POSITIONS}"),
        ("a" * 5000, "4096"),
        ("\\", "cannot be used"),
        (r"\x{110000}", "no character"),
    ],
)
def test_an_expression_that_is_not_taken_says_why(pattern: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        Regex(pattern)


_PIECES = st.recursive(
    st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", r"\w", r"\d", "(?:)"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{1,}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=4,
)


@given(_PIECES, st.lists(st.text("abc1\n", max_size=8), max_size=5))
def test_where_both_know_the_syntax_it_agrees_with_python(pattern: str, texts: list[str]) -> None:
    regex = Regex(pattern)
    other = re.compile(pattern, re.ASCII)
    for text in texts:
        assert regex.matches(text) == bool(other.fullmatch(text))


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|a)*b",
        "(a*)*b",
        "(a|aa)+b",
        "a*a*a*a*a*a*b",
        "(.*a){11}b",
        "(a?){50}a{50}b",
        "(a|b)*a(a|b){200}",
    ],
)
@pytest.mark.parametrize("text", ["a" * 4000 + "!", "ab" * 2000, "aab" * 1300 + "!"])
def test_hostile_expressions_and_texts_cost_time_in_proportion_to_the_text(pattern: str, text: str) -> None:
    regex = Regex(pattern)
    began = time.process_time()
    regex.matches(text)
    # Backtracking would take longer than the universe; the bound leaves room for a busy machine.
    assert time.process_time() - began < 2


def test_what_is_kept_of_texts_stays_bounded_and_changes_no_answer() -> None:
    regex = Regex("(?:[a-z0-9]|[^!-~])*z?")
    texts = ["", "abz", "ab!", "z\u3042z", "\u3042!"]
    before = [regex.matches(text) for text in texts]
    assert before == [True, True, False, True, False]
    for start in range(0xA0, 0xD000, 64):
        assert regex.matches("".join(chr(code) for code in range(start, start + 64)))
        assert regex.kept <= MOST_KEPT
    assert [regex.matches(text) for text in texts] == before

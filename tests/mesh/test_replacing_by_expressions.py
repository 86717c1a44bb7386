"""Parts of a text that an expression matches are replaced as RE2 does, in bounded time."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.api.regex import Regex
from upwell.functions.api.regex_replace import MOST_KEPT, Replacer
from upwell.functions.errors import InvalidInput


@pytest.mark.parametrize(
    ("pattern", "rewrite", "text", "expected"),
    [
        ("b", "bb", "ababababab", "abbabbabbabbabb"),
        ("b+", "bb", "ababababab", "abbabbabbabbabb"),
        ("b*", "bb", "aaaaa", "bbabbabbabbabbabb"),
        ("b*", "bb", "bbbb", "bb"),
        ("a.*a", "(\\0)", "aababaa", "(aababaa)"),
        ("(a)(?:b)(?P<name>c)", "\\2\\1", "abc", "ca"),
        ("a+?", "x", "aaa", "xxx"),
        ("(a|ab)(c|bcd)", "[\\1|\\2]", "abcd", "[a|bcd]"),
        ("^a|b$", "x", "aab", "xax"),
        ("(a)|b", "<\\1>", "ab", "<a><>"),
        ("a{2,3}", "x", "aaaaaa", "xx"),
        ("a{2,3}?", "x", "aaaaaa", "xxx"),
        ("", "-", "ab", "-a-b-"),
        ("a", "\\\\", "a", "\\"),
    ],
)
def test_parts_are_replaced_as_re2_does(pattern: str, rewrite: str, text: str, expected: str) -> None:
    assert Replacer(pattern, rewrite).replace(text) == expected


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "(a|ba)", "(?:ab|a)", "(b)"])
REPEATED = st.builds("{}{}".format, ATOMS, st.sampled_from(["", "", "*", "+", "?", "*?", "+?", "{1,2}"]))
EXPRESSIONS = st.lists(st.lists(REPEATED, min_size=1, max_size=4).map("".join), min_size=1, max_size=3).map(
    "|".join
)


@given(EXPRESSIONS, st.text(alphabet="abc", max_size=12))
def test_what_is_found_is_what_a_backtracking_engine_finds(pattern: str, text: str) -> None:
    # A character before it: an empty match is where the two differ on purpose.
    pattern = f"c(?:{pattern})"
    groups = re.compile(pattern).groups
    told = "<" + "|".join(f"\\{index}" for index in range(groups + 1)) + ">"
    expected = re.sub(
        pattern, lambda found: "<" + "|".join(found[index] or "" for index in range(groups + 1)) + ">", text
    )
    assert Replacer(pattern, told).replace(text) == expected


@given(EXPRESSIONS, st.text(alphabet="abc", max_size=12))
def test_a_text_that_matches_whole_is_replaced_whole(pattern: str, text: str) -> None:
    replaced = Replacer(f"^(?:{pattern})$", "x").replace(text)
    assert (replaced == "x") == (Regex(pattern).matches(text) or text == "x")


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|aa)+$", "a(.*b)?", "(.*)(.*)(.*)x", "(?:a?){100}b"])
def test_no_text_takes_long(pattern: str) -> None:
    replacer = Replacer(pattern, "x")
    began = time.thread_time()
    replacer.replace("a" * 8000)
    assert time.thread_time() - began < 5.0


def test_what_is_left_when_the_steps_are_spent_stays_as_it_is() -> None:
    replaced = Replacer("a(.*b)?", "x").replace("a" * 8000)
    count = replaced.count("x")
    assert 0 < count < 8000
    assert replaced == "x" * count + "a" * (8000 - count)


@pytest.mark.parametrize(
    ("pattern", "rewrite"), [("(", "x"), ("a", "\\1"), ("(a)", "\\2"), ("a", "\\x"), ("a", "\\")]
)
def test_what_is_no_expression_or_refers_to_nothing_is_refused(pattern: str, rewrite: str) -> None:
    with pytest.raises(InvalidInput):
        Replacer(pattern, rewrite)


def test_what_is_kept_changes_no_answer() -> None:
    replacer = Replacer("a(.*)", "\\1")
    for _ in range(2):
        for number in range(MOST_KEPT + 10):
            assert replacer.replace(f"a{number}") == str(number)


def test_repetitions_of_nothing_are_counted_too() -> None:
    with pytest.raises(InvalidInput):
        Regex("(((){1000}){1000}){1000}")

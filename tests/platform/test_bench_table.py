"""What a benchmark reports is judged, shown and written the same way, whoever reads it."""

import json

import pytest
from bench.__main__ import BENCHMARKS, main
from bench.figures import percentile
from bench.table import HEADINGS, Result, Row, Skipped, meets, number, render, to_json
from hypothesis import given
from hypothesis import strategies as st

FIGURES = st.floats(min_value=0.001, max_value=1e9)


@pytest.mark.parametrize(
    ("goal", "value", "holds"),
    [
        ("<= 60", 60.0, True),
        ("<= 60", 60.01, False),
        ("== 0", 0.0, True),
        ("== 0", 1.0, False),
        (">= 2.5", 2.5, True),
        (">= 2.5", 2.4, False),
    ],
)
def test_a_goal_is_met_up_to_its_bound_and_not_beyond(goal: str, value: float, holds: bool) -> None:
    assert meets(goal, value) is holds
    assert Row("figure", value, "us", goal=goal).holds is holds


def test_what_is_no_goal_is_refused_rather_than_met() -> None:
    for goal in ("60", "< 60", "", "<= sixty"):
        with pytest.raises(ValueError, match=r"goal|float"):
            meets(goal, 1.0)


def test_a_row_without_a_goal_holds_and_without_a_baseline_has_no_ratio() -> None:
    row = Row("figure", 3.0, "ms")
    assert (row.holds, row.ratio) == (True, None)
    assert Row("figure", 3.0, "ms", "other", 0.0).ratio is None
    assert Row("figure", 3.0, "ms", "other", 2.0).ratio == 1.5


def test_the_json_of_a_row_has_the_keys_that_readers_know() -> None:
    written = json.loads(json.dumps(Row("gateway", 88.12345, "us/request", "uvicorn", 44.0, "<= 60").to_json()))
    assert written == {
        "name": "gateway",
        "value": 88.1235,
        "unit": "us/request",
        "baseline": "uvicorn",
        "baseline_value": 44.0,
        "ratio": 2.0028,
        "goal": "<= 60",
        "holds": False,
    }


def test_the_file_holds_the_machine_and_every_figure_and_nothing_that_was_skipped() -> None:
    first = Result([Row("one", 1.0, "ms")], [Skipped("two", "apt-get install it")], ["a note"])
    written = to_json({"cpus": 2}, [first, Result([Row("three", 3.0, "MB")])])
    assert written.keys() == {"machine", "rows"}
    assert written["machine"] == {"cpus": 2}
    assert [row["name"] for row in written["rows"]] == ["one", "three"]


def test_the_table_stands_in_columns_and_shows_a_missed_goal_at_a_glance() -> None:
    rows = [
        Row("a short name", 1234.5, "us", "something", 1.0, "<= 2000"),
        Row("a name that is much longer", 3.0, "us", goal="<= 2"),
        Row("for information", 2.0, "us"),
    ]
    heading, rule, *lines = render(rows).splitlines()
    assert heading.split("  ")[0] == "name"
    assert [heading.find(name) >= 0 for name in HEADINGS] == [True] * len(HEADINGS)
    assert set(rule) == {"-", " "}
    assert [line.split()[-1] for line in lines] == ["yes", "NO", "us"]
    units = heading.index("unit")
    assert {line[units : units + 2] for line in lines} == {"us"}


@given(FIGURES)
def test_a_shown_figure_is_the_measured_one_to_three_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.006, abs=0.005)


@given(st.lists(FIGURES, min_size=1), st.floats(min_value=0, max_value=100))
def test_a_percentile_is_a_sample_that_enough_samples_do_not_exceed(samples: list[float], percent: float) -> None:
    found = percentile(samples, percent)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= len(samples) * percent / 100 * (1 - 1e-12)
    below = [sample for sample in samples if sample < found]
    assert len(below) < max(1.0, len(samples) * percent / 100)


def test_an_unknown_benchmark_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["gatway"])
    assert refused.value.code == 2
    told = capsys.readouterr().err
    assert all(name in told for name in BENCHMARKS)

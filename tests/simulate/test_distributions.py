"""Durations are drawn as they are written, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.defaults import COMMON_SERVICE, MEASURED_START
from upwell.runtime.simulate.distributions import parse_distribution


def drawn(text: str, count: int = 20_000, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = parse_distribution(text, "--service-time").draw(count, np.random.default_rng(seed))
    return np.asarray(found).reshape(count)


def test_constant_is_always_the_same() -> None:
    assert set(drawn("constant:50ms").tolist()) == {0.05}


def test_exponential_has_its_mean() -> None:
    assert drawn("exponential:50ms").mean() == pytest.approx(0.05, rel=0.05)


def test_lognormal_has_its_median_and_spread() -> None:
    values = drawn("lognormal:50ms,0.8")
    assert np.median(values) == pytest.approx(0.05, rel=0.05)
    assert np.log(values).std() == pytest.approx(0.8, rel=0.05)


def test_what_the_platform_measures_has_the_quantiles_of_the_readme() -> None:
    p50, p99 = np.percentile(drawn(MEASURED_START) * 1000, [50, 99])
    assert (p50, p99) == pytest.approx((7.6, 11.0), rel=0.03)


def test_empirical_draws_what_was_observed(tmp_path: Path) -> None:
    (tmp_path / "values").write_text("10\n\n20\n20\n")
    values = drawn(f"empirical:{tmp_path / 'values'}")
    assert set(values.tolist()) == {0.01, 0.02}
    assert (values == 0.02).mean() == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("text", ["constant:50ms", "exponential:1.5s", COMMON_SERVICE, MEASURED_START])
def test_a_distribution_says_itself_as_it_is_written(text: str) -> None:
    assert str(parse_distribution(text, "--service-time")) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "50ms",
        "constant:",
        "constant:50",
        "constant:-1s",
        "lognormal:1s,x",
        "lognormal:1s,nan",
        "lognormal:1s,99",
    ],
)
def test_what_is_none_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_distribution(text, "--start-time")
    assert refused.value.where == "--start-time"


@pytest.mark.parametrize(("text", "line"), [("1\nx\n", ":2"), ("-1\n", ":1"), ("nan\n", ":1"), ("\n", "")])
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "values"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        parse_distribution(f"empirical:{path}", "--start-time")
    assert refused.value.where == f"{path}{line}"

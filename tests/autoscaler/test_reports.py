"""Reports travel as JSON, say what the counters saw, and are refused when they cannot be true."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler.stats import (
    MAX_CONCURRENCY,
    MAX_COUNT,
    MAX_ENCODED_LENGTH,
    MAX_NAME_LENGTH,
    MAX_SPAN,
    Report,
    Reporter,
    RequestStats,
)
from upwell.functions.errors import InvalidInput

VALID: dict[str, Any] = {
    "revision": "default/hello-00001",
    "reporter": "hello-00001-abc",
    "sequence": 7,
    "started": 1_700_000_000.25,
    "ended": 1_700_000_001.25,
    "average_concurrency": 2.5,
    "average_proxied_concurrency": 1.5,
    "request_count": 12,
    "proxied_request_count": 4,
}


def decode(**changes: Any) -> Report:
    return Report.decode(json.dumps(VALID | changes).encode())


def test_a_report_is_one_line_and_comes_back_equal() -> None:
    report = Report(**VALID)
    line = report.encode()
    assert b"\n" not in line
    assert b" " not in line
    assert Report.decode(line) == report


@given(
    st.integers(0, 2**40),
    st.floats(0, 2e9),
    st.floats(0, MAX_SPAN),
    st.floats(0, 1000),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_every_sane_report_survives_encoding(
    sequence: int, started: float, span: float, concurrency: float, share: float, count: int
) -> None:
    ended = min(started + span, started + MAX_SPAN)
    report = Report(
        "ns/rev",
        "r",
        sequence,
        started,
        ended if ended - started <= MAX_SPAN else started,
        concurrency,
        concurrency * share,
        count,
        count // 2,
    )
    assert Report.decode(report.encode()) == report


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("revision", "no-slash"),
        ("revision", "/hello"),
        ("revision", "default/"),
        ("revision", "a/b/c"),
        ("revision", 5),
        ("reporter", ""),
        ("reporter", "line\nbreak"),
        ("reporter", "x" * (MAX_NAME_LENGTH + 1)),
        ("sequence", -1),
        ("sequence", 1.5),
        ("sequence", True),
        ("sequence", 2**60),
        ("started", "now"),
        ("started", -1.0),
        ("started", float("nan")),
        ("started", 1_700_000_002.0),
        ("started", 1_600_000_000.0),
        ("ended", float("inf")),
        ("ended", None),
        ("average_concurrency", -0.1),
        ("average_concurrency", float("nan")),
        ("average_concurrency", MAX_CONCURRENCY * 2),
        ("average_concurrency", 10**400),
        ("average_proxied_concurrency", 2.6),
        ("request_count", MAX_COUNT + 1),
        ("request_count", 3),
        ("request_count", -1),
        ("proxied_request_count", 13),
        ("surprise", 1),
    ],
)
def test_a_report_that_cannot_be_true_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode(**{field: value})
    named = {"started", "ended"} if field in ("started", "ended") else {field, "proxied_request_count"}
    assert any(name in refused.value.what for name in named)
    assert refused.value.status == 400


@pytest.mark.parametrize("field", VALID)
def test_a_report_without_a_field_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        Report.decode(json.dumps({name: VALID[name] for name in VALID if name != field}).encode())


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 4000, b" " * MAX_ENCODED_LENGTH + b"{}"]
)
def test_what_is_no_report_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        Report.decode(line)


@given(st.binary(max_size=200))
def test_decoding_raises_nothing_else(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        Report.decode(line)


def test_a_reporter_numbers_its_reports_and_leaves_no_time_out() -> None:
    reporter = Reporter("ns/rev", "me", 100.0)
    reporter.stats.start(100.5)
    first = reporter.report(101.0)
    reporter.stats.finish(101.5)
    second = reporter.report(102.0)
    assert [(each.sequence, each.started, each.ended) for each in (first, second)] == [
        (1, 100.0, 101.0),
        (2, 101.0, 102.0),
    ]
    assert (first.average_concurrency, first.request_count) == (0.5, 1)
    assert (second.average_concurrency, second.request_count) == (0.5, 0)
    assert Report.decode(second.encode()) == second


def test_a_report_at_a_time_already_reported_covers_no_time() -> None:
    reporter = Reporter("ns/rev", "me", 100.0)
    reporter.report(101.0)
    again = reporter.report(100.5)
    assert (again.started, again.ended, again.average_concurrency) == (101.0, 101.0, 0.0)
    assert Report.decode(again.encode()) == again


Event = tuple[str, float]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(-50, 1000)), max_size=60),
    st.integers(0, 2**31),
)
def test_averages_are_the_area_under_the_requests_in_flight(
    events: list[tuple[bool, bool, int]], begin: int
) -> None:
    now = begin * 1000
    stats = RequestStats(now / 1000)
    latest, area, proxied_area = now, 0, 0
    open_requests = [0, 0]
    for starts, proxied, passed in events:
        now += passed
        if now > latest:
            area += sum(open_requests) * (now - latest)
            proxied_area += open_requests[1] * (now - latest)
            latest = now
        if starts or not open_requests[proxied]:
            stats.start(now / 1000, proxied)
            open_requests[proxied] += 1
        else:
            stats.finish(now / 1000, proxied)
            open_requests[proxied] -= 1
    span = latest - begin * 1000
    averages = stats.report(latest / 1000)
    assert averages.span == pytest.approx(span / 1000)
    assert averages.average_concurrency == pytest.approx(area / span if span else 0.0)
    assert averages.average_proxied_concurrency == pytest.approx(proxied_area / span if span else 0.0)
    assert stats.in_flight == sum(open_requests)
    assert stats.changed == latest / 1000


def test_a_replica_that_imports_the_accounting_stays_light() -> None:
    heavy = ["numpy", "pydantic", "kubernetes", "aiokafka", "click", "rich", "yaml"]
    program = (
        "import sys; before = set(sys.modules); import upwell.autoscaler.stats; "
        f"print([name for name in {heavy} if name in sys.modules], "
        "[name for name in sys.modules if name.startswith('upwell.')])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    ours = ["upwell.functions", "upwell.functions.errors", "upwell.autoscaler", "upwell.autoscaler.stats"]
    assert answer.stdout.startswith("[] ")
    assert sorted(ours) == sorted(eval(answer.stdout.removeprefix("[] ")))


def test_report_fields_are_those_of_the_wire() -> None:
    assert list(asdict(Report(**VALID))) == list(VALID)

"""Batches of reports travel as JSON in columns, and are refused when they cannot be true."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler.stats import (
    MAX_BATCH_ROWS,
    MAX_CONCURRENCY,
    MAX_COUNT,
    MAX_ENCODED_BATCH_LENGTH,
    MAX_NAME_LENGTH,
    MAX_SPAN,
    ReportBatch,
)
from upwell.functions.errors import InvalidInput

VALID: dict[str, Any] = {
    "reporter": "gateway-1",
    "sequence": 7,
    "ended": 1_700_000_001.25,
    "revisions": ["default/hello-00001", "shop/cart-00002"],
    "spans": [1.0, 0.5],
    "average_concurrency": [2.5, 0.0],
    "average_proxied_concurrency": [1.5, 0.0],
    "request_count": [12, 0],
    "proxied_request_count": [4, 0],
}
COLUMNS = (
    "spans",
    "average_concurrency",
    "average_proxied_concurrency",
    "request_count",
    "proxied_request_count",
)


def decode(**changes: Any) -> ReportBatch:
    return ReportBatch.decode(json.dumps(VALID | changes).encode())


def told(batch: ReportBatch) -> dict[str, Any]:
    """All that a batch says, with plain lists for its columns."""
    return {
        "reporter": batch.reporter,
        "sequence": batch.sequence,
        "ended": batch.ended,
        "revisions": list(batch.revisions),
    } | {name: list(getattr(batch, name)) for name in COLUMNS}


def test_a_batch_is_one_line_and_comes_back_equal() -> None:
    line = ReportBatch(**VALID).encode()
    assert b"\n" not in line
    assert b" " not in line
    assert json.loads(line) == VALID
    assert told(ReportBatch.decode(line)) == VALID


def test_columns_of_numpy_encode_as_lists_do() -> None:
    columns = {name: np.array(VALID[name]) for name in COLUMNS}
    assert ReportBatch(**VALID | columns).encode() == ReportBatch(**VALID).encode()


def test_a_batch_of_nothing_says_nothing() -> None:
    batch = decode(revisions=[], **{name: [] for name in COLUMNS})
    assert (batch.revisions, len(batch.spans)) == ((), 0)
    empty = ReportBatch.of("gateway", 1, 1e9, {})
    assert ReportBatch.decode(empty.encode()).revisions == ()


@given(
    st.lists(
        st.tuples(st.floats(0, MAX_SPAN), st.floats(0, 1000), st.floats(0, 1), st.integers(0, 10**6)),
        max_size=20,
    ),
    st.integers(0, 2**40),
    st.floats(MAX_SPAN, 2e9),
)
def test_every_sane_batch_survives_encoding(
    rows: list[tuple[float, float, float, int]], sequence: int, ended: float
) -> None:
    sent: dict[str, Any] = {
        "reporter": "r",
        "sequence": sequence,
        "ended": ended,
        "revisions": [f"ns/r{index}" for index in range(len(rows))],
        "spans": [span for span, *_ in rows],
        "average_concurrency": [concurrency for _, concurrency, *_ in rows],
        "average_proxied_concurrency": [concurrency * share for _, concurrency, share, _ in rows],
        "request_count": [count for *_, count in rows],
        "proxied_request_count": [count // 2 for *_, count in rows],
    }
    assert told(ReportBatch.decode(ReportBatch(**sent).encode())) == sent


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reporter", ""),
        ("reporter", None),
        ("sequence", -1),
        ("sequence", 1.5),
        ("ended", "now"),
        ("ended", -1.0),
        ("ended", float("nan")),
        ("revisions", None),
        ("revisions", "default/hello"),
        ("revisions", ["default/hello", "default/hello"]),
        ("revisions", ["default/hello", "no-slash"]),
        ("revisions", ["default/hello", "/no-namespace"]),
        ("revisions", ["default/hello", "no-name/"]),
        ("revisions", ["default/hello", "a/b/c"]),
        ("revisions", ["default/hello", "line/\nbreak"]),
        ("revisions", ["default/hello", "n/" + "x" * MAX_NAME_LENGTH]),
        ("revisions", ["default/hello", ""]),
        ("revisions", ["default/hello", 5]),
        ("revisions", [f"n/{index}" for index in range(MAX_BATCH_ROWS + 1)]),
        ("spans", [1.0]),
        ("spans", [1.0, 1.0, 1.0]),
        ("spans", {"0": 1.0, "1": 1.0}),
        ("spans", [1.0, -0.1]),
        ("spans", [1.0, MAX_SPAN * 2]),
        ("spans", [float("nan"), 1.0]),
        ("spans", [1.0, float("nan")]),
        ("average_concurrency", [2.5, float("inf")]),
        ("average_concurrency", [2.5, MAX_CONCURRENCY * 2]),
        ("average_concurrency", [2.5, 10**400]),
        ("average_concurrency", [2.5, None]),
        ("average_concurrency", [2.5, "1"]),
        ("average_concurrency", [2.5, True]),
        ("average_proxied_concurrency", [2.6, 0.0]),
        ("average_proxied_concurrency", [0.0, 0.1]),
        ("request_count", [12, 0.5]),
        ("request_count", [12, MAX_COUNT + 1]),
        ("request_count", [-1, 0]),
        ("proxied_request_count", [13, 0]),
        ("proxied_request_count", [4, True]),
        ("surprise", 1),
    ],
)
def test_a_batch_that_cannot_be_true_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode(**{field: value})
    assert field in refused.value.what
    assert refused.value.status == 400


def test_a_span_from_before_time_began_is_refused() -> None:
    with pytest.raises(InvalidInput, match="spans"):
        decode(ended=0.75)


@pytest.mark.parametrize("field", VALID)
def test_a_batch_without_a_field_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        ReportBatch.decode(json.dumps({name: VALID[name] for name in VALID if name != field}).encode())


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 4000, b" " * MAX_ENCODED_BATCH_LENGTH + b"{}"]
)
def test_what_is_no_batch_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        ReportBatch.decode(line)


@given(st.binary(max_size=200))
def test_decoding_raises_nothing_else(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        ReportBatch.decode(line)


def test_as_many_rows_as_are_allowed_fit_into_the_size_that_is() -> None:
    rows = MAX_BATCH_ROWS
    batch = ReportBatch(
        "gateway-1",
        2**53 - 1,
        1_700_000_001.123456,
        [f"a-namespace-of-some-length-{index}/a-service-of-some-length-{index}-00001" for index in range(rows)],
        [0.9999999999999999] * rows,
        [123_456.7890123456] * rows,
        [12_345.67890123456] * rows,
        [999_999_999] * rows,
        [999_999_999] * rows,
    )
    assert len(ReportBatch.decode(batch.encode()).revisions) == rows

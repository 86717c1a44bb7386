"""The message that the autoscaler scrapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.autoscaler.stats import RequestStats
from upwell.functions.errors import InvalidInput
from upwell.runtime.sidecar.stat import Stat, StatReporter

figures = st.floats(min_value=0, max_value=1e9)


@given(st.text(max_size=300), st.tuples(figures, figures, figures, figures, figures))
def test_what_is_written_is_read(name: str, numbers: tuple[float, ...]) -> None:
    stat = Stat(name, *numbers)
    assert Stat.decode(stat.encode()) == stat


def test_the_bytes_are_those_of_protocol_buffers() -> None:
    assert Stat("pod-1", process_uptime=1.0).encode() == b"\x0a\x05pod-1" + b"\x31\x00\x00\x00\x00\x00\x00\xf0\x3f"


def test_nothing_is_written_for_nothing() -> None:
    assert Stat().encode() == b""


@given(st.binary(max_size=40))
def test_anything_else_is_refused_or_read(message: bytes) -> None:
    try:
        Stat.decode(message)
    except InvalidInput:
        return


@pytest.mark.parametrize("message", [b"\x0a\x05po", b"\x11\x00", b"\x38\x01", b"\x0a\x01\xff", b"\x0a\xff"])
def test_a_broken_message_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidInput):
        Stat.decode(message)


def test_a_report_covers_the_time_since_the_one_before() -> None:
    stats = RequestStats(100.0)
    reporter = StatReporter("p", stats, 0.0)
    assert reporter.stat == Stat("p")
    stats.start(100.5, proxied=True)
    reporter.report(101.0, 1.0)
    assert reporter.stat == Stat("p", 0.5, 0.5, 1.0, 1.0, 1.0)
    stats.finish(101.25, proxied=True)
    reporter.report(102.0, 2.0)
    assert reporter.stat == Stat("p", 0.25, 0.25, 0.0, 0.0, 2.0)

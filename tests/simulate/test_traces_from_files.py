"""Traces are read from logs and tables; what cannot be read is refused with its file and line."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from upwell.functions.errors import InvalidInput
from upwell.runtime.simulate.trace import Trace
from upwell.runtime.simulate.traces import load_trace

Reader = Callable[[str], Trace]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def reader(text: str) -> Trace:
        path = tmp_path / "trace"
        path.write_text(text)
        return load_trace(str(path), seed=1)

    return reader


def entry(time: str, duration: float, wait: float, **more: object) -> str:
    line = {"time": time, "access": "GET", "status": 200, "duration_ms": duration, "wait_ms": wait}
    return json.dumps({**line, "revision": "default/hello-00001", "replica": "hello-1", **more}) + "\n"


def test_our_access_log_says_when_a_request_came_and_how_long_its_replica_had_it(read: Reader) -> None:
    trace = read(
        entry("2026-01-31T12:00:05.500Z", 250.0, 50.0)
        + entry("2026-01-31T12:00:05.300Z", 100.0, 0.0, revision="default/other-00002")
    )
    assert trace.times.tolist() == pytest.approx([0.2, 0.25], abs=1e-6)
    assert trace.service.tolist() == pytest.approx([0.1, 0.2])
    assert [trace.functions[index] for index in trace.function] == ["default/other-00002", "default/hello-00001"]
    assert trace.began == 1769860805.0
    assert trace.seconds == pytest.approx(0.5)


def test_lines_of_our_log_that_are_no_routed_requests_are_passed_over(read: Reader) -> None:
    trace = read(
        '{"time":"2026-01-31T12:00:00.000Z","level":"info","message":"listening"}\n'
        "a function printed this\n"
        + entry("2026-01-31T12:00:01.000Z", 10.0, 0.0, revision="", reason="no_route")
        + entry("2026-01-31T12:00:02.000Z", 10.0, 10.0, replica="", reason="queue_full")
    )
    assert len(trace) == 1
    assert math.isnan(trace.service[0]), "no replica had it"


@pytest.mark.parametrize(
    "agent", ["", ' "-" "curl/8.5"', ' "https://example.com/a [b]" "Mozilla/5.0 (X11) \\"x\\""']
)
def test_common_and_combined_logs_are_requests_within_their_seconds(read: Reader, agent: str) -> None:
    lines = [
        f'192.0.2.{index} - frank [10/Oct/2000:13:55:{second} -0700] "GET /a HTTP/1.0" 200 2326{agent}\n'
        for index, second in enumerate(("36", "36", "38"))
    ]
    trace = read("".join(lines))
    assert trace.seconds == 3.0
    assert [math.floor(time) for time in trace.times] == [0, 0, 2]
    assert len(set(trace.times.tolist())) == 3
    assert trace.began == 971211336.0
    assert np.isnan(trace.service).all()


def test_a_table_of_arrivals_may_have_a_header_in_any_order(read: Reader) -> None:
    trace = read("Function, service_ms, time\na,100,12.5\nb,,10\n# a remark\n\na,50,11\n")
    assert trace.times.tolist() == [10.0, 11.0, 12.5]
    assert [trace.functions[index] for index in trace.function] == ["b", "a", "a"]
    assert trace.service[1:].tolist() == [0.05, 0.1]
    assert math.isnan(trace.service[0])


@pytest.mark.parametrize("text", ["5\n7\n6.5\n", "5,f\n7,f\n6.5,f\n", "5,f,10\n7,f,10\n6.5,f,10\n"])
def test_a_table_of_arrivals_needs_no_header(read: Reader, text: str) -> None:
    assert read(text).times.tolist() == [5.0, 6.5, 7.0]


def test_times_may_be_dates_and_are_counted_from_the_first(read: Reader) -> None:
    trace = read("time\n2026-01-31T12:00:00.5Z\n2026-01-31T14:00:02+02:00\n")
    assert trace.times.tolist() == pytest.approx([0.5, 2.0], abs=1e-6)


def test_a_table_of_rates_holds_each_rate_until_the_next(read: Reader) -> None:
    trace = read("time,rate\n0,10\n100,100\n200,0\n")
    assert trace.seconds == 300.0
    counts = np.histogram(trace.times, [0, 100, 200, 300])[0]
    assert counts[0] == pytest.approx(1000, rel=0.15)
    assert counts[1] == pytest.approx(10_000, rel=0.05)
    assert counts[2] == 0


def test_a_table_of_rates_may_be_of_many_functions(read: Reader) -> None:
    trace = read("0,10,a\n0,20,b\n60,0,a\n60,0,b\n")
    a, b = np.bincount(trace.function)
    assert trace.functions == ("a", "b")
    assert 400 < a < 800 < b < 1600


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("", "", "no requests"),
        ("\n\n", "", "no requests"),
        ("time,rate\n", "", "no requests"),
        ("1\n2\nx\n", ":3", "is no time"),
        ("a,b\n1,2\n", ":1", "neither a time nor a header"),
        ("time,time\n", ":1", "do not go together"),
        ("time,function,service_ms\n1,f,-5\n", ":2", "milliseconds"),
        ("1,f,5,9\n", ":1", "columns"),
        ("time,rate\n1,nan\n", ":2", "is no rate"),
        ("1\n99999999\n", "", "longer than a year"),
        ('{"access":"GET","revision":"a/b","time":"yesterday","duration_ms":1,"wait_ms":0}\n', ":1", "needs time"),
        ('{"access":\n', ":1", "no JSON"),
        ('1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 1\nx\n', ":2", "no line of"),
        ('1.2.3.4 - - [40/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 1\n', ":1", "no line of"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(read: Reader, text: str, place: str, what: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(text)
    assert refused.value.where.endswith(f"trace{place}")
    assert what in str(refused.value).replace("spans more than", "longer than")


def test_a_file_that_is_not_there_is_refused_with_a_hint() -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        load_trace("nowhere/at-all.csv", seed=0)


def test_a_trace_can_be_cut_and_prolonged(read: Reader) -> None:
    trace = read("1\n2\n3\n")
    assert trace.lasting(2.5).times.tolist() == [1.0, 2.0]
    assert trace.lasting(100.0).seconds == 100.0


@pytest.mark.parametrize(
    ("named", "hint"),
    [
        ("poison:5rps/1h", "Did you mean poisson:50rps/1h?"),
        ("heavytail:functions=2", "Did you mean heavy-tail:functions=1000,requests=2000000,hours=24?"),
        ("nowhere.log", "Name a file, or a generator as ramp:0-100rps/10m."),
        ("c:/nowhere.log", "Name a file, or a generator as ramp:0-100rps/10m."),
    ],
)
def test_what_is_neither_a_file_nor_a_generator_is_refused_with_what_may_be_meant(named: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_trace(named, seed=0)
    assert refused.value.hint == hint

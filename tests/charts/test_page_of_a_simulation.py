"""The page of a simulation tells its figures, functions and settings, whatever they are called."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from upwell.runtime.simulate.page import render_simulation
from upwell.runtime.simulate.report import FunctionReport, Quantiles, Series, SimulationReport, SweepPoint

HOSTILE = "</title><script>alert(1)</script>\x00\ud800\"'&"
LATENCY = Quantiles(70.0, 50.0, 140.0, 190.0, 342.0, 1060.0, 2054.0)
SERIES = Series(
    bucket_seconds=2.0,
    times=(0.0, 2.0, 4.0),
    arrivals=(5.0, 200.0, 5.0),
    load=(0.5, 14.0, 0.5),
    capacity=(0.0, 50.0, 50.0),
    ready=(0.0, 1.0, 1.0),
    want=(1.0, 1.0, 1.0),
    cold_starts=(3, 0, 0),
    rejected=(0, 0, 0),
    panic=(1.0, 0.5, 0.0),
)
NOTHING = Series(2.0, (), (), (), (), (), (), (), (), ())


def report(name: str = "default/hello") -> SimulationReport:
    return SimulationReport(
        title=name,
        settings={"length": "6 s", name: name},
        seconds=6.0,
        requests=420,
        rejected=0,
        cold_starts=3,
        latency=LATENCY,
        queueing=Quantiles(),
        replica_seconds=6.0,
        busy_replica_seconds=2.0,
        waste=2 / 3,
        greatest_replicas=1,
        functions=tuple(FunctionReport(f"{name}-{at}", 210, 0, 1, LATENCY, 3.0, 1.0, 1) for at in range(2)),
        function_count=2,
        series=SERIES,
    )


def swept(name: str = "target") -> SimulationReport:
    points = tuple(
        SweepPoint({name: value}, 50.0, p99, 2054.0, 3, 0, seconds, 0.5, on_front)
        for value, p99, seconds, on_front in (
            ("20", 300.0, 90.0, True),
            ("70", 342.0, 60.0, True),
            ("90", 400.0, 95.0, False),
        )
    )
    return replace(report(name), sweep=points, recommended=points[1], reason="it costs least")


class Page(HTMLParser):
    """Elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_key_figures_and_functions_are_told() -> None:
    page = Page(render_simulation(report()))
    for told in ("default/hello", "420", "342", "66.7", "default/hello-0", "default/hello-1"):
        assert told in page.text
    assert page.names.count("svg") >= 3


def test_a_sweep_tells_every_point_and_which_to_take() -> None:
    page = Page(render_simulation(swept()))
    for told in ("target=20", "target=70", "target=90", "it costs least"):
        assert told in page.text
    assert page.names.count("svg") > Page(render_simulation(report())).names.count("svg")


def test_names_from_a_trace_are_text_and_never_markup() -> None:
    for each in (report(HOSTILE), swept(HOSTILE)):
        written = render_simulation(each)
        written.encode("utf-8")
        assert "script" not in Page(written).names
        assert "alert(1)" in Page(written).text


def test_a_simulation_of_nothing_has_a_page() -> None:
    empty = replace(
        report(),
        seconds=0.0,
        requests=0,
        cold_starts=0,
        latency=Quantiles(),
        replica_seconds=0.0,
        busy_replica_seconds=0.0,
        waste=0.0,
        greatest_replicas=0,
        functions=(),
        function_count=0,
        series=NOTHING,
    )
    assert "default/hello" in Page(render_simulation(empty)).text


def test_equal_reports_give_equal_pages() -> None:
    assert render_simulation(swept()) == render_simulation(swept())

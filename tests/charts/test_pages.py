"""The HTML page, and the report of a simulation on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from support.charts import HOSTILE, POINTS, point, report, rich
from upwell.runtime.charts.page import Figure, Figures, Section, Table, render
from upwell.runtime.simulate.page import SHOWN_POINTS, render_simulation
from upwell.runtime.simulate.report import Quantiles, SimulationReport

VOID = {"meta"}


class Page(HTMLParser):
    """The elements of a page, with their texts; elements that do not close in order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[str]:
        """The texts right inside elements of that name."""
        return [text for inside, text in self.texts if inside == tag]


def charts(page: Page) -> list[str]:
    """The titles of the charts."""
    return [text for text in page.all("title")[1:] if "=" not in text]


def pages() -> Iterator[tuple[str, SimulationReport]]:
    yield "one function", report()
    yield "many functions", report(function_count=1000)
    yield "sweep", report(sweep=POINTS, recommended=POINTS[1])
    yield "sweep of nothing", report(sweep=[])
    yield "no time", report(buckets=0)
    yield "one bucket", report(buckets=1)
    empty = report(buckets=0)
    yield (
        "no requests",
        replace(
            empty, requests=0, rejected=0, cold_starts=0, latency=Quantiles(), queueing=Quantiles(), seconds=0.0,
            replica_seconds=0.0, busy_replica_seconds=0.0, waste=0.0, functions=(), settings={}
        ),
    )  # fmt: skip


@pytest.mark.parametrize("told", [told for _, told in pages()], ids=[name for name, _ in pages()])
def test_every_report_is_a_well_formed_page_that_stands_alone(told: SimulationReport) -> None:
    text = render_simulation(told)
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in page.tags:
        assert not {"src", "href", "style"} & attributes.keys()
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.all("h1") == [told.title]
    assert not [text for _, text in page.texts if text.split()[:1] in (["nan"], ["inf"])]


def test_the_key_figures_stand_on_the_page() -> None:
    shown = Page(render_simulation(report()))
    values = shown.all("dd")
    for figure in ("188 ms", "23", "17", "9", "90 min", "42.6 %"):
        assert figure in values
    cells = shown.all("td")
    for quantile in ("55.5 ms", "40.2 ms", "912 ms", "1,234 ms", "33.2 ms", "77.8 ms"):
        assert quantile in cells
    assert "spike:5-200rps/10m" in cells


def test_the_story_runs_from_the_figures_to_the_settings() -> None:
    shown = Page(render_simulation(report(sweep=POINTS, recommended=POINTS[1])))
    assert shown.all("h2") == ["Key figures", "Settings compared", "Over time", "Latency", "Functions", "Settings"]
    assert charts(shown) == [
        "Latency against replica time",
        "Load and capacity",
        "Replicas",
        "Arrivals",
        "Cold starts and rejections",
        "Latency and queueing",
    ]


def test_panic_is_a_band_for_one_function_and_a_share_of_many() -> None:
    one, many = Page(render_simulation(report())), Page(render_simulation(report(function_count=30)))
    assert "panic mode: once" in " ".join(one.all("desc"))
    assert "Functions in panic mode" not in charts(one)
    assert "panic mode: once" not in " ".join(many.all("desc"))
    assert "Functions in panic mode" in charts(many)


def test_the_recommended_setting_is_labelled_named_and_marked() -> None:
    shown = Page(render_simulation(report(sweep=POINTS, recommended=POINTS[1])))
    assert "target=50" in shown.all("text")
    (paragraph,) = (
        text for text in shown.all("p") if text.startswith("Recommended: target=50, because: the least")
    )
    assert paragraph.endswith("for as little replica time.")
    rows = [attributes.get("class") for tag, attributes in shown.tags if tag == "tr"]
    assert rows.count("marked") == 1
    assert [text for text in shown.all("th") if text.startswith("target=")] == [
        "target=100",
        "target=50",
        "target=60",
        "target=20",
    ]


def test_a_long_sweep_lists_the_front_and_draws_all() -> None:
    many = [point(str(at), 1000.0 + at, 9000.0 + at, on_front=at > 290) for at in range(300)]
    shown = Page(render_simulation(report(sweep=many, recommended=many[299])))
    listed = {text for text in shown.all("th") if text.startswith("target=")}
    assert len(listed) == SHOWN_POINTS
    assert {f"target={at}" for at in range(291, 300)} <= listed
    assert len([text for text in shown.all("title") if text.startswith("target=")]) == 300


def test_hostile_names_stay_texts() -> None:
    bad = replace(POINTS[1], settings={HOSTILE: HOSTILE})
    told = report(title=HOSTILE, function=HOSTILE, sweep=[POINTS[0], bad], recommended=bad)
    text = render_simulation(replace(told, settings={HOSTILE: HOSTILE}, reason=HOSTILE))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "img" not in {tag for tag, _ in page.tags}
    assert not {name for _, attributes in page.tags for name in attributes if name.startswith("on")}
    assert text.encode("utf-8").decode() == text


def test_parts_of_a_page_are_escaped_wherever_they_stand() -> None:
    table = Table(HOSTILE, (HOSTILE, HOSTILE), [(HOSTILE, HOSTILE)])
    figures = Figures((Figure(HOSTILE, HOSTILE, HOSTILE),))
    page = Page(render(HOSTILE, HOSTILE, [Section(HOSTILE, (figures, table, rich()), HOSTILE)]))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img"})
    clean = HOSTILE.translate({0: 0xFFFD, 0x1B: 0xFFFD, 0xD800: 0xFFFD})
    for tag in ("title", "h1", "h2", "p", "dt", "dd", "caption", "th", "td"):
        assert page.all(tag)[0] == clean

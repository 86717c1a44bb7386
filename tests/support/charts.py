"""Charts and reports for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from upwell.runtime.charts.model import Axis, Band, Chart, Color, Markers, Series, Shape, Unit
from upwell.runtime.simulate import report as simulated
from upwell.runtime.simulate.report import FunctionReport, Quantiles, SimulationReport, SweepPoint

START = 1_763_800_000.0
NAN = float("nan")
HOSTILE = "</title><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>\x00\x1b\ud800"


def of(*series: Series, title: str = "A chart") -> Chart:
    """A chart over the time of day in UTC."""
    return Chart(title, Axis("", Unit.TIME, zone=UTC), Axis("requests"), series)


def times(count: int) -> list[float]:
    """So many moments, two seconds apart."""
    return [START + 2 * at for at in range(count)]


def rich() -> Chart:
    """A chart that has something of everything."""
    xs = times(6)
    return Chart(
        "Load and capacity",
        Axis("", Unit.TIME, zone=UTC),
        Axis("requests in flight"),
        (
            Series("load", xs, [0, 3, NAN, 8.5, 4, 1], Color.BLUE, Shape.AREA),
            Series("capacity", xs, [0, 7, 7, 14, 14, 7], Color.GREY, Shape.STEP, dashed=True, end=xs[-1] + 2),
            Series("cold", xs, [1, 0, 0, 2, 0, 0], Color.PURPLE, Shape.BARS),
            Series("slow", xs[:2], [5, 6], Color.VERMILION, Shape.POINTS, labels=["", "one"], hints=["a", "b"]),
        ),
        (Band("panic mode", xs[1], xs[3], Color.VERMILION),),
        (Markers("cold start", [xs[0], xs[3]], Color.PURPLE),),
        note="In words",
    )


def point(label: str, p99: float, replica_seconds: float, *, on_front: bool) -> SweepPoint:
    """A setting of `target` and what it came to."""
    return SweepPoint({"target": label}, 40.0, p99, 900.0, 3, 0, replica_seconds, 0.4, on_front)


POINTS = (
    point("20", 120.0, 9000.0, on_front=True),
    point("50", 180.0, 4000.0, on_front=True),
    point("60", 300.0, 5000.0, on_front=False),
    point("100", 800.0, 2500.0, on_front=True),
)


def report(
    *,
    title: str = "spike:5-200rps/10m",
    function: str = "default/function",
    function_count: int = 1,
    buckets: int = 5,
    sweep: Sequence[SweepPoint] | None = None,
    recommended: SweepPoint | None = None,
) -> SimulationReport:
    """A report whose figures differ from one another, so that each can be found on a page."""
    latency = Quantiles(55.5, 40.25, 90.5, 110.5, 187.5, 912.5, 1234.5)
    queueing = Quantiles(1.5, 0.0, 0.0, 2.5, 33.25, 44.25, 77.75)
    few = [float(at) for at in range(buckets)]
    series = simulated.Series(
        bucket_seconds=2.0,
        times=tuple(2 * at for at in few),
        arrivals=tuple(10 + at for at in few),
        load=tuple(1 + at for at in few),
        capacity=tuple(7.0 for _ in few),
        ready=tuple(1 + at // 2 for at in few),
        want=tuple(2 + at // 2 for at in few),
        cold_starts=tuple(int(at == 0) for at in few),
        rejected=tuple(int(at == 1) for at in few),
        panic=tuple(float(1 <= at <= 2) for at in few),
    )
    row = FunctionReport(function, 4321, 17, 23, latency, 5400.0, 3100.0, 9)
    return SimulationReport(
        title=title,
        settings={"trace": title, "seed": "7"},
        seconds=10.0,
        requests=4321,
        rejected=17,
        cold_starts=23,
        latency=latency,
        queueing=queueing,
        replica_seconds=5400.0,
        busy_replica_seconds=3100.0,
        waste=0.426,
        greatest_replicas=9,
        functions=(row,),
        function_count=function_count,
        series=series,
        sweep=None if sweep is None else tuple(sweep),
        recommended=recommended,
        reason="the least p99 times replica-seconds",
    )

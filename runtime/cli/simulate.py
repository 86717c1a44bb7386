"""`upwell simulate`: what the autoscaler would do with traffic, and which settings suit it."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from upwell.functions.errors import InvalidSettings, Unavailable
from upwell.functions.manifest import Manifest
from upwell.runtime.api.shapes import FieldFault
from upwell.runtime.cli.files import fault_lines, read_manifests
from upwell.runtime.cli.options import complete_file, duration, pairs
from upwell.runtime.cli.table import table
from upwell.runtime.simulate.defaults import COMMON_SERVICE, MEASURED_START, TRACES

if TYPE_CHECKING:
    from upwell.runtime.simulate.plans import Declared
    from upwell.runtime.simulate.report import FunctionReport, Quantiles, SimulationReport, SweepPoint
    from upwell.runtime.simulate.simulation import Conditions

EXAMPLES = f"""
\b
Examples:
  upwell simulate --trace access.log
  upwell simulate -f service.yaml --trace requests.csv --sweep target=20:200:20 --html report.html
  upwell simulate --trace {TRACES[2]} --sweep window=6s,30s,60s --sweep target=10:100:30
  upwell simulate --trace {TRACES[5]}
\b
Traces: CSV of arrivals (time[,function[,service_ms]]) or of rates (time,rate[,function]); access logs: ours (JSON
lines), common, combined; or a generator: {", ".join(each.partition(":")[0] for each in TRACES)}.
"""
FUNCTIONS_SHOWN: Final = 10
LONG_SECONDS: Final = 3600
"""Virtual seconds from which a simulation shows how far it is."""


@click.command(epilog=EXAMPLES)
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    shell_complete=complete_file,
    help="Manifests: Services, of which one alone stands for all functions, and a ConfigMap config-autoscaler.",
)
@click.option(
    "--trace", required=True, metavar="FILE|GENERATOR", shell_complete=complete_file, help="The traffic."
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=VALUES",
    help="Try FROM:TO:STEP or A,B,C of an autoscaling annotation, config-autoscaler key or container-concurrency.",
)
@click.option("--html", metavar="FILE", shell_complete=complete_file, help="Write a report with charts.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of all chance.")
@click.option(
    "--service-time",
    metavar="DISTRIBUTION",
    help="How long requests are served: constant:50ms, exponential:50ms, lognormal:50ms,0.8, empirical:FILE."
    f"  [default: as in the trace, else {COMMON_SERVICE}]",
)
@click.option(
    "--start-time",
    metavar="DISTRIBUTION",
    default=MEASURED_START,
    show_default=True,
    help="How long replicas take to start; the default is what this platform measures.",
)
@click.option("--duration", type=duration, metavar="DURATION", help="Cut the trace to this, or go on in silence.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of config-autoscaler, as stable-window=30s.",
)
@click.option("--output", "-o", type=click.Choice(["json"]), help="Print the whole report as JSON.")
def simulate(
    files: tuple[str, ...],
    trace: str,
    sweeps: tuple[str, ...],
    html: str | None,
    seed: int,
    service_time: str | None,
    start_time: str,
    duration: float | None,
    assignments: tuple[str, ...],
    output: str | None,
) -> None:
    """Try the autoscaler and its settings on recorded or made-up traffic.

    Its own code runs over a virtual cluster and clock. Tells latency with queueing, cold starts, replica-seconds
    and what of them was wasted; with --sweep which settings nothing beats, and which to take.
    """
    from upwell.runtime.simulate.distributions import parse_distribution
    from upwell.runtime.simulate.plans import NOT_SIMULATED
    from upwell.runtime.simulate.simulation import Conditions
    from upwell.runtime.simulate.traces import load_trace

    loaded = load_trace(trace, seed)
    conditions = Conditions(
        trace=loaded if duration is None else loaded.lasting(duration),
        declared=_declared(files, _keys(pairs(assignments, "--set"))),
        start=parse_distribution(start_time, "--start-time"),
        service=None if service_time is None else parse_distribution(service_time, "--service-time"),
        seed=seed,
    )
    report = _report(conditions, sweeps)
    if NOT_SIMULATED in report.settings:
        counted = "counts as missing, so no replica is added for it or taken away without it"
        _warn(f"{report.settings[NOT_SIMULATED]}: not simulated; what cannot be read {counted}")
    if html is not None:
        _write_page(html, report)
    if output == "json":
        click.echo(report.encode(), nl=False)
    else:
        for line in _lines(report):
            click.echo(line)


def _report(conditions: Conditions, sweeps: Sequence[str]) -> SimulationReport:
    from upwell.runtime.simulate.simulation import simulate as simulate_once
    from upwell.runtime.simulate.sweep import combinations, parse_axis, sweep

    if sweeps:
        axes = [parse_axis(each) for each in sweeps]
        with _progress("settings", len(combinations(axes)), least=2) as told:
            return sweep(conditions, axes, told)
    with _progress("simulated", int(conditions.trace.seconds), least=LONG_SECONDS) as told:
        return simulate_once(conditions, {}, told=told)


@contextlib.contextmanager
def _progress(label: str, length: int, *, least: int) -> Iterator[Callable[[int], None]]:
    """What is told how far it is, shown to a person who waits for long."""
    if length < least or not sys.stderr.isatty():
        yield lambda done: None
        return
    step = max(1, length // 200)
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:

        def told(done: int) -> None:
            if done - bar.pos >= step or done >= length:
                bar.update(min(done, length) - bar.pos)

        yield told


def _keys(given: dict[str, str]) -> dict[str, str]:
    """As `upwell run` has it: a key that is none is a mistake on a command line."""
    from upwell.runtime.simulate.plans import config_keys

    known = config_keys()
    for key in given:
        if key not in known:
            alike = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
            hint = f"Did you mean {alike[0]}?" if alike else f"There are: {', '.join(sorted(known))}."
            raise InvalidSettings(f"config-autoscaler has no key {key}", where="--set", hint=hint)
    return given


def _declared(files: Sequence[str], above: Mapping[str, str]) -> Declared:
    """The manifests as the platform would take them; when it would not, each field at fault, and exit with 2."""
    from upwell.runtime.control.admitted import Refused
    from upwell.runtime.simulate.plans import Declared, admitted

    manifests: list[Manifest] = read_manifests(files, recursive=False, namespace=None) if files else []
    try:
        found, warnings = admitted([manifest.data for manifest in manifests], above)
    except Refused as error:
        faults = [FieldFault(error.index, each.path, each.message) for each in error.faults]
        for line in fault_lines(manifests, faults):
            click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(line, err=True)
        sys.exit(error.exit_code)
    for manifest, of_one in zip(manifests, warnings, strict=True):
        for warning in of_one:
            _warn(f"{manifest.where(())}: {manifest.kind} {manifest.name}: {warning}")
    return Declared.of(found, above)


def _warn(text: str) -> None:
    click.secho("Warning: ", fg="yellow", nl=False, err=True)
    click.echo(text, err=True)


def _write_page(path: str, report: SimulationReport) -> None:
    from upwell.runtime.simulate.page import render_simulation

    try:
        Path(path).write_text(render_simulation(report), encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"the report cannot be written: {error.strerror}", where=path) from error


# For people


def _lines(report: SimulationReport) -> Iterator[str]:
    settings = report.settings
    requests, functions = _counted(report.requests, "request"), _counted(report.function_count, "function")
    yield f"{report.title}: {requests} in {settings['length']}, {functions}"
    yield ", ".join(f"{name} {settings[name]}" for name in ("service time", "start time", "seed"))
    yield ""
    if report.sweep is not None:
        yield from _sweep_lines(report, report.sweep)
        yield ""
    yield table(
        ("MILLISECONDS", "MEAN", "P50", "P90", "P95", "P99", "P99.9", "MAX"),
        [("latency", *_spread(report.latency)), ("of it queueing", *_spread(report.queueing))],
    )
    yield ""
    yield table(
        ("COLD STARTS", "REJECTED", "REPLICAS AT MOST", "REPLICA-SECONDS", "BUSY", "WASTE"),
        [
            (
                f"{report.cold_starts:,}",
                f"{report.rejected:,}",
                str(report.greatest_replicas),
                _number(report.replica_seconds),
                _number(report.busy_replica_seconds),
                _percent(report.waste),
            )
        ],
    )
    if report.function_count > 1:
        yield ""
        yield _function_table(report.functions[:FUNCTIONS_SHOWN])
        if report.function_count > FUNCTIONS_SHOWN:
            yield f"and {report.function_count - FUNCTIONS_SHOWN:,} functions with fewer requests"


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def _spread(quantiles: Quantiles) -> list[str]:
    values = (
        quantiles.mean,
        quantiles.p50,
        quantiles.p90,
        quantiles.p95,
        quantiles.p99,
        quantiles.p999,
        quantiles.greatest,
    )
    return [_number(value) for value in values]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _function_table(functions: Sequence[FunctionReport]) -> str:
    rows = [
        (
            each.name,
            f"{each.requests:,}",
            f"{each.cold_starts:,}",
            f"{each.rejected:,}",
            _number(each.latency.p50),
            _number(each.latency.p99),
            str(each.greatest_replicas),
            _number(each.replica_seconds),
        )
        for each in functions
    ]
    headers = ("FUNCTION", "REQUESTS", "COLD", "REJECTED", "P50 MS", "P99 MS", "REPLICAS", "REPLICA-SECONDS")
    return table(headers, rows)


def _sweep_lines(report: SimulationReport, points: Sequence[SweepPoint]) -> Iterator[str]:
    """All points, those on the front marked, and which to take; what follows is of that one."""
    names = list(points[0].settings)
    rows = [
        (
            *(point.settings[name] for name in names),
            _number(point.p50),
            _number(point.p99),
            _number(point.replica_seconds),
            _percent(point.waste),
            f"{point.cold_starts:,}",
            f"{point.rejected:,}",
            "recommended" if point is report.recommended else "front" if point.on_front else "",
        )
        for point in points
    ]
    fixed = ("P50 MS", "P99 MS", "REPLICA-SECONDS", "WASTE", "COLD", "REJECTED", "")
    yield table((*(name.upper() for name in names), *fixed), rows)
    yield ""
    if report.recommended is not None:
        yield f"Take {report.recommended.label}: {report.reason}."

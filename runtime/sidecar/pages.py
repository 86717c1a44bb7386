"""The sidecar's other ports: the drain that a preStop hook waits for, the autoscaler's page, and Prometheus'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from upwell.runtime.http.exchange import Exchange
from upwell.runtime.measures import cumulative
from upwell.runtime.sidecar.drain import Drain
from upwell.runtime.sidecar.proxy import QueueProxy, respond
from upwell.runtime.sidecar.stat import PROTOBUF, StatReporter
from upwell.runtime.timers import TimerWheel

WAIT_FOR_DRAIN: Final = b"/wait-for-drain"
TERM_SECONDS: Final = 1.0
"""A preStop hook comes just before SIGTERM; without one in this time the container alone is restarted."""

_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
_PROMETHEUS: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


def _not_found(exchange: Exchange) -> None:
    exchange.respond(404, [_PLAIN, _NO_SNIFFING], b"404 page not found\n")


class AdminPage:
    """`/wait-for-drain`: answered once the drain, which it begins, is over.

    `terminating` says that we were told to end ourselves.
    """

    def __init__(self, drain: Drain, timers: TimerWheel, terminating: Callable[[], bool]) -> None:
        self._drain = drain
        self._timers = timers
        self._terminating = terminating

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        if exchange.request.path != WAIT_FOR_DRAIN:
            _not_found(exchange)
            return
        self._timers.schedule(TERM_SECONDS, self._call_off)
        self._drain.begin(lambda: respond(exchange, 200, []))

    def _call_off(self) -> None:
        if not self._terminating():
            self._drain.call_off()


class StatPage:
    """`/metrics` for the autoscaler: protocol buffers, or text for one who asks for text alone."""

    def __init__(self, reporter: StatReporter) -> None:
        self._reporter = reporter

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        if exchange.request.path != b"/metrics":
            _not_found(exchange)
            return
        accept = exchange.request.header(b"accept") or b""
        if PROTOBUF in accept or b"text/plain" not in accept:
            exchange.respond(200, [(b"content-type", PROTOBUF)], self._reporter.stat.encode())
        else:
            exchange.respond(200, [_PROMETHEUS], self._text())

    def _text(self) -> bytes:
        stat = self._reporter.stat
        label = _labels({"destination_pod": stat.pod_name})
        figures = {
            "queue_average_concurrent_requests": stat.average_concurrent_requests,
            "queue_average_proxied_concurrent_requests": stat.average_proxied_concurrent_requests,
            "queue_requests_per_second": stat.request_count,
            "queue_proxied_operations_per_second": stat.proxied_request_count,
            "process_uptime": stat.process_uptime,
        }
        return "".join(f"# TYPE {name} gauge\n{name}{label} {value}\n" for name, value in figures.items()).encode()


class RevisionPage:
    """`/metrics` for Prometheus: what the revision's requests took and how they ended."""

    def __init__(self, proxy: QueueProxy, labels: Mapping[str, str]) -> None:
        self._proxy = proxy
        self._labels = {name: value for name, value in labels.items() if value}

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        if exchange.request.path == b"/metrics":
            exchange.respond(200, [_PROMETHEUS], self.text().encode())
        else:
            _not_found(exchange)

    def text(self) -> str:
        """The page."""
        metrics, own = self._proxy.metrics, self._labels
        name = "kn_serving_invocation_duration_seconds"
        lines = [f"# TYPE {name} histogram"]
        lines += [
            f"{name}_bucket{_labels({**own, 'le': le})} {count:g}" for le, count in cumulative(metrics.buckets)
        ]
        lines += [f"{name}_sum{_labels(own)} {metrics.seconds}", f"{name}_count{_labels(own)} {metrics.total}"]
        lines += ["# TYPE kn_serving_queue_depth gauge", f"kn_serving_queue_depth{_labels(own)} {self._depth()}"]
        lines.append("# TYPE upwell_replica_responses_total counter")
        for status, count in sorted(metrics.responses.items()):
            labels = _labels({**own, "http_response_status_code": str(status)})
            lines.append(f"upwell_replica_responses_total{labels} {count}")
        lines.append("# TYPE upwell_replica_timeouts_total counter")
        lines.append(f"upwell_replica_timeouts_total{_labels(own)} {metrics.timeouts}")
        return "\n".join(lines) + "\n"

    def _depth(self) -> int:
        return self._proxy.stats.in_flight


def _labels(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

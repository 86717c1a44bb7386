"""Metrics that a Prometheus knows: an instant query each, and one number out of it.

Each distinct query is asked once a poll, a few at a time, over a connection of its own; an answer is read within a
deadline and up to a size. A scalar counts as it is, an instant vector as the sum of its samples. Everything else
(an empty vector, which may mean that whoever measures is away, and values that are no number) counts as missing;
`or vector(0)` in the query says that nothing means zero.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httptools

from upwell.autoscaler.decision import Missing, Reading
from upwell.autoscaler.metric_targets import PROMETHEUS
from upwell.functions.errors import InvalidSettings, Unavailable
from upwell.runtime.control.signals import Tell, Wanted

POLL_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 5.0
"""From opening the connection to the end of the answer."""
ANSWER_BYTES: Final = 1 << 20
QUERIES: Final = 8
"""Asked at a time."""
_CHUNK: Final = 1 << 16
_SAID_LENGTH: Final = 200
_NO_SERVER: Final = "no Prometheus is known; give its address with --prometheus"


@dataclass(frozen=True, slots=True)
class PrometheusServer:
    """Where a Prometheus answers."""

    host: str
    port: int
    path: str
    """What its API stands below; empty or beginning with a slash."""
    is_encrypted: bool

    @classmethod
    def parse(cls, url: str, where: str) -> PrometheusServer:
        """The server at `http[s]://HOST[:PORT][/PATH]`. Raises InvalidSettings with `where`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _not_a_server(url, where) from error
        extra = parts.query or parts.fragment or parts.username is not None
        if parts.scheme not in ("http", "https") or not parts.hostname or extra or not url.isprintable():
            raise _not_a_server(url, where)
        try:
            parts.hostname.encode("idna")  # as it is looked up, each time it is asked
        except UnicodeError as error:
            raise _not_a_server(url, where) from error
        is_encrypted = parts.scheme == "https"
        path = parts.path.rstrip("/")
        return cls(parts.hostname, port or (443 if is_encrypted else 80), path, is_encrypted)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}{self.path}"

    def request(self, query: str) -> bytes:
        """The request for what `query` is now."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        head = (
            f"GET {self.path}/api/v1/query?{urlencode({'query': query})} HTTP/1.1\r\n"
            f"Host: {host}:{self.port}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        )
        return head.encode()


def _not_a_server(url: str, where: str) -> InvalidSettings:
    hint = "It looks like http://127.0.0.1:9091, and may end with a path."
    return InvalidSettings(f"{url!r} is not the address of a Prometheus", where=where, hint=hint)


class PrometheusSource:
    """Answers of one Prometheus; without a server every metric is missing, and said to be."""

    metrics = frozenset({PROMETHEUS})
    interval = POLL_SECONDS

    def __init__(self, server: PrometheusServer | None) -> None:
        self._server = server
        # Reading the machine's certificates takes tens of milliseconds, so it is done once, before anything waits.
        self._context = ssl.create_default_context() if server is not None and server.is_encrypted else None

    async def poll(self, wanted: Sequence[Wanted], tell: Tell) -> None:
        """See `SignalSource`."""
        by_query: dict[str, list[Wanted]] = {}
        for each in wanted:
            by_query.setdefault(each.query, []).append(each)
        room = asyncio.Semaphore(QUERIES)

        async def find_out(query: str, asking: Sequence[Wanted]) -> None:
            async with room:
                reading, reason = await self._read(query)
            for each in asking:
                tell(each, reading, reason)

        async with asyncio.TaskGroup() as group:
            for query, asking in by_query.items():
                group.create_task(find_out(query, asking), name="prometheus-query")

    async def _read(self, query: str) -> tuple[Reading, str]:
        try:
            if self._server is None:
                raise Unavailable(_NO_SERVER)
            return Reading(await ask(self._server, query, self._context)), ""
        except Unavailable as error:
            return Reading(missing=Missing.METRICS_FAILED), str(error)


async def ask(server: PrometheusServer, query: str, context: ssl.SSLContext | None = None) -> float:
    """What the query comes to now; `context` is for a server that is encrypted. Raises Unavailable."""
    where = f"Prometheus at {server}"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status, body = await _get(server, server.request(query), context)
    except TimeoutError as error:
        raise Unavailable(f"did not answer in {ANSWER_SECONDS:g} s", where=where) from error
    except ssl.SSLError as error:
        raise Unavailable(f"TLS failed: {error.reason}", where=where) from error
    except OSError as error:
        raise Unavailable(error.strerror or "cannot be reached", where=where) from error
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise Unavailable("its answer is not HTTP", where=where) from error
    try:
        return max(0.0, value_of(status, body))
    except ValueError as error:
        raise Unavailable(str(error), where=where) from error


class _Answer:
    """The body of an answer, as the parser tells it."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


async def _get(server: PrometheusServer, request: bytes, context: ssl.SSLContext | None) -> tuple[int, bytes]:
    """Status and body; a body that was cut off is what came of it, and no JSON then."""
    reader, writer = await asyncio.open_connection(server.host, server.port, ssl=context)
    try:
        writer.write(request)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        received = 0
        while not answer.is_complete and (data := await reader.read(_CHUNK)):
            received += len(data)
            if received > ANSWER_BYTES:
                raise Unavailable("its answer is too large", where=f"Prometheus at {server}")
            parser.feed_data(data)
        if not received:
            raise Unavailable("it closed the connection without an answer", where=f"Prometheus at {server}")
        return int(parser.get_status_code()), bytes(answer.body)
    finally:
        writer.transport.abort()


def value_of(status: int, body: bytes) -> float:
    """The number that an answer of the query API comes to. Raises ValueError, which says why there is none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"answered {status} and no JSON") from error
    if not isinstance(answer, dict) or status != 200 or answer.get("status") != "success":
        said = answer.get("error") if isinstance(answer, dict) else None
        raise ValueError(f"answered {status}: {str(said)[:_SAID_LENGTH]!r}" if said else f"answered {status}")
    data = answer.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "scalar":
        return _sample(result)
    if kind != "vector" or not isinstance(result, list):
        raise ValueError(f"the query gives a {str(kind)[:_SAID_LENGTH]}, not an instant vector or a scalar")
    if not result:
        raise ValueError("the query found nothing")
    return _finite(sum(_sample(each.get("value") if isinstance(each, dict) else None) for each in result))


def _sample(pair: Any) -> float:
    """The value of a [time, "value"] pair."""
    value = math.nan
    if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str):
        try:
            value = float(pair[1])
        except ValueError:
            value = math.nan
    return _finite(value)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("the query gives a value that is no number")
    return value

"""Load by a generator that costs less than what it measures: h2load or, for want of it, wrk.

h2load sends a given number of requests, over TCP or a Unix socket. wrk knows only durations and TCP; it is run
until enough requests were answered.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final, Protocol

REMEDY: Final = "apt-get install nghttp2-client (h2load), or wrk for what needs no Unix socket"
LIMIT_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: a port of 127.0.0.1, or a Unix socket when `path` is set; `host` is the Host field.

    With `body`, the path of a file, they are POSTs of what it holds.
    """

    host: str
    port: int = 80
    path: str | None = None
    body: str | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What was sent: requests answered with success, those that were not, and the seconds it took."""

    answered: int
    failed: int
    seconds: float


class Generator(Protocol):
    """Sends requests over keep-alive connections, one at a time on each."""

    name: str
    unix: bool
    """Whether it can send to a Unix socket."""

    def run(self, target: Target, requests: int, connections: int) -> Load:
        """At least `requests` requests. Raises GeneratorFailed."""
        ...


class GeneratorFailed(Exception):
    """The generator ended without a figure; its output is in the message."""


class H2load:
    """nghttp2's generator, in HTTP/1.1."""

    name = "h2load"
    unix = True

    def run(self, target: Target, requests: int, connections: int) -> Load:
        """Exactly `requests` requests."""
        base = f"unix:{target.path}" if target.path else f"http://127.0.0.1:{target.port}"
        sent = [f"--data={target.body}"] if target.body else []
        # With -B the Host would be the base's, whatever the URI says.
        sent += [f"--header={header}" for header in (f":authority: {target.host}", *target.headers)]
        amount = (f"-n{requests}", f"-c{connections}", "-t1")
        output = _output("h2load", "--h1", *amount, *sent, "-B", base, f"http://{target.host}/")
        seconds = re.search(r"finished in ([\d.]+)(us|ms|s|m)", output)
        good = re.search(r"status codes: (\d+) 2xx", output)
        if seconds is None or good is None:
            raise GeneratorFailed(output)
        return Load(int(good[1]), requests - int(good[1]), float(seconds[1]) * _UNITS[seconds[2]])


class Wrk:
    """wrk, in bursts of whole seconds."""

    name = "wrk"
    unix = False

    def run(self, target: Target, requests: int, connections: int) -> Load:
        """Bursts until `requests` were answered or failed."""
        answered = failed = 0
        seconds = 0.0
        while answered + failed < requests:
            output = _output(
                "wrk",
                "-t1",
                f"-c{connections}",
                "-d2s",
                "-H",
                f"Host: {target.host}",
                f"http://127.0.0.1:{target.port}/",
            )
            done = re.search(r"(\d+) requests in ([\d.]+)s", output)
            if done is None or int(done[1]) == 0:
                raise GeneratorFailed(output)
            bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
            broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
            wrong = int(bad[1]) if bad else 0
            failed += wrong + (sum(map(int, broken.groups())) if broken else 0)
            answered += int(done[1]) - wrong
            seconds += float(done[2])
        return Load(answered, failed, seconds)


def find_generator() -> Generator | None:
    """The better of the generators that are installed, or None."""
    if shutil.which("h2load"):
        return H2load()
    return Wrk() if shutil.which("wrk") else None


_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode != 0:
        raise GeneratorFailed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout

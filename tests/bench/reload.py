"""From the saving of a file to the first answer of what was saved: `run --reload` beside `uvicorn --reload`.

Both are the real commands on a copy of the same file, which is replaced as an editor does it. A client asks again
and again; what the module's own import took, as the module itself measured it, is taken off.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .figures import median, percentile
from .plan import FUNCTIONS, Plan
from .processes import free_port, server, wait_for_listener
from .table import Result, Row

GOAL: Final = "<= 300"
PATIENCE_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.002
REST_SECONDS: Final = 0.3
"""Between two savings, for what the one before left behind to end."""


def run(plan: Plan) -> Result:
    """Rows for the median and the slowest of the rounds."""
    rounds = plan.choose(quick=3, default=20)
    uvicorn_rounds = plan.choose(quick=1, default=5)
    source = (FUNCTIONS / "edited.py").read_text()
    python = [sys.executable, "-m"]
    ports = [free_port() for _ in range(3)]
    folders = [plan.directory / name for name in ("upwell", "uvicorn")]
    for folder in folders:
        folder.mkdir()
        (folder / "edited.py").write_text(source)
    ours = ["upwell", "run", "edited.py", "--reload", "--port", str(ports[0]), "--admin-port", str(ports[1])]
    theirs = ["uvicorn", "edited:app", "--reload", "--port", str(ports[2]), "--log-level", "warning"]
    with (
        server([*python, *ours], plan.directory / "upwell.log", directory=folders[0]) as first,
        server([*python, *theirs], plan.directory / "uvicorn.log", directory=folders[1]) as second,
    ):
        wait_for_listener(first, plan.directory / "upwell.log", ("127.0.0.1", ports[0]))
        wait_for_listener(second, plan.directory / "uvicorn.log", ("127.0.0.1", ports[2]))
        plan.progress(f"{rounds} times saved under upwell, {uvicorn_rounds} times under uvicorn")
        taken = [_round(folders[0] / "edited.py", source, ports[0], f"u{number}") for number in range(rounds)]
        beside = [
            _round(folders[1] / "edited.py", source, ports[2], f"v{number}") for number in range(uvicorn_rounds)
        ]
    baseline = "uvicorn --reload"
    return Result(
        rows=[
            Row(
                "reload: saved to served, p50, import apart",
                median(taken),
                "ms",
                f"{baseline}, p50",
                median(beside),
                GOAL,
            ),
            Row(
                "reload: saved to served, p95, import apart",
                percentile(taken, 95),
                "ms",
                f"{baseline}, p95",
                percentile(beside, 95),
                GOAL,
            ),
        ]
    )


def _round(file: Path, source: str, port: int, version: str) -> float:
    """Milliseconds from the replacement of the file to the end of the first answer of that version."""
    _ask_until(port, lambda answer: bool(answer))
    time.sleep(REST_SECONDS)
    fresh = file.with_suffix(".new")
    fresh.write_text(source.replace('VERSION = "0"', f'VERSION = "{version}"'))
    began = time.perf_counter()
    os.replace(fresh, file)
    answer = _ask_until(port, lambda answer: answer.startswith(f"{version} "))
    return (time.perf_counter() - began) * 1000 - float(answer.split()[1])


def _ask_until(port: int, wanted: Callable[[str], bool]) -> str:
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            try:
                connection.request("GET", "/", headers={"host": "localhost"})
                response = connection.getresponse()
                answer = response.read().decode()
            finally:
                connection.close()
            if response.status == 200 and wanted(answer):
                return answer
        time.sleep(PAUSE_SECONDS)
    raise TimeoutError(f"port {port} did not answer what was saved within {PATIENCE_SECONDS:g} s")

"""A platform that was killed with SIGKILL goes on with what its autoscaler knew, and brings back nothing."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from support.command import PATIENCE, Shell
from upwell.autoscaler.saved import SavedRevision
from upwell.runtime.api.client import Client
from upwell.runtime.control.saved import read_saved

SLOW = """
import time

def hello(request):
    time.sleep(float(request.query_params.get("seconds", 0)))
    return "ok"
"""
REVISION = "default/hello-00001"
LOADED = 4


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"did not come about: {what}"
        time.sleep(0.02)


def service() -> dict[str, Any]:
    annotations = {"autoscaling.knative.dev/scale-down-delay": "10m"}
    spec = {"containerConcurrency": 1, "containers": [{"image": "hello"}]}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": spec}},
    }


def ask(port: int, seconds: float = 0.0) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", f"/?seconds={seconds}", headers={"Host": "hello.default.localhost"})
        return connection.getresponse().status


def saved(data: Path) -> SavedRevision | None:
    return read_saved(data / "autoscaler.json").get(REVISION)


def peak(revision: SavedRevision | None) -> int:
    return revision.delay_peaks[0][1] if revision is not None and revision.delay_peaks else 0


def test_what_the_autoscaler_knew_is_there_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "data")
    source = shell.write("hello.py", SLOW)
    client = Client(shell.data)
    with shell.up() as first, ThreadPoolExecutor(LOADED) as pool:
        client.apply([service()], images={"hello": json.dumps({"path": str(source)})})
        until(lambda: ask(first.port()) == 200, "an answer")
        assert set(pool.map(lambda _: ask(first.port(), 1.0), range(LOADED))) == {200}
        until(lambda: peak(saved(shell.data)) >= LOADED, "what was wanted is saved")
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(PATIENCE)
    before = saved(shell.data)
    assert before is not None
    assert before.panic_since is not None
    with shell.up() as second:
        until(lambda: (saved(shell.data) or before).saved_at > before.saved_at, "the new platform saves too")
        resumed = saved(shell.data)
        assert resumed is not None
        assert resumed.panic_since == before.panic_since, "panic goes on from when it was"
        assert peak(resumed) == peak(before)
        assert client.replicas("default", "hello-00001") == [], "nothing asked for it"
        assert ask(second.port()) == 200
        until(lambda: len(client.replicas("default", "hello-00001")) >= LOADED, "as many as were held")

"""A platform that was killed with SIGKILL is back with all it was told, and what it left running is ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from upwell.runtime import procfs
from upwell.runtime.api.client import Client
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.roles.data import MARK

PATIENCE = 30.0
FUNCTION = """
import os, subprocess, sys

daemon = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)

def handle(request):
    return {"pid": os.getpid(), "daemon": daemon.pid}
"""


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"did not come about: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    return procfs.state(pid) not in ("", "Z", "X")


@contextlib.contextmanager
def upwell_up(data: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A platform that answers to commands."""
    command = [sys.executable, "-m", "upwell", "up", "--data", str(data), "--port", "0", "--admin-port", "0"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            until(lambda: process.poll() is not None or "gateway on" in log.read_text(), log.read_text())
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(client: Client) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", client.platform().port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Host": "hello.default.localhost"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())


def is_ready(client: Client) -> bool:
    conditions = client.get(SERVICE, "default", "hello").get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def replicas(client: Client) -> list[int]:
    found = client.replicas("default", "hello-00001")
    return [each["pid"] for each in found if each["state"] == "ready"]


def test_the_next_platform_has_all_objects_ends_the_orphans_and_starts_what_should_run(tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = tmp_path / "hello.py"
    source.write_text(FUNCTION)
    annotations = {"autoscaling.knative.dev/min-scale": "1"}
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": [{"image": "hello"}]}}
    metadata = {"name": "hello", "namespace": "default"}
    manifest = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"template": template},
    }
    client = Client(data)
    with upwell_up(data, tmp_path / "first.log") as first:
        client.apply([manifest], images={"hello": json.dumps({"path": str(source)})})
        until(lambda: is_ready(client), "the service is ready")
        before = client.get(SERVICE, "default", "hello")
        answer = ask(client)
        (zygote,) = procfs.children(first.pid)
        # Without the host there is nobody left who would end what descends from it.
        os.kill(zygote, signal.SIGSTOP)
        os.kill(first.pid, signal.SIGKILL)
        os.kill(zygote, signal.SIGKILL)
        first.wait(PATIENCE)
    mark = (data / "mark").read_text().split()[0]
    assert is_alive(answer["daemon"])
    assert procfs.initial_variable(answer["daemon"], MARK) == mark
    with upwell_up(data, tmp_path / "second.log"):
        assert not is_alive(answer["daemon"])
        assert not is_alive(answer["pid"])
        after = client.get(SERVICE, "default", "hello")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["spec"] == before["spec"]
        until(lambda: len(replicas(client)) == 1, "the least number of replicas")
        assert ask(client)["pid"] == replicas(client)[0]
    assert [pid for pid in procfs.own_processes() if procfs.initial_variable(pid, MARK) == mark] == []

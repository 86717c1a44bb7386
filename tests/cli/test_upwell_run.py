"""`upwell run` as a person runs it: a process, its output, its exit code, and what it leaves behind."""

import contextlib
import http.client
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.running import PATIENCE, command, running

HELLO = "import os\n\nasync def main():\n    return f'hello from {os.getpid()}'\n"


def refused(*arguments: str) -> tuple[int, str]:
    """Exit code and what was said of a run that cannot be."""
    done = subprocess.run(command("--port", "0", *arguments), capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def family(pid: int) -> set[int]:
    """All processes below one, by /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        new = children.get(unseen.pop(), [])
        found.update(new)
        unseen.extend(new)
    return found


def gone(pids: set[int]) -> bool:
    """Whether none of them runs any more (a zombie does not)."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return False
    return True


def wait_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not gone(pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.02)


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello.py"
    path.write_text(HELLO)
    return path


def test_it_prints_the_url_and_a_line_for_what_rises(tmp_path: Path, hello: Path) -> None:
    with running(tmp_path, str(hello)) as run:
        port = run.port()
        assert f"http://hello.default.localhost:{port}" in run.output
        assert run.get()[0] == 200
        run.wait_for(r"↑ default/hello-00001  1 ready  .*start")
        run.wait_for(r"GET / 200 .* default/hello-00001 \(from zero\)")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_it_ends_no_process_is_left(tmp_path: Path, hello: Path, number: signal.Signals) -> None:
    with running(tmp_path, str(hello)) as run:
        run.get()
        descendants = family(run.process.pid)
        assert len(descendants) >= 3, "a zygote, a template and a replica"
        run.process.send_signal(number)
        code = run.process.wait(PATIENCE)
        assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
        wait_gone(descendants)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_under_way_is_answered_before_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import asyncio\nasync def main():\n    print('asked', flush=True)\n"
        "    await asyncio.sleep(1)\n    return 'done'\n"
    )
    with running(tmp_path, str(slow)) as run, ThreadPoolExecutor() as pool:
        port = run.port()
        answer = pool.submit(run.get, "/", "slow.default.localhost")
        run.wait_for("asked")
        begun = time.monotonic()
        run.process.send_signal(number)
        assert answer.result(PATIENCE) == (200, "done")
        assert run.process.wait(PATIENCE) == 0
        assert time.monotonic() - begun < 8, "it ends with its last request, not with the drain's time"
        assert port


@pytest.mark.parametrize("handler", ["await asyncio.sleep(60)", "time.sleep(60)"], ids=["async", "blocking"])
def test_a_request_that_does_not_end_holds_the_end_for_the_drains_time_alone(tmp_path: Path, handler: str) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(f"import asyncio, time\nasync def main():\n    print('asked', flush=True)\n    {handler}\n")
    with running(tmp_path, str(slow), "--drain-seconds", "5") as run, ThreadPoolExecutor() as pool:
        run.port()
        answer = pool.submit(run.get, "/", "slow.default.localhost")
        run.wait_for("asked")
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(9.0) == 0, "before the time has passed twice"
        assert isinstance(answer.exception(PATIENCE), OSError | http.client.HTTPException)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_can_be_ended_while_the_function_is_still_imported(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\ndef main(): ...\n")
    with running(tmp_path, str(slow)) as run:
        run.wait_for("… importing slow")
        descendants = family(run.process.pid)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(PATIENCE / 2) == 0
        wait_gone(descendants)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_falls_back_to_zero_and_says_why(tmp_path: Path, hello: Path) -> None:
    options = ("--set", "stable-window=6s", "--set", "scale-to-zero-grace-period=1s")
    with running(tmp_path, str(hello), *options) as run:
        status, body = run.get()
        replica = int(body.rpartition(" ")[2])
        assert status == 200
        line = run.wait_for(r"↓ default/hello-00001  0 ready  .*").group(0)
        assert "scale to 0" in line
        wait_gone({replica})
        assert run.get()[1] != body


def test_a_callable_is_named_after_a_colon_and_variables_reach_it(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "import os\ndef one(): return 'one'\ndef other(): return os.environ['TARGET']\n"
    )
    with running(tmp_path, f"{tmp_path}/two.py:other", "--env", "TARGET=there") as run:
        assert run.get(host="two.default.example.com") == (200, "there")


def test_json_logs_hold_one_access_line_a_request(tmp_path: Path, hello: Path) -> None:
    with running(tmp_path, str(hello), "--json-logs") as run:
        # That the gateway is "listening" says nothing yet of the function.
        found = run.wait_for(r'"message": "serving".*"port": (\d+)')
        connection = http.client.HTTPConnection("127.0.0.1", int(found.group(1)), timeout=PATIENCE)
        connection.request("GET", '/a?q="x"', headers={"Host": "hello.default.localhost"})
        connection.getresponse().read()
        connection.close()
        line = run.wait_for(r'\{"time":"[^"]+","access":.*\}').group(0)
        record: dict[str, Any] = json.loads(line)
        assert record["path"] == '/a?q="x"'
        assert record["status"] == 200
        assert record["revision"] == "default/hello-00001"
        assert record["replica"].startswith("hello-00001-")
        assert record["cold"] is True
        assert 0 < record["wait_ms"] <= record["duration_ms"]
        assert record["reason"] == ""


def test_it_serves_on_when_nobody_reads_what_it_prints(hello: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        command(str(hello), "--port", str(port), "--admin-port", "0"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert str(port) in process.stdout.readline()
        process.stdout.close()
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_second_signal_ends_it_at_once_and_quietly(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import asyncio\nasync def main():\n    print('asked')\n    await asyncio.sleep(60)\n")
    with running(tmp_path, str(slow)) as run, ThreadPoolExecutor() as pool:
        run.port()
        answer = pool.submit(run.get, "/", "slow.default.localhost")
        run.wait_for("asked")
        descendants = family(run.process.pid)
        run.process.send_signal(signal.SIGINT)
        run.wait_for("1 under way")
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(PATIENCE) == 128 + signal.SIGINT
        wait_gone(descendants)
        assert isinstance(answer.exception(PATIENCE), OSError | http.client.HTTPException)
        assert "Traceback" not in run.output


def test_it_serves_without_standard_streams(hello: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    line = shlex.join(command(str(hello), "--port", str(port), "--admin-port", "0"))
    process = subprocess.Popen(["/bin/sh", "-c", f"exec {line} <&- >&- 2>&-"])
    try:
        deadline = time.monotonic() + PATIENCE
        status = 0
        while status != 200 and time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            with contextlib.suppress(OSError):
                connection.request("GET", "/")
                status = connection.getresponse().status
            connection.close()
        assert status == 200
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_a_port_in_use_is_named_and_ends_it(tmp_path: Path, hello: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused(str(hello), "--port", str(port))
    assert code == 1
    assert f"port {port} is used by another process" in said
    assert "--port" in said


def test_a_second_run_beside_the_first_needs_another_port_alone(tmp_path: Path, hello: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    with running(first, str(hello), admin=None) as one, running(second, str(hello), admin=None) as other:
        assert one.get()[0] == other.get()[0] == 200
        pages = {run.wait_for(r"metrics at (\S+);").group(1) for run in (one, other)}
        assert len(pages) == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module\ndef main(): ...\n", "no module named no_such_module"),
        ("def main(:\n", "broken.py:1"),
        ("def main(a, b, c, d): ...\n", "async def hello(request: starlette.requests.Request)"),
    ],
    ids=["missing module", "syntax error", "fits nothing"],
)
def test_a_source_that_cannot_be_served_ends_it_with_exit_code_2(tmp_path: Path, source: str, said: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    code, told = refused(str(path), "--port", "0", "--admin-port", "0")
    assert code == 2
    assert said in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_file.py"], "no such file or directory"),
        (["hello.py", "--port", "99999"], "from 0 to 65535"),
        (["hello.py", "--set", "stable-window=1s"], "stable-window"),
        (["hello.py", "--set", "nonsense"], "NAME=VALUE"),
        (["hello.py", "--set", "stable_window=9s"], "Did you mean stable-window?"),
        (["hello.py", "--host", "192.0.2.1"], "--host 192.0.2.1"),
        (["hello.py", "--env", "K_SERVICE=x"], "K_SERVICE is set by the platform"),
    ],
    ids=["no file", "port", "config-autoscaler value", "no equals", "config-autoscaler key", "host", "variable"],
)
def test_a_wrong_argument_is_named_with_exit_code_2(hello: Path, arguments: list[str], said: str) -> None:
    replaced = [str(hello) if argument == "hello.py" else argument for argument in arguments]
    code, told = refused(*replaced)
    assert code == 2
    assert said in told


def test_exceptions_are_shown_to_the_one_who_runs_it(tmp_path: Path) -> None:
    path = tmp_path / "boom.py"
    path.write_text("def main():\n    raise RuntimeError('what went wrong')\n")
    with running(tmp_path, str(path)) as run:
        status, body = run.get(host="boom.default.localhost")
        assert status == 500
        assert "RuntimeError: what went wrong" in body
        assert str(path) in body

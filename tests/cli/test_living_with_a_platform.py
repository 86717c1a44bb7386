"""`upwell up` and the commands that talk to it, as processes: the main story, and how it ends and begins again."""

import http.client
import json
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from support.command import PATIENCE, Shell

HELLO = """\
import os

def hello():
    name = os.environ.get("TARGET", "World")
    print(f"greeting {name}", flush=True)
    return f"Hello {name}!\\n"
"""
MANIFEST = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
spec:
  template:
    spec:
      containers:
      - image: registry.example.com/hello:1.0
        env:
        - name: TARGET
          value: Ada
"""
IMAGE = "registry.example.com/hello=hello.py"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, tmp_path / "data")
    shell.write("hello.py", HELLO)
    shell.write("hello.yaml", MANIFEST)
    return shell


def test_the_story_from_up_to_delete(shell: Shell) -> None:
    with shell.up() as platform:
        port = platform.port()
        url = f"http://hello.default.localhost:{port}"
        applied = shell.fine("apply", "-f", "hello.yaml", "--image", IMAGE, "--wait")
        assert applied.splitlines() == ["service.serving.knative.dev/hello created", url]
        header, row = shell.fine("get", "ksvc").splitlines()
        assert header.split() == ["NAME", "URL", "LATESTCREATED", "LATESTREADY", "READY", "REASON"]
        assert row.split() == ["hello", url, "hello-00001", "hello-00001", "True"]
        assert shell.fine("invoke", "hello") == "Hello Ada!\n"
        platform.wait_for(r"GET / 200 .* default/hello-00001 \(from zero\)")
        described = shell.fine("describe", "ksvc", "hello")
        assert "module hello of" in described
        assert "TARGET=Ada" in described
        assert "hello-00001" in described
        assert shell.fine("delete", "ksvc", "hello") == "service.serving.knative.dev/hello deleted\n"
        assert shell.run("get", "ksvc").err == "No resources found in default namespace.\n"
        gone = shell.run("invoke", "hello")
        assert (gone.code, gone.out) == (1, "")
        assert platform.end() == 0
    after = shell.run("get", "ksvc")
    assert after.code == 1
    assert f"{shell.data}/api.sock: no platform is running" in after.err


def test_what_a_function_printed_is_read_and_followed(shell: Shell) -> None:
    with shell.up():
        shell.fine("apply", "-f", "hello.yaml", "--image", IMAGE, "--wait")
        shell.fine("invoke", "hello")
        deadline = time.monotonic() + PATIENCE
        while "greeting Ada" not in shell.fine("logs", "hello") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shell.fine("logs", "hello", "--tail", "1") == "greeting Ada\n"
        with shell.started("logs", "hello", "-f", "--tail", "0") as following:
            while "greeting" not in following.output and time.monotonic() < deadline:
                shell.fine("invoke", "hello")
            assert following.end() == 130
            assert "Traceback" not in following.output
        assert "greeting Ada" in shell.fine("describe", "ksvc", "hello")


def test_a_local_function_is_deployed_and_is_a_service_like_others(shell: Shell) -> None:
    with shell.up():
        shell.fine("deploy", "hello.py:hello", "--name", "greeter", "--env", "TARGET=Bob", "--wait")
        assert shell.fine("invoke", "greeter") == "Hello Bob!\n"
        shown = shell.fine("get", "ksvc", "greeter", "-o", "yaml")
        assert shown.startswith("apiVersion: serving.knative.dev/v1\nkind: Service\n")
        assert "resourceVersion" not in shown
        assert shell.fine("apply", "-f", "-", given=shown).endswith(" unchanged\n")
        everything = shell.fine("get", "ksvc", "-o", "json")
        assert json.loads(everything)["kind"] == "List"
        assert shell.fine("apply", "-f", "-", given=everything).endswith(" unchanged\n")
        shell.write("hello.py", HELLO.replace("Hello", "Goodbye"))
        shell.fine("deploy", "hello.py:hello", "--name", "greeter", "--env", "TARGET=Bob", "--wait")
        assert shell.fine("invoke", "greeter") == "Goodbye Bob!\n"
        assert len(shell.fine("get", "rev", "-o", "name").splitlines()) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_state_is_back_after_the_end(shell: Shell, number: signal.Signals) -> None:
    with shell.up() as platform:
        shell.fine("apply", "-f", "hello.yaml", "--image", IMAGE, "--wait")
        before = shell.fine("get", "rev", "-o", "name")
        assert platform.end(number) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    shell.write("hello.py", "raise SystemExit('the source is kept as it was')")
    with shell.up() as platform:
        assert "1 service;" in platform.output
        assert shell.fine("get", "rev", "-o", "name") == before
        assert shell.fine("invoke", "hello") == "Hello Ada!\n"


def test_a_second_platform_on_the_same_directory_is_refused(shell: Shell) -> None:
    with shell.up() as platform:
        second = shell.run("up", "--port", "0", "--admin-port", "0")
        assert second.code == 1
        assert str(platform.process.pid) in second.err
        assert str(shell.data) in second.err
        assert shell.run("get", "ksvc").code == 0, "the first one goes on"


def test_a_directory_of_a_newer_version_is_refused(shell: Shell) -> None:
    with shell.up():
        pass
    (shell.data / "version").write_text("99\n")
    done = shell.run("up", "--port", "0", "--admin-port", "0")
    assert done.code == 2
    assert "99" in done.err
    assert str(shell.data) in done.err


@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_a_port_in_use_is_named_and_leaves_the_directory_free(shell: Shell, flag: str) -> None:
    other = "--admin-port" if flag == "--port" else "--port"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shell.run("up", flag, str(port), other, "0")
    assert done.code == 1
    assert f"port {port} is used by another process" in done.err
    assert not (shell.data / "api.sock").exists()
    with shell.up() as platform:
        assert platform.end() == 0


def test_logs_may_be_json(shell: Shell) -> None:
    with shell.started("up", "--port", "0", "--admin-port", "0", "--json-logs") as platform:
        platform.wait_for('"message": "taking commands"')
        shell.fine("deploy", "hello.py", "--wait")
        shell.fine("invoke", "hello")
        platform.wait_for(r'"access":"GET","host":"hello\.default\.localhost')
        assert platform.end() == 0
        assert all(json.loads(line) for line in platform.output.splitlines())


def test_watches_and_logs_do_not_hold_up_the_end(shell: Shell) -> None:
    with shell.up() as platform, shell.started("get", "ksvc", "-w") as watching:
        watching.wait_for("No resources found")
        begun = time.monotonic()
        assert platform.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 5, "less than the drain's time"


def test_nobody_else_may_enter_the_directory_or_the_socket(shell: Shell) -> None:
    with shell.up():
        assert stat.S_IMODE(shell.data.stat().st_mode) == 0o700
        assert stat.S_IMODE((shell.data / "api.sock").stat().st_mode) == 0o600


def test_a_watch_prints_what_changes_and_ends_quietly(shell: Shell) -> None:
    with shell.up(), shell.started("get", "ksvc", "-w") as watching:
        watching.wait_for("No resources found")
        shell.fine("apply", "-f", "hello.yaml", "--image", IMAGE, "--wait")
        watching.wait_for(r"(?m)^hello  .* hello-00001  .* True$")
        shell.fine("delete", "ksvc", "hello")
        watching.wait_for("service.serving.knative.dev/hello deleted")
        assert watching.end() == 130
        assert "Traceback" not in watching.output


def test_waiting_says_why_a_service_is_not_ready(shell: Shell) -> None:
    with shell.up():
        done = shell.run("apply", "-f", "hello.yaml", "--wait", "--timeout", "20s")
        assert done.code == 1
        assert 'mapped to the image "registry.example.com/hello:1.0"' in done.err
        assert done.out == "service.serving.knative.dev/hello created\n", "it is applied all the same"
        shell.write("slow.py", "import time\ntime.sleep(30)\ndef main(): ...\n")
        late = shell.run("deploy", "slow.py", "--wait", "--timeout", "300ms")
        assert late.code == 1
        assert "not ready in time" in late.err


def test_the_gateway_answers_any_client_by_host(shell: Shell) -> None:
    with shell.up() as platform:
        shell.fine("apply", "-f", "hello.yaml", "--image", IMAGE, "--wait")
        connection = http.client.HTTPConnection("127.0.0.1", platform.port(), timeout=PATIENCE)
        connection.request("GET", "/", headers={"Host": "hello.default.example.com"})
        assert connection.getresponse().read() == b"Hello Ada!\n"
        connection.close()

"""The commands beside one platform that runs all the while: what they take, refuse, print, and how they exit."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import UPWELL, Shell

ECHO = """\
import json
from starlette.requests import Request
from starlette.responses import Response

async def main(request: Request):
    if request.url.path == "/bytes":
        return Response(bytes(range(256)), media_type="application/octet-stream")
    if request.url.path == "/teapot":
        return Response("short and stout", status_code=418)
    body = await request.body()
    told = {"method": request.method, "path": request.url.path, "query": request.url.query,
            "headers": dict(request.headers), "body": body.decode("latin-1")}
    return Response(json.dumps(told), media_type="application/json")
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    directory = tmp_path_factory.mktemp("platform")
    shell = Shell(directory, directory / "data")
    shell.write("echo.py", ECHO)
    with shell.up():
        shell.fine("deploy", "echo.py", "--wait")
        yield shell


@pytest.fixture
def shell(running: Shell, tmp_path: Path) -> Shell:
    """The platform's, in a working directory of the test's own."""
    return Shell(tmp_path, running.data)


def manifest(name: str, namespace: str = "", image: str = "x", extra: str = "") -> str:
    line = f"  namespace: {namespace}\n" if namespace else ""
    return (
        f"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}\n{line}spec:\n"
        f"  template:\n    spec:\n      containers:\n      - image: {image}\n{extra}"
    )


def told(shell: Shell, *arguments: str, given: str = "") -> dict[str, object]:
    """What the echo was asked."""
    answer: dict[str, object] = json.loads(shell.fine("invoke", "echo", *arguments, given=given))
    return answer


def test_a_full_disk_behind_a_redirection_is_told(shell: Shell) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*UPWELL, "get", "ksvc", "-o", "yaml"],
            env=shell.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "Error: what is printed cannot be written: No space left on device\n"


# Applying


def test_the_files_of_a_directory_are_applied_in_order(shell: Shell) -> None:
    shell.write("all/b.yml", manifest("dir-b"))
    shell.write("all/a.yaml", f"{manifest('dir-a')}---\n{manifest('dir-a2')}")
    shell.write("all/notes.txt", "no manifest: [")
    shell.write(
        "all/deeper/c.json", json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}})
    )
    applied = shell.fine("apply", "-f", "all").splitlines()
    assert applied == [f"service.serving.knative.dev/dir-{name} created" for name in ("a", "a2", "b")]
    again = shell.fine("apply", "-f", "all", "-R").splitlines()
    assert [line.split()[-1] for line in again] == ["unchanged", "unchanged", "unchanged", "created"]
    assert again[-1] == "namespace/c created"
    assert shell.fine("delete", "-f", "all", "-R").count(" deleted\n") == 4


def test_a_wrong_field_is_named_by_file_and_line_and_nothing_is_applied(shell: Shell) -> None:
    shell.write("all/a.yaml", manifest("fine-one"))
    shell.write("all/b.yaml", manifest("wrong-one", extra="        imagee: y\n      containerConcurrency: -1\n"))
    done = shell.run("apply", "-f", "all")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "Error: all/b.yaml:10: spec.template.spec.containers[0].imagee: unknown field",
        "Error: all/b.yaml:11: spec.template.spec.containerConcurrency: must be from 0 to 1000, not -1",
    ]
    assert shell.run("get", "ksvc", "fine-one").code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "f.yaml:2: not valid YAML"),
        ("- 1\n", "f.yaml:1: not an object"),
        ("apiVersion: v1\nkind: Pod\n", "f.yaml:1: metadata: required"),
        ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n", "f.yaml:2: kind: taken are Service"),
        ("", "f.yaml: no objects in it"),
        (manifest("x", namespace="a") + "---\n" + manifest("Not_A_Name"), "f.yaml:15: metadata.name:"),
    ],
    ids=["no YAML", "no object", "no metadata", "another kind", "nothing", "a name"],
)
def test_what_is_no_manifest_is_told_with_its_line_and_exit_code_2(shell: Shell, text: str, said: str) -> None:
    shell.write("f.yaml", text)
    done = shell.run("apply", "-f", "f.yaml")
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-f", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
        (["-f", "empty"], "empty: no .yaml, .yml, .json file"),
        (
            ["-f", "f.yaml", "-n", "other"],
            "f.yaml:5: metadata.namespace: is 'team', while --namespace says 'other'",
        ),
        (["-f", "/dev/zero"], "/dev/zero: larger than 16 MiB"),
        (["-f", "f.yaml", "--image", "x"], "--image: 'x' maps no image"),
        (["-f", "f.yaml", "--image", "x=cmd:'"], "cannot be split into words"),
        (["-f", "f.yaml", "--image", "x=nowhere.py"], "nowhere.py: no such file or directory"),
        (["-f", "f.yaml", "--timeout", "soon"], "'soon' is no duration"),
        (["-f", "f.yaml", "--timeout", "1000000h"], "longer than a year"),
        ([], "Missing option '--file'"),
    ],
)
def test_wrong_arguments_are_told_with_exit_code_2(shell: Shell, arguments: list[str], said: str) -> None:
    shell.write("f.yaml", manifest("x", namespace="team"))
    (shell.directory / "empty").mkdir()
    done = shell.run("apply", *arguments)
    assert done.code == 2
    assert said in done.err


def test_a_dry_run_checks_and_changes_nothing(shell: Shell) -> None:
    shell.write("f.yaml", manifest("dry"))
    assert (
        shell.fine("apply", "-f", "f.yaml", "--dry-run") == "service.serving.knative.dev/dry created (dry run)\n"
    )
    assert shell.run("get", "ksvc", "dry").code == 1


def test_standard_input_and_a_namespace_of_the_command_line(shell: Shell) -> None:
    shell.fine("apply", "-f", "-", "-n", "piped", given=manifest("piped"))
    assert shell.fine("get", "ksvc", "-n", "piped", "-o", "name") == "service.serving.knative.dev/piped\n"
    everywhere = shell.fine("get", "ksvc", "-A").splitlines()
    assert everywhere[0].startswith("NAMESPACE")
    assert any(line.split()[:2] == ["piped", "piped"] for line in everywhere)
    assert shell.run("get", "ksvc", "piped").code == 1
    shell.fine("delete", "ksvc/piped", "-n", "piped")


def test_a_command_runs_for_an_image_where_apply_was_called(shell: Shell) -> None:
    shell.write(
        "program.py",
        "import os\nfrom http.server import *\nclass H(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n        body = os.getcwd().encode()\n        self.send_response(200)\n"
        "        self.send_header('content-length', str(len(body)))\n        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n",
    )
    python = UPWELL[0]
    shell.fine("apply", "-f", "-", "--image", f"x=cmd:{python} program.py", "--wait", given=manifest("program"))
    assert shell.fine("invoke", "program") == str(shell.directory)
    assert f"Source:       {python} program.py in {shell.directory}" in shell.fine("describe", "ksvc", "program")
    shell.fine("delete", "ksvc", "program")


# Reading and removing


def test_what_is_not_there_is_told_and_may_be_ignored(shell: Shell) -> None:
    missing = shell.run("delete", "ksvc", "nobody")
    assert missing.code == 1
    assert missing.err == (
        "Error: service.serving.knative.dev/nobody: not found in the namespace default\n"
        "  `upwell get ksvc -A` lists those of all namespaces.\n"
    )
    assert shell.run("delete", "ksvc", "nobody", "--ignore-not-found").code == 0
    assert shell.run("get", "ksvc", "nobody").err == missing.err
    for asked in (["describe", "ksvc", "nobody"], ["logs", "nobody"], ["invoke", "ksvc/nobody"]):
        done = shell.run(*asked)
        assert (done.code, done.err) == (1, missing.err)


def test_of_a_revision_that_had_traffic_and_is_not_made_anew_one_is_warned(shell: Shell) -> None:
    shell.write("split.py", "async def main(): return 'ok'\n")
    traffic = "  traffic:\n  - revisionName: split-a\n    percent: 100\n  - latestRevision: true\n    tag: next\n"
    for name, extra in (("split-a", ""), ("split-b", traffic)):
        named = f"  template:\n    metadata:\n      name: {name}\n"
        text = manifest("split", extra=extra).replace("  template:\n", named)
        shell.fine("apply", "-f", "-", "--image", "x=split.py", "--wait", given=text)
    assert shell.run("delete", "rev", "split-b").err == ""
    done = shell.run("delete", "rev", "split-a")
    assert (done.code, done.out) == (0, "revision.serving.knative.dev/split-a deleted\n")
    assert done.err == (
        "Warning: revision.serving.knative.dev/split-a: the route split names it in its traffic; "
        "name another revision there (spec.traffic of the Service or Route)\n"
    )
    shell.fine("delete", "ksvc", "split")


def test_those_that_are_there_are_shown_beside_one_that_is_not(shell: Shell) -> None:
    done = shell.run("get", "ksvc", "echo", "nobody", "-o", "name")
    assert done.code == 1
    assert done.out == "service.serving.knative.dev/echo\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "pizza"], "there is no kind 'pizza'"),
        (["get", "revs"], "Did you mean rev?"),
        (["get"], "Missing argument 'KIND'"),
        (["get", "ksvc", "-l", "x"], "LABEL=VALUE"),
        (["delete", "ksvc"], "Write ksvc NAME."),
        (["delete"], "Give KIND and NAME, or --file."),
        (["describe", "ksvc"], "a name is missing"),
        (["logs", ""], "a name is missing"),
        (["logs", "rev/echo-00001"], "rev is no service"),
        (["invoke", "echo/path"], "there is no kind 'echo'"),
        (["get", "ksvc", "a\udcff"], "not UTF-8 text"),
        (["get", "ksvc", "-n", "a\udcff"], "not UTF-8 text"),
        (["logs", "echo", "--revision", "a\udcff"], "not UTF-8 text"),
    ],
)
def test_commands_that_name_nothing_are_refused(shell: Shell, arguments: list[str], said: str) -> None:
    done = shell.run(*arguments)
    assert done.code == 2
    assert said in done.err


def test_revisions_are_selected_by_label(shell: Shell) -> None:
    selected = shell.fine("get", "rev", "-l", "serving.knative.dev/service=echo", "-o", "name")
    assert selected == "revision.serving.knative.dev/echo-00001\n"
    assert shell.fine("get", "rev", "-l", "serving.knative.dev/service=nobody", "-o", "name") == ""


def test_several_kinds_are_listed_together_and_their_names_say_which(shell: Shell) -> None:
    first, blank, second = shell.fine("get", "ksvc,rt", "echo").partition("\n\n")
    assert blank
    for text, kind in ((first, "service"), (second, "route")):
        header, line = text.splitlines()
        assert header.startswith("NAME ")
        assert line.startswith(f"{kind}.serving.knative.dev/echo ")
    names = shell.fine("get", "cfg,rev,cm", "-l", "serving.knative.dev/service=echo", "-o", "name").split()
    assert names == ["configuration.serving.knative.dev/echo", "revision.serving.knative.dev/echo-00001"]
    listed = json.loads(shell.fine("get", "ksvc,rt", "echo", "-o", "json"))["items"]
    assert [each["kind"] for each in listed] == ["Service", "Route"]
    assert "deployment.apps/echo-00001-deployment" in shell.fine("get", "all", "-o", "name").split()
    done = shell.run("get", "ksvc,rt", "-w")
    assert done.code == 2
    assert "only one kind can be watched" in done.err


def test_every_kind_can_be_described(shell: Shell) -> None:
    described = shell.fine("describe", "rev", "echo-00001")
    assert "Conditions:" in described
    for kind in ("deploy", "king"):
        named = shell.fine("get", kind, "-o", "name").split()[0]
        assert shell.fine("describe", kind, named.partition("/")[2]).split()[:2] == [
            "Name:",
            named.partition("/")[2],
        ]


def test_nothing_is_coloured_that_is_no_terminal_and_nothing_with_no_color(shell: Shell) -> None:
    assert "\033" not in shell.fine("get", "ksvc")
    script = ["script", "-qec", " ".join([*UPWELL, "get", "ksvc", "echo"]), "/dev/null"]
    for setting, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        environment = {**shell.environment, **setting, "TERM": "xterm"}
        environment = {k: v for k, v in environment.items() if k != "NO_COLOR" or setting}
        done = subprocess.run(script, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert ("\033[32mTrue" in done.stdout) is coloured


@pytest.mark.parametrize("arguments", [["get", "ksvc", "-o", "yaml"], ["invoke", "echo", "--path", "/bytes"]])
def test_a_reader_that_has_left_is_no_reason_to_complain(shell: Shell, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*UPWELL, *arguments], env=shell.environment, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


# Invoking


def test_a_request_without_a_body_is_a_get(shell: Shell) -> None:
    asked = told(shell, "--path", "/a b?q=ü&r=1")
    assert (asked["method"], asked["path"], asked["query"]) == ("GET", "/a b", "q=%C3%BC&r=1")
    assert asked["body"] == ""


@pytest.mark.parametrize(
    ("data", "body", "content_type"),
    [
        ('{"a": 1}', '{"a": 1}', "application/json"),
        ("hello", "hello", "text/plain; charset=utf-8"),
        ("@file", "\xff\x00", "application/octet-stream"),
        ("-", "given", "text/plain; charset=utf-8"),
    ],
    ids=["json", "text", "file", "standard input"],
)
def test_a_body_is_posted_with_its_type(shell: Shell, data: str, body: str, content_type: str) -> None:
    (shell.directory / "file").write_bytes(b"\xff\x00")
    asked = told(shell, "--data", data, given="given")
    assert (asked["method"], asked["body"]) == ("POST", body)
    headers = asked["headers"]
    assert isinstance(headers, dict)
    assert headers["content-type"] == content_type


def test_bytes_of_the_command_line_that_are_no_text_are_sent_as_they_are(shell: Shell) -> None:
    asked = told(shell, "--data", "a\udcff", "--path", "/b\udcff")
    assert asked["body"] == "a\xff"
    assert asked["path"] == "/b\ufffd"


def test_headers_and_a_method_may_be_given(shell: Shell) -> None:
    asked = told(shell, "-X", "PATCH", "-H", "X-One: 1", "-H", "content-type: a/b", "-d", "{}")
    headers = asked["headers"]
    assert isinstance(headers, dict)
    assert asked["method"] == "PATCH"
    assert (headers["x-one"], headers["content-type"]) == ("1", "a/b")


def test_an_event_is_sent_in_binary_mode(shell: Shell) -> None:
    asked = told(
        shell, "--event", "com.example.order", "--data", '{"n": 1}', "--subject", "ünd 100%", "--id", "7",
        "--source", "/shop", "--extension", "region=eu",
    )  # fmt: skip
    headers = asked["headers"]
    assert isinstance(headers, dict)
    assert {name: value for name, value in headers.items() if name.startswith("ce-")} == {
        "ce-specversion": "1.0",
        "ce-type": "com.example.order",
        "ce-source": "/shop",
        "ce-id": "7",
        "ce-subject": "%C3%BCnd%20100%25",
        "ce-region": "eu",
    }
    assert (asked["method"], asked["body"]) == ("POST", '{"n": 1}')


def test_the_answer_is_printed_byte_for_byte(shell: Shell) -> None:
    done = subprocess.run(
        [*UPWELL, "invoke", "echo", "--path", "/bytes"], env=shell.environment, capture_output=True, check=True
    )
    assert done.stdout == bytes(range(256))


def test_an_answer_from_400_is_a_failure_with_its_body(shell: Shell) -> None:
    done = shell.run("invoke", "echo", "--path", "/teapot")
    assert (done.code, done.out, done.err) == (1, "short and stout", "418 I'm a Teapot\n")


def test_both_heads_are_shown_when_asked_for(shell: Shell) -> None:
    done = shell.run("invoke", "echo", "-v")
    assert done.code == 0
    assert done.err.startswith("> GET / HTTP/1.1\n> Host: echo.default.localhost:")
    assert "< HTTP/1.1 200 OK\n" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-H", "no colon"], "is no NAME: VALUE"),
        (["-H", "a: b\nc: d"], "is no NAME: VALUE"),
        (["-X", "GET /"], "is no method"),
        (["--subject", "x"], "Give --event."),
        (["--event", ""], "cannot be the type of an event"),
        (["--event", "x\udcff"], "cannot be the type of an event"),
        (["--timeout", "0"], "--timeout: nothing can come in no time"),
        (["--event", "x", "--extension", "A-b=1"], "cannot name an attribute"),
        (["--data", "@nowhere"], "--data @nowhere: cannot be read"),
    ],
)
def test_what_cannot_be_sent_is_refused(shell: Shell, arguments: list[str], said: str) -> None:
    done = shell.run("invoke", "echo", *arguments)
    assert done.code == 2
    assert said in done.err


# Deploying and beginning


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "no such file"),
        (["f.py", "--name", "Not_A_Name"], "cannot name a service"),
        (["f.py", "--env", "x"], "NAME=VALUE"),
        (["f.py", "--env", "K_SERVICE=x"], "K_SERVICE"),
    ],
)
def test_what_cannot_be_deployed_is_refused(shell: Shell, arguments: list[str], said: str) -> None:
    shell.write("f.py", "def main(): ...\n")
    done = shell.run("deploy", *arguments)
    assert done.code == 2
    assert said in done.err


def test_a_new_function_is_written_and_deploys(shell: Shell) -> None:
    written = shell.fine("new", "begun")
    assert "begun/main.py" in written
    shell.fine("deploy", "begun", "--wait")
    assert shell.run("invoke", "begun").code == 0
    assert shell.run("new", "begun").code == 2, "what is there is left as it is"
    shell.fine("delete", "ksvc", "begun")

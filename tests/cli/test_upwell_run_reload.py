"""`upwell run --reload`, and `run` on a manifest, as a person uses them: files are saved, answers change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.running import PATIENCE, Running, running

SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  template:
    spec:
      containers:
      - image: registry.example.com/{name}:1.0
        env:
        - name: WHOM
          value: {whom}
"""
GREETING = "import os\n\nasync def main():\n    return 'Hello ' + os.environ['WHOM']\n"


def answers(
    run: Running, wanted: Callable[[tuple[int, str]], bool], host: str = "hello.default.localhost"
) -> None:
    """Until an answer is the wanted one."""
    deadline = time.monotonic() + PATIENCE
    while not wanted(answer := run.get(host=host)):
        assert time.monotonic() < deadline, f"{answer} in:\n{run.output}"
        time.sleep(0.01)


def says(text: str) -> str:
    return f"async def main():\n    return {text!r}\n"


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "main.py").write_text("from words import WORD\n\nasync def main():\n    return WORD\n")
    (folder / "words.py").write_text("WORD = 'one'\n")
    return folder


def test_a_saved_file_serves_as_a_new_revision(tmp_path: Path, hello: Path) -> None:
    with running(tmp_path, str(hello), "--reload") as run:
        assert run.get() == (200, "one")
        (hello / "words.py").write_text("WORD = 'two'\n")
        run.wait_for(r"↻ (words.py|the source) changed\n● default/hello-00002 serves, \d+ ms later")
        assert run.get() == (200, "two")


def test_what_cannot_be_imported_is_shown_and_what_served_before_goes_on(tmp_path: Path, hello: Path) -> None:
    with running(tmp_path, str(hello), "--reload") as run:
        assert run.get() == (200, "one")
        (hello / "words.py").write_text("def word():\n    raise LookupError('no word')\n\nWORD = word()\n")
        run.wait_for(r"what served before goes on serving")
        assert "LookupError: no word" in run.output
        assert f'File "{hello}/words.py", line 4, in <module>' in run.output
        assert "upwell/runtime" not in run.output
        assert run.get() == (200, "one")
        (hello / "words.py").write_text("WORD = 'mended'\n")
        answers(run, lambda answer: answer == (200, "mended"))


def test_what_cannot_be_imported_at_first_is_waited_for(tmp_path: Path, hello: Path) -> None:
    (hello / "words.py").write_text("WORD = undefined\n")
    with running(tmp_path, str(hello), "--reload") as run:
        run.wait_for(r"NameError: name 'undefined' is not defined")
        run.wait_for(r"waiting for it to be mended")
        (hello / "words.py").write_text("WORD = 'mended'\n")
        answers(run, lambda answer: answer == (200, "mended"))


def test_the_services_of_a_manifest_are_served_and_saved_anew(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(GREETING)
    (tmp_path / "other.py").write_text(says("other"))
    manifest = tmp_path / "services.yaml"
    both = SERVICE.format(name="greeting", whom="you") + "---" + SERVICE.format(name="other", whom="all")
    manifest.write_text(both)
    images = [
        f"--image=registry.example.com/greeting={tmp_path / 'greeting.py'}",
        f"--image=registry.example.com/other:1.0={tmp_path / 'other.py'}",
    ]
    with running(tmp_path, str(manifest), "--reload", *images) as run:
        port = int(run.wait_for(r"● http://greeting.default.localhost:(\d+)\n").group(1))
        run.port = lambda: port  # type: ignore[method-assign]  # several Services have no common address
        answers(run, lambda answer: answer == (200, "Hello you"), host="greeting.default.example.com")
        answers(run, lambda answer: answer == (200, "other"), host="other.default.localhost")
        manifest.write_text(both.replace("you", "everybody"))
        answers(run, lambda answer: answer == (200, "Hello everybody"), host="greeting.default.localhost")
        manifest.write_text(both.replace("containers:", "container:"))
        run.wait_for(rf"{manifest}:\d+: spec.template.spec")
        assert run.get(host="greeting.default.localhost") == (200, "Hello everybody")
        (tmp_path / "greeting.py").write_text(says("rewritten"))
        manifest.write_text(both)
        answers(run, lambda answer: answer == (200, "rewritten"), host="greeting.default.localhost")


def test_a_manifest_that_is_wrong_ends_it_with_the_line(tmp_path: Path) -> None:
    manifest = tmp_path / "service.yaml"
    manifest.write_text(SERVICE.format(name="greeting", whom="you").replace("name: WHOM", "nam: WHOM"))
    with running(tmp_path, str(manifest)) as run:
        assert run.process.wait(PATIENCE) == 2
        assert f"{manifest}:12: spec.template.spec.containers[0].env[0]" in run.output

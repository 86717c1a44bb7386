"""What `upwell new` writes works at once: its test passes, and it is served."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.functions import answer, pristine_imports
from upwell.functions.errors import InvalidInput
from upwell.functions.project import bundle, load, locate
from upwell.functions.scaffold.writing import TEMPLATES, write


@pytest.fixture(params=TEMPLATES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A template's name, and the directory that was written from it."""
    write("my-hello", request.param, tmp_path / "my-hello")
    return request.param, tmp_path / "my-hello"


def test_files_are_all_that_a_project_needs(written: tuple[str, Path]) -> None:
    _, directory = written
    assert sorted(os.listdir(directory)) == [
        ".gitignore",
        "README.md",
        "main.py",
        "requirements.txt",
        "test_main.py",
    ]
    page = (directory / "README.md").read_text()
    assert page.startswith("# my-hello\n")
    assert "$" not in page
    commands = [line for line in page.splitlines() if line.startswith("    ") and not line.startswith("     ")]
    assert [line.split()[0] for line in commands] == ["upwell", "curl", "python", "python"]


def test_its_test_passes_as_it_is(written: tuple[str, Path]) -> None:
    _, directory = written
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    plain = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=directory, env=plain, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


EVENT = {"ce-id": "7", "ce-source": "/test", "ce-type": "com.example.arrived", "ce-specversion": "1.0"}
REQUESTS: dict[str, dict[str, Any]] = {
    "http": {"path": "/?name=Ada"},
    "event": {
        "method": "POST",
        "content": b'{"name": "Ada"}',
        "headers": {**EVENT, "content-type": "application/json"},
    },
    "typed": {"method": "POST", "content": b'{"item": "tea", "price": 2.5, "count": 4}'},
    "stream": {"path": "/?count=2"},
    "asgi": {"path": "/greetings/Ada"},
}
ANSWERS: dict[str, object] = {
    "http": {"greeting": "Hello, Ada!"},
    "event": {"greeting": "Hello, Ada!", "because": "7"},
    "typed": {"item": "tea", "total": 10.0},
    "asgi": {"greeting": "Hello, Ada!"},
}


def asked_by_the_page(directory: Path) -> dict[str, Any]:
    """The request of the page's `curl`, as curl makes it: `-d` posts a form unless a header says otherwise."""
    page = (directory / "README.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in page.splitlines() if line.startswith("    curl "))
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("url")
    asked = parser.parse_args(shlex.split(line)[1:])
    url = httpx.URL(asked.url)
    assert (url.host, url.port) == ("my-hello.default.localhost", 8080)
    form = {"content-type": "application/x-www-form-urlencoded"} if asked.d else {}
    headers = form | {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in asked.H)}
    return {
        "path": url.raw_path.decode(),
        "method": "POST" if asked.d else "GET",
        "headers": headers,
        "content": (asked.d or "").encode(),
    }


def test_its_page_asks_what_it_answers(written: tuple[str, Path]) -> None:
    template, directory = written
    project = locate(str(directory))
    with pristine_imports():
        root = bundle(project, directory.parent / "bundles").root
        response = answer(load(root, "main", None, directory), **asked_by_the_page(directory))
    assert response.status_code == 200, response.text
    if template in ANSWERS:
        expected: Any = ANSWERS[template]
        assert response.json() == (expected | {"because": "1"} if template == "event" else expected)


def test_it_is_served(written: tuple[str, Path]) -> None:
    template, directory = written
    project = locate(str(directory))
    assert (project.name, project.module) == ("my-hello", "main")
    with pristine_imports():
        root = bundle(project, directory.parent / "bundles").root
        response: httpx.Response = answer(load(root, "main", None, directory), **REQUESTS[template])
    assert response.status_code == 200
    if template in ANSWERS:
        assert response.json() == ANSWERS[template]
    else:
        assert response.text == "1 of 2\n2 of 2\n"


def test_empty_directory_is_filled(tmp_path: Path) -> None:
    files = write("hello", "http", tmp_path)
    assert sorted(files) == sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "template", "reason"),
    [
        ("hello", "grpc", "no template 'grpc'"),
        ("Hello", "http", "'Hello' cannot be"),
        ("1st", "http", "'1st' cannot be"),
        ("../up", "http", "cannot be"),
        ("x" * 64, "http", "cannot be"),
        ("", "http", "'' cannot be"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    name: str, template: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        write(name, template, tmp_path / "new")
    assert refused.value.hint
    assert not (tmp_path / "new").exists()


def test_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=1\n")
    with pytest.raises(InvalidInput, match="not empty"):
        write("hello", "http", tmp_path)
    assert os.listdir(tmp_path) == [".env"]


def test_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        write("hello", "http", tmp_path / "hello")

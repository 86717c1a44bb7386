"""A path names a function's source; a bundle keeps a copy of it that only its content names."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.functions import bundling
from upwell.functions.errors import InvalidFunction
from upwell.functions.project import Bundle, Project, bundle, locate


def write(root: Path, *names: str, content: str = "") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("files", "module"),
    [
        (["main.py", "function.py", "other.py"], "main"),
        (["function.py", "func.py", "app.py"], "function"),
        (["func.py", "app.py"], "func"),
        (["app.py", "handler.py"], "app"),
        (["handler.py", "my_hello.py"], "handler"),
        (["asgi.py", "wsgi.py", "my_hello.py"], "asgi"),
        (["wsgi.py", "other.py"], "wsgi"),
        (["my_hello.py", "__init__.py", "other.py"], "my_hello"),
        (["__init__.py", "other.py"], "my_hello"),
        (["functions.py"], "functions"),
    ],
)
def test_entry_of_a_directory_is_the_first_of_the_usual_names(
    files: list[str], module: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "my_hello", *files)
    assert locate(str(root)) == Project("my-hello", root, module)


def test_file_is_its_own_entry(tmp_path: Path) -> None:
    write(tmp_path, "Say_Hello.py")
    assert locate(f"{tmp_path}/Say_Hello.py") == Project("say-hello", tmp_path, "Say_Hello", alone=True)


def test_callable_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, "hello.py")
    assert locate(f"{tmp_path}/hello.py:api.app").attribute == "api.app"


def test_path_that_holds_a_colon_is_a_path(tmp_path: Path) -> None:
    root = write(tmp_path / "a:b", "hello.py")
    assert locate(f"{root}/hello.py").attribute is None


def test_relative_path_finds_the_directory_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "hello", "main.py"))
    assert locate(".").name == "hello"
    assert locate("main.py").name == "main"


def test_package_is_named_by_its_directory(tmp_path: Path) -> None:
    root = write(tmp_path / "greeter", "__init__.py")
    assert locate(f"{root}/__init__.py:greet") == Project("greeter", root, "greeter", "greet")


@pytest.mark.parametrize(
    ("files", "spec", "reason"),
    [
        ([], "absent", "no such file"),
        (["notes.txt"], "notes.txt", "not a Python file"),
        (["empty/notes.txt"], "empty", "no .py file"),
        (["many/one.py", "many/two.py"], "many", "one, two"),
        (["1st.py"], "1st.py", "'1st'"),
        (["a.b.py"], "a.b.py", "'a.b'"),
        (["hello.py"], "hello.py:not-a-name", "'not-a-name'"),
        (["hello.py"], "hello.py:", "''"),
        (["my.pkg/__init__.py"], "my.pkg", "my.pkg"),
    ],
)
def test_what_is_no_function_is_refused_with_a_hint(
    files: list[str], spec: str, reason: str, tmp_path: Path
) -> None:
    write(tmp_path, *files)
    with pytest.raises(InvalidFunction, match=reason) as refused:
        locate(f"{tmp_path}/{spec}")
    assert refused.value.hint
    assert str(tmp_path) in refused.value.where


def test_bundle_holds_the_source_and_no_caches(tmp_path: Path) -> None:
    root = write(tmp_path / "hello", "main.py", "pkg/data.json", "pkg/deep/x.py", content="x = 1\n")
    write(root, "__pycache__/main.pyc", ".git/HEAD", ".venv/lib/x.py", "node_modules/x.js", "pkg/old.pyc")
    kept = bundle(locate(str(root)), tmp_path / "bundles")
    assert sorted(tree(kept.root)) == ["main.py", "pkg/data.json", "pkg/deep/x.py"]
    assert (kept.files, kept.size) == (3, 18)
    assert kept.root == tmp_path / "bundles" / kept.digest
    assert len(kept.digest) == 64


def test_same_source_gives_the_same_bundle_wherever_it_lies(tmp_path: Path) -> None:
    kept = [
        bundle(locate(str(write(tmp_path / place / "hello", "main.py", "a/b.py"))), tmp_path / "bundles")
        for place in ("one", "two", "one")
    ]
    assert kept[0] == kept[1] == kept[2]
    assert os.listdir(tmp_path / "bundles") == [kept[0].digest]


def test_edit_changes_the_next_bundle_and_leaves_the_last(tmp_path: Path) -> None:
    root = write(tmp_path / "hello", "main.py", content="old")
    old = bundle(locate(str(root)), tmp_path / "bundles")
    write(root, "main.py", content="new")
    new = bundle(locate(str(root)), tmp_path / "bundles")
    assert tree(old.root) == {"main.py": b"old"}
    assert tree(new.root) == {"main.py": b"new"}


names = st.text("ab", min_size=1, max_size=2)
trees = st.dictionaries(names, st.binary(max_size=3) | st.dictionaries(names, st.binary(max_size=3), min_size=1))


def bundled(files: dict[str, bytes | dict[str, bytes]], place: Path) -> Bundle:
    root = place / "hello"
    root.mkdir(parents=True)
    for name, content in files.items():
        inner = {"": content} if isinstance(content, bytes) else content
        for below, data in inner.items():
            path = root / name / below
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    return bundle(Project("hello", root, "main"), place / "bundles")


@settings(max_examples=60)
@given(trees, trees)
def test_digests_are_equal_exactly_when_the_sources_are(
    one: dict[str, bytes | dict[str, bytes]], other: dict[str, bytes | dict[str, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        first, second = bundled(one, Path(place, "1")), bundled(other, Path(place, "2"))
        assert (first.digest == second.digest) == (one == other)
        assert tree(first.root) == tree(Path(place, "1", "hello"))


def test_lone_file_takes_along_the_neighbours_that_it_imports(tmp_path: Path) -> None:
    write(tmp_path, "unrelated.py", "secrets.env", "package/data.json", "package/__init__.py")
    (tmp_path / "hello.py").write_text("import json\nfrom helper import x\nimport package.sub\n")
    (tmp_path / "helper.py").write_text("def later():\n    import second\n")
    (tmp_path / "second.py").write_text("import hello\nfrom . import nothing\n")
    kept = bundle(locate(f"{tmp_path}/hello.py"), tmp_path / "bundles")
    expected = ["hello.py", "helper.py", "package/__init__.py", "package/data.json", "second.py"]
    assert sorted(tree(kept.root)) == expected


def test_lone_file_takes_along_the_neighbours_that_it_imports_relatively(tmp_path: Path) -> None:
    write(tmp_path, "unrelated.py", "third.py", "package/sub.py", "package/third.py")
    (tmp_path / "hello.py").write_text("from .first import x\nfrom . import second, absent\n")
    write(tmp_path, "first.py", "package/__init__.py", content="from .third import y\n")
    (tmp_path / "second.py").write_text("import package\n")
    (tmp_path / "third.py").unlink()
    kept = bundle(locate(f"{tmp_path}/hello.py"), tmp_path / "bundles")
    package = ["package/__init__.py", "package/sub.py", "package/third.py"]
    assert sorted(tree(kept.root)) == ["first.py", "hello.py", *package, "second.py"]


def test_lone_file_that_is_no_python_is_kept_for_loading_to_tell(tmp_path: Path) -> None:
    write(tmp_path, "hello.py", content="def (:\n")
    assert bundle(locate(f"{tmp_path}/hello.py"), tmp_path / "bundles").files == 1


def test_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "hello", "main.py")
    secret = write(tmp_path, "secret") / "secret"
    (root / "link").symlink_to(secret)
    with pytest.raises(InvalidFunction, match="out of the project") as refused:
        bundle(locate(str(root)), tmp_path / "bundles")
    assert refused.value.where == str(root / "link")


def test_neighbour_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    secret = write(tmp_path, "secret.py") / "secret.py"
    root = write(tmp_path / "hello", "hello.py", content="import helper")
    (root / "helper.py").symlink_to(secret)
    with pytest.raises(InvalidFunction, match="out of the project"):
        bundle(locate(f"{root}/hello.py"), tmp_path / "bundles")


@pytest.mark.parametrize("links", [{"again": "."}, {"a/up": ".."}, {"a/to": "../b", "b/to": "../a"}])
def test_links_that_go_round_in_a_circle_are_refused(links: dict[str, str], tmp_path: Path) -> None:
    root = write(tmp_path / "hello", "main.py", "a/x", "b/x")
    for link, target in links.items():
        (root / link).symlink_to(target)
    with pytest.raises(InvalidFunction, match="a directory that it is in"):
        bundle(locate(str(root)), tmp_path / "bundles")


def test_pipe_in_the_source_is_left_out(tmp_path: Path) -> None:
    root = write(tmp_path / "hello", "main.py")
    os.mkfifo(root / "pipe")
    assert bundle(locate(str(root)), tmp_path / "bundles").files == 1


def test_link_within_is_kept_as_what_it_leads_to(tmp_path: Path) -> None:
    root = write(tmp_path / "hello", "main.py", "data/x", content="x")
    (root / "link").symlink_to("data/x")
    (root / "folder").symlink_to("data")
    assert sorted(tree(bundle(locate(str(root)), tmp_path / "bundles").root)) == [
        "data/x",
        "folder/x",
        "link",
        "main.py",
    ]


@pytest.mark.parametrize("limit", ["SIZE_LIMIT", "FILE_LIMIT"])
def test_project_too_large_is_refused_and_the_largest_named(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, limit, 2)
    root = write(tmp_path / "hello", "main.py", "a.py", "data/x", content="x")
    write(root, "data/y", content="yy")
    with pytest.raises(InvalidFunction, match="too large") as refused:
        bundle(locate(str(root)), tmp_path / "bundles")
    assert "data" in refused.value.hint
    assert not (tmp_path / "bundles").exists()


def test_failed_copy_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "hello", "main.py", "z.py", content="long")
    monkeypatch.setattr(bundling, "_check_size", lambda root, paths: None)
    monkeypatch.setattr(bundling, "SIZE_LIMIT", 3)
    with pytest.raises(InvalidFunction, match="larger than"):
        bundle(locate(str(root)), tmp_path / "bundles")
    assert os.listdir(tmp_path / "bundles") == []


def test_executable_file_stays_one(tmp_path: Path) -> None:
    root = write(tmp_path / "hello", "main.py", "tool.sh")
    (root / "tool.sh").chmod(0o700)
    kept = bundle(locate(str(root)), tmp_path / "bundles")
    assert os.access(kept.root / "tool.sh", os.X_OK)
    assert not (kept.root / "main.py").stat().st_mode & 0o111

"""`func.yaml` beside a function gives its name, its environment and how it is invoked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from upwell.functions.errors import InvalidFunction
from upwell.functions.funcpython import read_invoke
from upwell.functions.funcyaml import read_function_file
from upwell.functions.project import bundle, locate

WRITTEN = """\
# $schema: https://raw.githubusercontent.com/knative/func/main/schema/func_yaml-schema.json
specVersion: 0.36.0
name: greeter
runtime: python
created: 2026-01-02T03:04:05Z
invoke: cloudevent
build:
  buildEnvs:
  - name: BUILD_ONLY
    value: "1"
run:
  envs:
  - name: PLAIN
    value: some value
  - name: LOCAL
    value: '<{{ env:USER_NAME }}>'
  - name: EMPTY
  - name: PASSWORD
    value: '{{ secret:database:password }}'
  - name: COLOUR
    value: '{{configMap:colours:main}}'
  - value: '{{ secret:all }}'
deploy:
  namespace: default
"""


def described(root: Path, text: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "func.yaml").write_text(text)
    (root / "func.py").write_text("")
    return root


def test_what_func_writes_is_read(tmp_path: Path) -> None:
    found = read_function_file(described(tmp_path, WRITTEN), {"USER_NAME": "Ada"})
    assert found is not None
    assert found.name == "greeter"
    assert found.environment == (("PLAIN", "some value"), ("LOCAL", "<Ada>"), ("EMPTY", ""))
    assert found.unset == (
        ("PASSWORD", "{{ secret:database:password }}"),
        ("COLOUR", "{{configMap:colours:main}}"),
    )


def test_variable_that_is_not_set_here_is_told_and_leaves_the_others(tmp_path: Path) -> None:
    found = read_function_file(described(tmp_path, WRITTEN), {})
    assert found is not None
    assert ("LOCAL", "<{{ env:USER_NAME }}>") in found.unset
    assert found.environment == (("PLAIN", "some value"), ("EMPTY", ""))


def test_project_has_its_name_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_NAME", "Ada")
    root = described(tmp_path / "directory", WRITTEN)
    found = locate(f"{root}:new")
    assert (found.name, found.root, found.module, found.attribute) == ("greeter", root, "func", "new")
    assert found.environment == (("PLAIN", "some value"), ("LOCAL", "<Ada>"), ("EMPTY", ""))
    assert [name for name, _ in found.unset] == ["PASSWORD", "COLOUR"]


def test_files_own_path_names_the_same_function(tmp_path: Path) -> None:
    root = described(tmp_path / "directory", "name: greeter\ninvoke: cloudevent\nenvs: [{name: A, value: '1'}]\n")
    whole, alone = locate(str(root)), locate(str(root / "func.py"))
    assert alone == dataclasses.replace(whole, alone=True)
    assert read_invoke(bundle(alone, tmp_path / "bundles").root) == "cloudevent"


def test_another_file_beside_it_keeps_its_own_name(tmp_path: Path) -> None:
    root = described(tmp_path / "directory", "name: greeter\nenvs: [{name: A, value: '1'}]\n")
    (root / "other.py").write_text("")
    found = locate(str(root / "other.py"))
    assert (found.name, found.environment) == ("other", (("A", "1"),))


def test_project_without_the_file_has_neither(tmp_path: Path) -> None:
    assert read_function_file(tmp_path) is None
    assert read_invoke(tmp_path) is None


def test_older_file_has_its_variables_at_the_top(tmp_path: Path) -> None:
    text = "name: old\nruntime: python\nenvs:\n- name: A\n  value: '1'\n"
    found = read_function_file(described(tmp_path, text))
    assert found is not None
    assert found.environment == (("A", "1"),)


def test_name_is_the_directorys_where_the_file_has_none(tmp_path: Path) -> None:
    assert locate(str(described(tmp_path / "hello", "runtime: python\n"))).name == "hello"


@pytest.mark.parametrize(
    ("text", "invoke"),
    [
        (WRITTEN, "cloudevent"),
        ("invoke: 'cloudevent' # events\n", "cloudevent"),
        ("invoke: http\n", "http"),
        ("runtime: python\n", "http"),
        ("run:\n  invoke: cloudevent\n", "http"),
        ("# invoke: cloudevent\n", "http"),
    ],
)
def test_way_of_invoking_is_read_from_the_text(text: str, invoke: str, tmp_path: Path) -> None:
    assert read_invoke(described(tmp_path, text)) == invoke


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("runtime: go\n", "a function for go, not for Python"),
        ("- a\n", "not a mapping"),
        ("", "not a mapping"),
        ("a: [\n", "not valid YAML"),
        ("run:\n  envs: text\n", "envs is not a list"),
        ("run:\n  envs: [text]\n", "envs is not a list"),
    ],
)
def test_file_that_does_not_fit_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFunction, match=reason) as refused:
        locate(str(described(tmp_path / "hello", text)))
    assert "func.yaml" in str(refused.value)

"""Manifests are read with the line of every field; a hostile or wrong one costs an error and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions import documents
from upwell.functions.api.serving import Service
from upwell.functions.errors import InvalidManifest
from upwell.functions.manifest import Manifest, load_manifests

HELLO = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: helloworld-go
spec:
  template:
    spec:
      containers:
      - image: registry.{REGION-ID}.aliyuncs.com/knative-sample/helloworld-go:73fbdd56
        env:
        - name: TARGET
          value: "Knative"
"""
HEAD = "apiVersion: v1\nkind: Thing\nmetadata: {name: x}\n"


def load(text: str) -> list[Manifest]:
    return load_manifests(text, "app.yaml")


def refusal(text: str) -> InvalidManifest:
    with pytest.raises(InvalidManifest) as refused:
        load(text)
    return refused.value


def value(text: str) -> Any:
    (manifest,) = load(f"{HEAD}value: {text}")
    return manifest.data["value"]


def test_service_of_the_article_loads_as_printed() -> None:
    (manifest,) = load(HELLO)
    assert (manifest.api_version, manifest.kind) == ("serving.knative.dev/v1", "Service")
    assert (manifest.namespace, manifest.name) == ("default", "helloworld-go")
    container = manifest.parse(Service).spec.template.spec.containers[0]
    assert container.image == "registry.{REGION-ID}.aliyuncs.com/knative-sample/helloworld-go:73fbdd56"
    assert container.env is not None
    assert (container.env[0].name, container.env[0].value) == ("TARGET", "Knative")


def test_fault_is_told_with_file_line_and_field() -> None:
    (manifest,) = load(HELLO.replace('value: "Knative"', "value: 5"))
    with pytest.raises(InvalidManifest) as refused:
        manifest.parse(Service)
    assert refused.value.where == "app.yaml:12: spec.template.spec.containers[0].env[0].value"
    assert refused.value.exit_code == 2


def test_missing_field_is_told_on_the_line_of_what_lacks_it() -> None:
    (manifest,) = load(HELLO.replace("- image:", "- imagee:"))
    with pytest.raises(InvalidManifest) as refused:
        manifest.parse(Service)
    assert refused.value.where == "app.yaml:9: spec.template.spec.containers[0].image"
    assert refused.value.what == "required, but missing"
    assert refused.value.hint == "app.yaml:9: spec.template.spec.containers[0].imagee: unknown field"


def test_faults_come_in_the_order_of_their_lines() -> None:
    (manifest,) = load(HELLO.replace("TARGET", "PORT").replace("  name: hello", "  names: 1\n  name: Hello"))
    with pytest.raises(InvalidManifest) as refused:
        manifest.parse(Service)
    assert refused.value.where == "app.yaml:4: metadata.names"
    lines = [line.split(":")[1] for line in refused.value.hint.splitlines()]
    assert lines == ["5", "12"]


def test_many_documents_load_in_order_and_empty_ones_are_left_out() -> None:
    text = f"---\n# nothing\n---\n{HEAD}---\n---\n{HEAD.replace('x', 'y')}"
    manifests = load(text)
    assert [manifest.name for manifest in manifests] == ["x", "y"]
    assert [manifest.line(("kind",)) for manifest in manifests] == [5, 10]


@pytest.mark.parametrize("text", ["", "\n\n", "---\n---\n", "# only a comment\n", "null\n"])
def test_empty_file_holds_nothing(text: str) -> None:
    assert load(text) == []


def test_json_escapes_of_any_character_are_that_character() -> None:
    data = {"a": "\U0001f600\U0001f601", "b": "\\ud83d\\ude00", "c": "\\\U0001f600"}
    written = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}, "data": data}
    (manifest,) = load(json.dumps(written))
    assert manifest.data == written


def test_json_is_yaml_too() -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "namespace": "n"}}, indent=2)
    (manifest,) = load(text)
    assert (manifest.name, manifest.namespace) == ("x", "n")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("- a\n- b\n", 1, "mapping"),
        ("just text\n", 1, "mapping"),
        ("kind: Thing\nmetadata: {name: x}\n", 1, "required"),
        ("apiVersion: v1\nmetadata: {name: x}\n", 1, "required"),
        ("apiVersion: v1\nkind: Thing\n", 1, "required"),
        ("apiVersion: v1\nkind: Thing\nmetadata: {}\n", 3, "required"),
        ("apiVersion: v1\nkind: Thing\nmetadata:\n  name: ''\n", 4, "required"),
        ("apiVersion: v1\nkind: Thing\nmetadata: x\n", 3, "must be a mapping"),
        ("apiVersion: v1\nkind: 3\nmetadata: {name: x}\n", 2, "must be a string"),
        ("a: [1\nb: 2\n", 2, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML"),
        ("a:\n\t- b\n", 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        (f"{HEAD}kind: Other\n", 4, "twice"),
        (f"{HEAD}spec:\n  a: 1\n  b: 2\n  a: 3\n", 7, "twice"),
        (f"{HEAD}on: 1\n", 4, "quotes"),
        (f"{HEAD}1: 1\n", 4, "quotes"),
        (f"{HEAD}? [a]\n: 1\n", 4, "string"),
        (f"{HEAD}a: !!python/object/apply:os.system [ls]\n", 4, "tag"),
        (f"{HEAD}a: !!python/name:os.system\n", 4, "tag"),
        (f"{HEAD}a: !!binary aGk=\n", 4, "tag"),
        (f"{HEAD}a: !!set {{x}}\n", 4, "tag"),
        (f"{HEAD}a: !own x\n", 4, "tag"),
        (f"{HEAD}a: .nan\n", 4, "JSON"),
        (f"{HEAD}a: -.inf\n", 4, "JSON"),
        (f"{HEAD}a: !!int x\n", 4, "number"),
        (f"{HEAD}a: {'9' * 5000}\n", 4, "number"),
        (f"{HEAD}a: *nowhere\n", 4, "anchor"),
        (f"{HEAD}a: &a [*a]\n", 4, "anchor"),
        (f"{HEAD}a: &a {{b: *a}}\n", 4, "anchor"),
        (f"{HEAD}<<: 1\n", 4, "<<"),
    ],
)
def test_wrong_text_is_told_with_its_line(text: str, line: int, what: str) -> None:
    error = refusal(text)
    assert what in error.what
    assert error.where.startswith(f"app.yaml:{line}")


@pytest.mark.parametrize("text", ["a: \x00", "a: \x07", "a: \ud800", "\ufffe"])
def test_what_is_no_text_is_refused(text: str) -> None:
    assert "not valid YAML" in refusal(text).what


def test_aliases_that_unfold_to_billions_are_refused_before_they_do() -> None:
    laughs = [f"{HEAD}a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)]
    error = refusal("".join(laughs))
    assert "aliases unfolded" in error.what
    assert error.where == "app.yaml:9"


def test_merges_that_unfold_to_billions_are_refused_too() -> None:
    laughs = [f"{HEAD}a0: &a0 {{x: 1, y: 2}}\n"]
    laughs += [f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}, <<: *a{n - 1}}}\n" for n in range(1, 40)]
    assert "aliases unfolded" in refusal("".join(laughs)).what


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000 + "x"])
def test_bottomless_nesting_is_refused(text: str) -> None:
    assert "deeper" in refusal(f"{HEAD}a:\n  {text}").what


def test_nesting_that_people_write_is_taken() -> None:
    assert load(f"{HEAD}a: {'[' * 90}{']' * 90}\n")


def test_document_of_too_many_values_is_refused() -> None:
    assert "more than" in refusal(f"{HEAD}a: [{'1,' * documents.NODES_LIMIT}]\n").what


def test_text_that_is_too_large_is_refused_unread() -> None:
    assert "larger than" in refusal(" " * (documents.SIZE_LIMIT + 1)).what


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~", None),
        ("", None),
        ("yes", True),
        ("Off", False),
        ("'yes'", "yes"),
        ("12", 12),
        ("-1_000", -1000),
        ("+0", 0),
        ("0x1F", 31),
        ("-0b101", -5),
        ("0644", 420),
        ("1.50", 1.5),
        ("1e3", "1e3"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("!!int '5'", 5),
        ("=", "="),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
        ("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}),
        ("{<<: [{a: 1}, {a: 2, b: 2}]}", {"a": 1, "b": 2}),
        ("{'<<': 1}", {"<<": 1}),
    ],
)
def test_scalars_are_read_as_kubernetes_reads_them(text: str, expected: object) -> None:
    read = value(text)
    assert (read, type(read)) == (expected, type(expected))


def test_alias_is_a_copy_of_what_it_names() -> None:
    (manifest,) = load(f"{HEAD}a: &it {{x: [1]}}\nb: *it\n")
    manifest.data["a"]["x"].append(2)
    assert manifest.data["b"] == {"x": [1]}
    assert manifest.line(("b", "x", 0)) == 5


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_any_json_value_written_as_yaml_is_read_again(written: Any) -> None:
    manifest = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}, "value": written}
    (read,) = load(yaml.safe_dump(manifest, allow_unicode=False))
    assert same(read.data["value"], written)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(st.text(st.sampled_from("ab:-[]{}&*!'\"|>#%@`\n \t,?<0~\x07é"), max_size=60))
def test_hostile_text_costs_an_error_of_ours_or_nothing(text: str) -> None:
    refused: InvalidManifest | None = None
    try:
        load(text)
    except InvalidManifest as error:
        refused = error
    assert refused is None or refused.where.startswith("app.yaml")


def test_a_list_is_what_it_holds_with_the_lines_that_its_objects_have_in_the_file() -> None:
    text = """apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: v1
  kind: Namespace
  metadata:
    name: a
- &b
  apiVersion: v1
  kind: Namespace
  metadata: {name: b}
- *b
"""
    one, two, again = load_manifests(text, "f.yaml")
    assert [each.name for each in (one, two, again)] == ["a", "b", "b"]
    assert one.where(("metadata", "name")) == "f.yaml:8: metadata.name"
    assert two.where(("metadata", "name")) == "f.yaml:12: metadata.name"
    assert again.where(("metadata", "name")).startswith("f.yaml:")
    assert load_manifests("kind: List\napiVersion: v1\nitems: []", "f.yaml") == []
    with pytest.raises(InvalidManifest, match=r"f\.yaml:4: not an object"):
        load_manifests("kind: List\napiVersion: v1\nitems:\n- 1", "f.yaml")
    with pytest.raises(InvalidManifest, match="metadata"):
        load_manifests("kind: List\napiVersion: v1\nitems: {}", "f.yaml")


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "9" * 5000])
def test_a_number_beyond_all_bounds_is_refused_with_its_line(number: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        load_manifests(f"kind: A\nspec: {{number: {number}}}\n", "a.yaml")
    assert caught.value.where == "a.yaml:2"

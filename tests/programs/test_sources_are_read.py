"""What a Deployment's container says reaches the host: command, variables, probes, limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.cluster import revision
from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.reference import (
    SOURCE_ANNOTATION,
    CommandReference,
    SourceReference,
    read_reference,
)
from upwell.runtime.cluster.source import function_source
from upwell.runtime.control.resources import deployment
from upwell.runtime.host.source import FunctionSource, ProgramSource
from upwell.runtime.sidecar.expansion import expand, expand_in_order
from upwell.runtime.sidecar.probing import Exec, HttpGet, Lifecycle, Probe, Probes, Sleep, TcpConnect


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(NAME)", "Ada"),
        ("--to=$(NAME)-$(NAME)!", "--to=Ada-Ada!"),
        ("$(ABSENT)", "$(ABSENT)"),
        ("$$(NAME)", "$(NAME)"),
        ("$$$(NAME)", "$Ada"),
        ("$$$$", "$$"),
        ("$NAME ${NAME} $", "$NAME ${NAME} $"),
        ("$(NAME", "$(NAME"),
        ("$()", "$()"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"NAME": "Ada"}) == expanded


@given(st.text())
def test_text_without_a_dollar_stays_as_it_is(text: str) -> None:
    text = text.replace("$", "")
    assert expand(text, {"": "x"}) == text


def test_a_variable_may_refer_to_those_before_it_alone() -> None:
    pairs = [("A", "1"), ("B", "$(A)$(C)"), ("C", "3"), ("A", "$(A)2")]
    assert expand_in_order(pairs) == {"A": "12", "B": "1$(C)", "C": "3"}


@pytest.mark.parametrize(
    "reference",
    [
        SourceReference("d1", "main"),
        SourceReference("d1", "main", "greet", "/d", (("A", "1"), ("A", ""))),
        CommandReference(("run", "it")),
        CommandReference(("x",), "/d"),
    ],
)
def test_a_reference_survives_its_annotation(reference: SourceReference | CommandReference) -> None:
    assert read_reference({SOURCE_ANNOTATION: reference.annotation()}, "here") == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"command": []}',
        '{"command": "x"}',
        '{"command": [1]}',
        '{"command": ["x"], "y": 1}',
        '{"command": ["x\\u0000"]}',
        '{"command": ["x"], "directory": 1}',
        '{"bundle": "d1", "module": null}',
        '{"bundle": "d1", "module": "main", "attribute": 1}',
        '{"bundle": "d1", "module": "main", "environment": {"A": "1"}}',
        '{"bundle": "d1", "module": "main", "environment": [["A", 1]]}',
        '{"command": ["x"], "environment": []}',
    ],
)
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidFunction, match="malformed"):
        read_reference({SOURCE_ANNOTATION: text}, "here")


def test_an_image_that_stands_for_nothing_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidFunction, match="no source is known") as raised:
        read_reference({}, "here")
    assert "--image NAME=cmd:COMMAND" in raised.value.hint


def source(
    container: dict[str, Any],
    reference: CommandReference | None = None,
    logs: Path | None = None,
    **spec: Any,
) -> FunctionSource | ProgramSource:
    """What the host gets for a revision with this container."""
    declared = revision(containers=[{"image": "shop", **container}], **spec)
    if reference is not None:
        declared["metadata"]["annotations"] = {SOURCE_ANNOTATION: reference.annotation()}
    manifest = json.loads(json.dumps(deployment(declared, "hello")))
    return function_source(manifest, Path("/bundles"), show_errors=False, logs=logs)


@pytest.mark.parametrize(
    ("container", "command", "directory"),
    [
        ({}, ("serve", "-v"), "/mapped"),
        ({"args": ["--port", "$(PORT)"]}, ("serve", "-v", "--port", "$(PORT)"), "/mapped"),
        ({"command": ["other"], "args": ["x"]}, ("other", "x"), "/mapped"),
        ({"workingDir": "/elsewhere"}, ("serve", "-v"), "/elsewhere"),
        ({"workingDir": "below", "args": None, "command": None}, ("serve", "-v"), "/mapped/below"),
    ],
)
def test_the_container_s_command_arguments_and_directory_hold(
    container: dict[str, Any], command: tuple[str, ...], directory: str
) -> None:
    found = source(container, CommandReference(("serve", "-v"), "/mapped"))
    assert isinstance(found, ProgramSource)
    assert found.command == command
    assert found.directory == Path(directory)


def test_variables_limits_and_the_log_are_read_for_either_kind(tmp_path: Path) -> None:
    container = {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}, {"name": "C"}],
        "resources": {"limits": {"memory": "64Mi", "cpu": "1"}},
    }
    for reference in (None, CommandReference(("serve",))):
        found = source(container, reference, tmp_path, timeoutSeconds=7, containerConcurrency=3)
        environment = found.environment
        assert {name: environment[name] for name in ("A", "B", "C")} == {"A": "1", "B": "12", "C": ""}
        assert (environment["K_SERVICE"], environment["K_REVISION"]) == ("hello", "hello-00001")
        assert found.memory_bytes == 64 << 20
        assert (found.timeout_seconds, found.container_concurrency) == (7.0, 3)
        assert found.log == tmp_path / "default" / "hello" / "hello-00001.log"


def test_probes_and_lifecycle_are_read_with_the_container_s_own_port() -> None:
    container = {
        "ports": [{"containerPort": 9000}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 9000}, "periodSeconds": 2},
        "livenessProbe": {"tcpSocket": {"port": 9001}},
        "startupProbe": {"exec": {"command": ["true"]}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 2}}, "postStart": {"httpGet": {"path": "/"}}},
    }
    found = source(container, CommandReference(("serve",)), terminationGracePeriodSeconds=5)
    assert found.probes == Probes(
        Probe(HttpGet("/ready"), period=2), Probe(TcpConnect(9001)), Probe(Exec(("true",)))
    )
    assert found.lifecycle == Lifecycle(HttpGet("/"), Sleep(2.0))
    assert isinstance(found, ProgramSource)
    assert (found.termination_seconds, found.end_seconds) == (5.0, 305.0)


def test_of_several_containers_the_one_with_ports_is_run() -> None:
    declared = revision(
        containers=[{"image": "beside", "args": ["no"]}, {"image": "shop", "ports": [{}], "args": ["a"]}]
    )
    declared["metadata"]["annotations"] = {SOURCE_ANNOTATION: CommandReference(("serve",)).annotation()}
    declared["spec"]["containers"][1]["ports"] = [{"containerPort": 8080}]
    found = function_source(deployment(declared, "hello"), Path("/bundles"), show_errors=False)
    assert isinstance(found, ProgramSource)
    assert found.command == ("serve", "a")


def test_a_limit_that_is_no_amount_is_refused() -> None:
    with pytest.raises(InvalidFunction, match="no amount of memory"):
        source({"resources": {"limits": {"memory": "much"}}})

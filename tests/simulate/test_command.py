"""`upwell simulate` for a person and for a program."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from upwell.functions.errors import InvalidInput
from upwell.runtime.cli.simulate import simulate

SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/target: "{target}"
    spec:
      containerConcurrency: 7
      timeoutSeconds: 12
      containers:
        - image: registry.example.com/hello
---
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: config-autoscaler
  namespace: knative-serving
data:
  stable-window: 17s
  max-scale: "{most}"
---
"""


def done(*arguments: str) -> Result:
    result = CliRunner().invoke(simulate, arguments, catch_exceptions=False, prog_name="upwell simulate")
    assert result.exit_code == 0, result.output
    return result


def settings(*arguments: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(done("--trace", "poisson:5rps/20s", "-o", "json", *arguments).stdout)[
        "settings"
    ]
    return found


def test_a_person_gets_tables_and_a_program_json_of_the_same() -> None:
    arguments = ("--trace", "poisson:20rps/1m", "--seed", "5")
    shown, told = done(*arguments).stdout, json.loads(done(*arguments, "-o", "json").stdout)
    assert shown.splitlines()[0] == f"poisson:20rps/1m: {told['requests']:,} requests in 1m, 1 function"
    assert f"{told['latency']['p99']:,.0f}" in shown
    assert "COLD STARTS" in shown
    assert done(*arguments).stdout == shown


def test_a_sweep_is_a_table_with_its_front_and_a_recommendation() -> None:
    shown = done("--trace", "spike:5-100rps/2m", "--sweep", "target=2:8:3", "--sweep", "window=6s,30s").stdout
    lines = shown.splitlines()
    assert lines[3].split()[:4] == ["TARGET", "WINDOW", "P50", "MS"]
    assert [tuple(line.split()[:2]) for line in lines[4:10]] == [
        ("2", "6s"), ("2", "30s"), ("5", "6s"), ("5", "30s"), ("8", "6s"), ("8", "30s"),
    ]  # fmt: skip
    assert sum(line.endswith("recommended") for line in lines) == 1
    assert any(line.startswith("Take target=") for line in lines)


def test_the_page_is_the_same_for_the_same_seed_and_needs_nothing_else(tmp_path: Path) -> None:
    pages = []
    for number in range(2):
        path = tmp_path / f"{number}.html"
        done("--trace", "spike:5-60rps/1m", "--sweep", "target=2,8", "--html", str(path))
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]
    assert b"<svg" in pages[0]
    assert b"src=" not in pages[0]
    assert b"<script" not in pages[0]


def test_a_manifest_and_flags_decide_as_on_the_platform(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.format(name="hello", target=3) + CONFIG.format(most=40))
    found = settings("-f", str(path), "--set", "stable-window=9s")
    assert found["container-concurrency"] == "7"
    assert found["timeout"] == "12s"
    assert found["target"] == "2.1 of 3"
    assert found["window"] == "9s", "a flag stands above the ConfigMap"
    assert found["max-scale"] == "40"


def test_of_several_services_each_function_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "services.yaml").write_text(
        SERVICE.format(name="a", target=1) + SERVICE.format(name="b", target=7)
    )
    trace = tmp_path / "trace.csv"
    trace.write_text("".join(f"{second / 2},default/{name}-00001,900\n" for second in range(60) for name in "ab"))
    arguments = ("-f", str(tmp_path / "services.yaml"), "--trace", str(trace), "-o", "json")
    by_name = {each["name"]: each for each in json.loads(done(*arguments).stdout)["functions"]}
    assert by_name["default/a-00001"]["greatest_replicas"] > by_name["default/b-00001"]["greatest_replicas"]
    trace.write_text("1,c\n")
    with pytest.raises(InvalidInput, match="no Service is called like 'c'"):
        done(*arguments)


def test_warnings_name_their_manifest_and_what_is_not_simulated_is_told(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    hpa = SERVICE.format(name="hello", target=50).replace(
        "annotations:", "annotations:\n        autoscaling.knative.dev/class: hpa.autoscaling.knative.dev"
    )
    file.write_text(hpa + CONFIG.format(most=9).replace("max-scale:", "most-scale:"))
    result = done("--trace", "poisson:5rps/20s", "-f", str(file))
    assert "all.yaml:19: ConfigMap config-autoscaler: data.most-scale: not a key" in result.stderr
    assert "Warning: cpu: not simulated" in result.stderr
    assert settings("-f", str(file))["metrics not simulated"] == "cpu"
    assert done("--trace", "poisson:5rps/20s").stderr == ""


def test_less_than_a_hundred_replica_seconds_have_a_digit_after_the_point(tmp_path: Path) -> None:
    file = tmp_path / "short.csv"
    file.write_text("0\n0.5\n1.5\n")
    shown = done("--trace", str(file), "--service-time", "constant:250ms", "--start-time", "constant:0s").stdout
    assert shown.splitlines()[0] == "short.csv: 3 requests in 1.5s, 1 function"
    assert shown.splitlines()[-1].split()[3:5] == ["2.0", "0.8"]


def test_fields_at_fault_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.format(name="hello", target="none").lstrip())
    result = CliRunner().invoke(simulate, ["-f", str(path), "--trace", "poisson:5rps/20s"])
    assert result.exit_code == 2
    assert f"{path}:9: spec.template.metadata.annotations" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trace", "nothing-there"),
        ("--trace", "poisson:5rps/20s", "--set", "stable-windows=9s"),
        ("--trace", "poisson:5rps/20s", "--set", "stable-window=9h"),
        ("--trace", "poisson:5rps/20s", "--sweep", "target=x"),
        ("--trace", "poisson:5rps/20s", "--service-time", "50"),
        ("--trace", "poisson:5rps/20s", "--start-time", "never"),
    ],
)
def test_what_cannot_be_used_is_an_error_of_the_callers(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        done(*arguments)


def test_the_times_that_are_given_are_those_that_are_simulated() -> None:
    arguments = ("--trace", "step:1rps/10s,spacing=even", "--service-time", "constant:20ms", "-o", "json")
    told = json.loads(done(*arguments, "--start-time", "constant:300ms", "--duration", "1m").stdout)
    assert told["latency"]["p50"] == pytest.approx(20.0)
    assert told["latency"]["greatest"] == pytest.approx(320.0)
    assert told["seconds"] == 60.0

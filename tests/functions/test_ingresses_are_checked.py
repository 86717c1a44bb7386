"""An Ingress as Knative's webhook takes it: what is refused, with the field, and what is filled in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from upwell.functions.api.meta import faults
from upwell.functions.api.networking import Ingress

ARTICLE = Path(__file__).resolve().parent.parent / "golden" / "article" / "kingress.yaml"


def article() -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load(ARTICLE.read_text())
    return manifest


def path(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["rules"][0]["http"]["paths"][0]
    return found


def split(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = path(manifest)["splits"][0]
    return found


def fields(manifest: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as error:
        Ingress.model_validate(manifest)
    return [fault.field for fault in faults(error.value)]


def test_the_article_s_ingress_is_taken_as_printed_and_printed_the_same() -> None:
    assert Ingress.model_validate(article()).with_defaults().to_manifest() == article()


def test_visibility_and_the_percent_of_a_sole_split_are_filled_in() -> None:
    manifest = article()
    del manifest["spec"]["rules"][1]["visibility"], split(manifest)["percent"]
    split(manifest)["servicePort"] = "http"
    made = Ingress.model_validate(manifest).with_defaults().to_manifest()
    assert made["spec"]["rules"][1]["visibility"] == "ExternalIP"
    assert split(made)["percent"] == 100
    assert split(made)["servicePort"] == "http"


def test_headers_a_rewritten_host_and_certificates_are_kept() -> None:
    manifest = article()
    path(manifest).update(
        path="/api", headers={"Knative-Serving-Tag": {"exact": "v1"}}, rewriteHost="a.default.svc.cluster.local"
    )
    manifest["spec"]["tls"] = [{"hosts": ["a.example.com"], "secretName": "a", "secretNamespace": "default"}]
    manifest["metadata"]["name"] = "shop.example.com"
    assert Ingress.model_validate(manifest).with_defaults().to_manifest() == manifest


def test_deprecated_fields_are_taken_with_a_warning() -> None:
    manifest = article()
    path(manifest).update(timeout="48h0m0s", retries={"attempts": 3})
    warnings = list(Ingress.model_validate(manifest).warnings())
    assert [warning.partition(":")[0] for warning in warnings] == [
        "spec.rules[0].http.paths[0].timeout",
        "spec.rules[0].http.paths[0].retries",
    ]


HTTP = "spec.rules[0].http"
CASES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("spec.rules", lambda m: m["spec"].pop("rules")),
    ("spec.rules", lambda m: m["spec"].update(rules=[])),
    ("spec.rules[0].http", lambda m: m["spec"]["rules"][0].pop("http")),
    ("spec.rules[0].visibility", lambda m: m["spec"]["rules"][0].update(visibility="Public")),
    ("spec.httpOption", lambda m: m["spec"].update(httpOption="Off")),
    ("spec.tls[0].secretName", lambda m: m["spec"].update(tls=[{"secretNamespace": "default"}])),
    ("spec.tls[0].secretNamespace", lambda m: m["spec"].update(tls=[{"secretName": "a", "secretNamespace": ""}])),
    (f"{HTTP}.paths", lambda m: m["spec"]["rules"][0]["http"].update(paths=[])),
    (f"{HTTP}.paths[0].path", lambda m: path(m).update(path="api")),
    (f"{HTTP}.paths[0].headers.a", lambda m: path(m).update(headers={"a": "b"})),
    (f"{HTTP}.paths[0].splits", lambda m: path(m).update(splits=[])),
    (f"{HTTP}.paths[0].splits", lambda m: split(m).update(percent=30)),
    (f"{HTTP}.paths[0].splits", lambda m: path(m)["splits"].append(split(copy.deepcopy(m)))),
    (f"{HTTP}.paths[0].splits[0].percent", lambda m: split(m).update(percent=101)),
    (f"{HTTP}.paths[0].splits[0].serviceName", lambda m: split(m).update(serviceName="")),
    (f"{HTTP}.paths[0].splits[0].servicePort", lambda m: split(m).pop("servicePort")),
    (f"{HTTP}.paths[0].splits[0].serviceNamespace", lambda m: split(m).pop("serviceNamespace")),
    (f"{HTTP}.paths[0].splits[0].serviceNamespace", lambda m: split(m).update(serviceNamespace="other")),
    ("spec.rules[0].hosts[0]", lambda m: m["spec"]["rules"][0].update(hosts=["bücher.example.com"])),
    ("spec.rules[0].hosts[0]", lambda m: m["spec"]["rules"][0].update(hosts=["a.example.com/path"])),
    (f"{HTTP}.paths[0].rewriteHost", lambda m: path(m).update(rewriteHost="a\r\nX-B: c")),
    (f"{HTTP}.paths[0].appendHeaders.X-A", lambda m: path(m).update(appendHeaders={"X-A": "b\r\nX-C: d"})),
    (
        f"{HTTP}.paths[0].appendHeaders.Content-Length",
        lambda m: path(m).update(appendHeaders={"Content-Length": "5"}),
    ),
    (f"{HTTP}.paths[0].headers['a b']", lambda m: path(m).update(headers={"a b": {"exact": "c"}})),
    ("spec.visibility", lambda m: m["spec"].update(visibility="ExternalIP")),
]


@pytest.mark.parametrize(("field", "spoil"), CASES)
def test_a_field_that_is_wrong_is_named(field: str, spoil: Callable[[dict[str, Any]], object]) -> None:
    manifest = article()
    spoil(manifest)
    assert field in fields(manifest)


def test_a_wildcard_that_answers_no_host_is_warned_of() -> None:
    manifest = article()
    manifest["spec"]["rules"][1]["hosts"] = ["httpbin.example.com", "*.example.com", "*"]
    warnings = list(Ingress.model_validate(manifest).warnings())
    assert [warning.partition(":")[0] for warning in warnings] == [
        "spec.rules[1].hosts[1]",
        "spec.rules[1].hosts[2]",
    ]

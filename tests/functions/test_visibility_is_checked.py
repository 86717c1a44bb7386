"""Who keeps a Service or a Route to the inside has to spell that right."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from upwell.functions.api.meta import faults
from upwell.functions.api.serving import Route, Service

SERVICE: dict[str, Any] = {"template": {"spec": {"containers": [{"image": "a"}]}}}
ROUTE: dict[str, Any] = {"traffic": [{"configurationName": "hello", "percent": 100}]}
KINDS = pytest.mark.parametrize(("model", "spec"), [(Service, SERVICE), (Route, ROUTE)])


def manifest(model: type[Service | Route], spec: dict[str, Any], visibility: str) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": model.__name__,
        "metadata": {"name": "hello", "labels": {"networking.knative.dev/visibility": visibility}},
        "spec": spec,
    }


@KINDS
def test_it_may_be_cluster_local(model: type[Service | Route], spec: dict[str, Any]) -> None:
    read = model.model_validate(manifest(model, spec, "cluster-local"))
    assert read.metadata.labels == {"networking.knative.dev/visibility": "cluster-local"}


@KINDS
@pytest.mark.parametrize("visibility", ["", "clusterlocal", "Cluster-Local", "ClusterLocal", "private"])
def test_another_value_would_answer_everybody_and_is_refused(
    model: type[Service | Route], spec: dict[str, Any], visibility: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(manifest(model, spec, visibility))
    (fault,) = faults(raised.value)
    assert fault.field == "metadata.labels['networking.knative.dev/visibility']"
    assert "must be 'cluster-local' or left out" in fault.message

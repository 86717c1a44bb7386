"""A local function as the Knative Service that it is, and the arguments that commands about functions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from upwell.functions.project import Project
from upwell.runtime.cluster.interface import Manifest

NAMESPACE: Final = "default"


def function_image(name: str) -> str:
    """The image that a local function's Service names; the platform maps it to the source."""
    return f"upwell.dev/{name}"


def function_service(name: str, environment: Mapping[str, str], *, namespace: str = NAMESPACE) -> Manifest:
    """The Service of a local function, whose image is `function_image(name)`."""
    container = {
        "image": function_image(name),
        "env": [{"name": key, "value": value} for key, value in environment.items()],
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def source_path(project: Project) -> str:
    """`PATH[:callable]` of a project, absolute, as the platform's images are mapped."""
    source = project.root / f"{project.module}.py" if project.alone else project.root
    return f"{source}:{project.attribute}" if project.attribute else str(source)

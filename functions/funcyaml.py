"""`func.yaml`, the file that Knative's `func` keeps beside a function: what of it matters where no image is built.

That is its name, its runtime, and the variables of `run.envs` (of `envs` in older files). A variable that is to
come from a Secret or ConfigMap of a cluster, or from a variable that is not set here, has no value and is named,
for the caller to tell. What configures builds and deployments is left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upwell.functions.errors import InvalidFunction, InvalidManifest
from upwell.functions.funcpython import FUNCTION_FILE

_LOCAL = re.compile(r"\{\{\s*env:(\w+)\s*\}\}")
_CLUSTER = re.compile(r"\{\{\s*(secret|configMap):")


@dataclass(frozen=True, slots=True)
class FunctionFile:
    """What `func.yaml` says: `environment` in pairs of name and value; `unset` likewise in pairs, of the name of a
    variable that has no value here and of what it should have come from."""

    name: str | None
    environment: tuple[tuple[str, str], ...]
    unset: tuple[tuple[str, str], ...]


def read_function_file(root: Path, variables: Mapping[str, str] = os.environ) -> FunctionFile | None:
    """The `func.yaml` in `root`, None when there is none; `variables` are those that its values may refer to.

    Raises InvalidFunction for what is no such file and for another language's.
    """
    file = root / FUNCTION_FILE
    if not file.is_file():
        return None
    content = _parse(file)
    runtime = content.get("runtime", "python")
    if runtime != "python":
        raise InvalidFunction(f"a function for {runtime}, not for Python", where=str(file))
    pairs = [(str(each["name"]), str(each.get("value", ""))) for each in _variables(content, file)]
    known, unset = [], []
    for name, value in pairs:
        if _CLUSTER.search(value) or any(local not in variables for local in _LOCAL.findall(value)):
            unset.append((name, value))
        else:
            known.append((name, _LOCAL.sub(lambda found: variables[found[1]], value)))
    called = content.get("name")
    return FunctionFile(str(called) if called else None, tuple(known), tuple(unset))


def _parse(file: Path) -> dict[str, Any]:
    from upwell.functions.documents import read_documents

    try:
        documents = [each.value for each in read_documents(file.read_text(), str(file))]
    except (InvalidManifest, UnicodeDecodeError) as error:
        raise InvalidFunction(str(error), where="" if isinstance(error, InvalidManifest) else str(file)) from error
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InvalidFunction("not a mapping", where=str(file))
    return documents[0]


def _variables(content: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    run = content.get("run") or {}
    found = (run.get("envs") if isinstance(run, dict) else None) or content.get("envs") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidFunction("envs is not a list of names and values", where=str(file))
    # One without a name stands for all of a Secret or ConfigMap, which are not here.
    return [each for each in found if each.get("name")]

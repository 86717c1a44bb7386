"""Loads the recorded data in `tests/golden`, or in the folder that UPWELL_GOLDEN names.

A suite whose file is absent from the folder is skipped; a folder that holds none of the files is a failure, since
a mistyped name would otherwise pass in silence.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SUITES = (
    "kpa_decisions.json.gz",
    "window_averages.json.gz",
    "request_stats.json.gz",
    "decider_specs.json.gz",
    "queue_proxy_http.json",
)
OWN_FOLDER = Path(__file__).resolve().parent.parent / "golden"


class EmptyGoldenFolder(Exception):
    """The folder of golden data holds none of the known files."""


def folder(environment: dict[str, str] | None = None) -> Path:
    """The folder to read; raises `EmptyGoldenFolder` when none of the suites is in it."""
    named = (os.environ if environment is None else environment).get("UPWELL_GOLDEN")
    path = Path(named) if named else OWN_FOLDER
    if not any((path / suite).is_file() for suite in SUITES):
        raise EmptyGoldenFolder(f"{path} holds none of {', '.join(SUITES)}")
    return path


@cache
def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    loaded: dict[str, Any] = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    return loaded


def load(suite: str) -> dict[str, Any]:
    """The whole of one suite; skips the calling test when the folder lacks it."""
    path = folder() / suite
    if not path.is_file():
        pytest.skip(f"{suite} is not in {path.parent}")
    return _read(path)


def rows(suite: str, key: str) -> list[Any]:
    """The rows of one suite for `pytest.mark.parametrize`, none when the folder lacks it.

    An empty folder gives none here either; `test_golden_folder.py` fails on it.
    """
    try:
        path = folder() / suite
    except EmptyGoldenFolder:
        return []
    found: list[Any] = _read(path)[key] if path.is_file() else []
    return found

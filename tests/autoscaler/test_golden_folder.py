"""The folder of golden data is chosen by name, and an empty one is never taken for success."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from support import golden


def test_golden_folder_holds_at_least_one_suite() -> None:
    assert any((golden.folder() / suite).is_file() for suite in golden.SUITES)


@pytest.mark.parametrize(
    ("suite", "key", "least"),
    [
        ("kpa_decisions.json.gz", "scenarios", 100),
        ("window_averages.json.gz", "series", 10),
        ("request_stats.json.gz", "series", 10),
        ("decider_specs.json.gz", "rows", 100),
    ],
)
def test_our_own_folder_holds_every_suite_of_the_autoscaler(suite: str, key: str, least: int) -> None:
    recorded = json.loads(gzip.decompress((golden.OWN_FOLDER / suite).read_bytes()))[key]
    assert len(recorded) >= least
    steps = [row.get("ticks", row.get("ops", [row])) for row in recorded]
    assert all(steps)


def test_our_own_settings_hold_config_maps_that_are_refused() -> None:
    rows = json.loads(gzip.decompress((golden.OWN_FOLDER / "decider_specs.json.gz").read_bytes()))["rows"]
    assert {bool(row.get("config_error")) for row in rows} == {True, False}


def test_our_own_request_series_hold_reports_to_compare() -> None:
    series = json.loads(gzip.decompress((golden.OWN_FOLDER / "request_stats.json.gz").read_bytes()))["series"]
    assert sum(operation[0] == "report" for each in series for operation in each["ops"]) >= 100


def test_golden_folder_without_any_suite_fails_instead_of_skipping(tmp_path: Path) -> None:
    with pytest.raises(golden.EmptyGoldenFolder, match=r"kpa_decisions\.json\.gz"):
        golden.folder({"UPWELL_GOLDEN": str(tmp_path)})


def test_golden_folder_named_by_the_environment_is_read_instead_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "decider_specs.json.gz").write_bytes(b"")
    assert golden.folder({"UPWELL_GOLDEN": str(tmp_path)}) == tmp_path
    assert golden.folder({}) == golden.OWN_FOLDER

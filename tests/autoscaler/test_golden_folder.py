"""The folder of golden data is chosen by name, and an empty one is never taken for success."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import golden


def test_golden_folder_holds_at_least_one_suite() -> None:
    assert any((golden.folder() / suite).is_file() for suite in golden.SUITES)


def test_golden_folder_without_any_suite_fails_instead_of_skipping(tmp_path: Path) -> None:
    with pytest.raises(golden.EmptyGoldenFolder, match=r"kpa_decisions\.json\.gz"):
        golden.folder({"UPWELL_GOLDEN": str(tmp_path)})


def test_golden_folder_named_by_the_environment_is_read_instead_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "decider_specs.json.gz").write_bytes(b"")
    assert golden.folder({"UPWELL_GOLDEN": str(tmp_path)}) == tmp_path
    assert golden.folder({}) == golden.OWN_FOLDER

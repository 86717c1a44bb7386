"""functions-framework in a virtual environment of its own, since it pins an old cloudevents.

The environment is made once and kept in a cache folder (UPWELL_TEST_CACHE, by default ``~/.cache/upwell-tests``),
under a name that holds its versions; a marker says that it is whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REQUIREMENT: Final = "functions-framework==3.10.*"
REMEDY: Final = f"pip could not install {REQUIREMENT}; its output is above"
INSTALL_SECONDS: Final = 300.0


class NotInstalled(Exception):
    """The environment could not be made."""


def environment() -> Path:
    """The environment's folder, made if there is none yet. Raises NotInstalled."""
    folder = _cache() / f"functions-framework-3.10-python{sys.version_info.major}.{sys.version_info.minor}"
    whole = folder / "whole"
    if whole.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT],
    ):
        try:
            subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotInstalled(str(error)) from error
    whole.touch()
    return folder


def _cache() -> Path:
    named = os.environ.get("UPWELL_TEST_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "upwell-tests"

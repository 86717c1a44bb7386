"""Packages that are installed aside, since they will not share an environment with ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support.framework import Driver, driver

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

FRAMEWORK = "functions-framework==3.10.2"
# As functions-framework pins it; the newer major version is the one that is installed already.
CLOUDEVENTS = {"1": ("cloudevents==1.12.0", "deprecation"), "2": ()}


@pytest.fixture(scope="session", params=["1", "2"], ids=lambda major: f"cloudevents-{major}")
def framework(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Runs functions with functions-framework, and with cloudevents of either major version."""
    directory = _installed(f"functions-framework-{request.param}", CLOUDEVENTS[request.param])
    with driver(directory) as started:
        yield started


def _cache() -> Path:
    """Where what takes long to get is kept, outside the checkout."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("UPWELL_TEST_CACHE") or Path(home) / "upwell-tests")


def _installed(name: str, further: tuple[str, ...]) -> Path:
    """The directory of functions-framework and `further` packages; kept from session to session."""
    directory = _cache() / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    directory.mkdir(parents=True, exist_ok=True)
    done = directory / ".installed"
    wanted = " ".join((FRAMEWORK, *further))
    if not done.is_file() or done.read_text() != wanted:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        try:
            pip = subprocess.run(
                [*command, "--target", str(directory), FRAMEWORK, *further],
                capture_output=True,
                text=True,
                timeout=300,
            )
            problem = "" if pip.returncode == 0 else pip.stderr.strip().splitlines()[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem and os.environ.get("CI") != "true":
            pytest.skip(f"functions-framework cannot be installed: {problem}")
        assert not problem, problem
        done.write_text(wanted)
    return directory

"""What tests need from outside of Python: skipped where it is absent, required in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def is_absent(what: str, command: str) -> NoReturn:
    """End the test: `what` is not there, and `command` would install it."""
    told = f"{what} is not installed; `{command}` installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)

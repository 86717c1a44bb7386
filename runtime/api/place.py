"""Where a platform keeps its state and how its socket is reached. Standard library only.

A Unix socket's path has 107 bytes on Linux and 103 on macOS, and a data directory may stand deeper than that. Its
socket is then bound and reached through a symbolic link with a short path, which lives for that one call.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

LONGEST_SOCKET_PATH: Final = 100
VARIABLE: Final = "UPWELL_DATA"


def data_path(given: str | None, environment: Mapping[str, str], *, platform: str = sys.platform) -> Path:
    """Where the state is, absolute: as `given`, else as UPWELL_DATA says, else in the user's data home."""
    chosen = given or environment.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "upwell"
    home = environment.get("XDG_DATA_HOME", "")
    # The specification has relative paths passed over.
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share") / "upwell"


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path of the socket `path` that is short enough to bind or to connect, while the context lasts."""
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="upwell-") as folder:
        link = Path(folder) / "d"
        link.symlink_to(path.parent, target_is_directory=True)
        yield str(link / path.name)

"""Either name of the CloudEvents classes that both major versions of the library have.

Version 1 calls them `cloudevents.http`, `cloudevents.conversion` and so on; version 2 has the same modules as
`cloudevents.v1.http` and `cloudevents.v1.conversion`. Code that was written for one is served by the other: a
finder gives the module under the name that is not there. It is one and the same
module, so that a class is the same by either name. What only one version has (`cloudevents.core`) stays missing
in the other.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_LIBRARY = "cloudevents"
_CLASSIC = "cloudevents.v1"


def install() -> None:
    """Serve both names from now on in this process. Idempotent."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        # In front: by way of an alias for a package, others would find its modules and load them once more.
        sys.meta_path.insert(0, _Finder())


def other_name(name: str) -> str | None:
    """What the other major version calls the module `name`; None for what is no such module."""
    if name == _CLASSIC:
        return _LIBRARY
    if name.startswith(f"{_CLASSIC}."):
        return name.replace(_CLASSIC, _LIBRARY, 1)
    parts = name.split(".")
    if len(parts) == 1 or parts[0] != _LIBRARY or parts[1] == "core":
        return None
    return name.replace(_LIBRARY, _CLASSIC, 1)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = other_name(fullname)
        if name is None or _has(".".join(fullname.split(".")[:2])) or not _is_importable(name):
            return None
        return ModuleSpec(fullname, _Alias(name))


class _Alias(Loader):
    """Loads a module by giving one that has another name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the alias's there


def _has(name: str) -> bool:
    """Whether the installed library has, directly below it, a module of this name."""
    library = importlib.import_module(_LIBRARY)
    return PathFinder.find_spec(name, library.__path__) is not None


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

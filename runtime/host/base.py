"""The base zygote's program: ``python -P -m upwell.runtime.host.base DESCRIPTOR``.

It imports what every replica needs and then forks. Imports stand inside `main`, because uvicorn's package has to
be set up before anything of ours imports a part of it.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def defer_package(name: str, homes: Mapping[str, str]) -> None:
    """Let submodules of `name` be imported without running the package's own ``__init__`` until it is needed.

    uvicorn's pulls in its command line, process supervisors and click: 50 ms and 3 MB that a replica has no use
    for. `homes` says in which submodules the names lie that its other submodules take from the package. Code that
    asks for any other name, as a function's own ``uvicorn.run`` would, gets the whole package.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None or name in sys.modules:
        return
    loader = spec.loader
    package = importlib.util.module_from_spec(spec)

    def complete(attribute: str) -> Any:
        if attribute in homes:
            return getattr(importlib.import_module(homes[attribute]), attribute)
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, attribute)

    vars(package)["__getattr__"] = complete
    sys.modules[name] = package


def main() -> None:
    """Serve commands on the socket whose descriptor is the first argument until its other end closes."""
    defer_package("uvicorn", {"Config": "uvicorn.config"})
    zygote: ModuleType = importlib.import_module("upwell.runtime.host.zygote")
    zygote.run(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()

"""A function's source on disk: where it is, what it is called, which module and attribute hold it.

`locate` reads only names; `bundle` copies the source to where a revision keeps it for ever; `load` imports it in
the process that serves it.

The entry module of a directory is the first of these that is there: main.py, function.py, func.py, app.py,
handler.py, asgi.py, wsgi.py, a file named like the directory, `__init__.py` (the directory is then a package), the
package `function` as Knative's `func` lays it out, the `wsgi` module of a Django project, the only .py file. A
`func.yaml` there gives the function's name and its environment, also where the entry's own file is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from upwell.functions.api.names import is_dns_1035_label
from upwell.functions.bundling import Bundle, bundle_directory, bundle_files
from upwell.functions.errors import InvalidFunction
from upwell.functions.funcyaml import read_function_file
from upwell.functions.loading import load

__all__ = ["Bundle", "Project", "bundle", "load", "locate"]

_ENTRIES = ("main", "function", "func", "app", "handler", "asgi", "wsgi")
_ATTRIBUTE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class Project:
    """A function's source.

    `name` is a DNS-1035 label. `module` is imported with `root`, an absolute directory, on the path; `attribute`
    is the callable that the user named in it, None to let `load` pick. `alone` says that the user named the file
    and not its directory: only it and the neighbours that it imports belong to the project. `environment` holds
    the variables that the `func.yaml` beside it sets, in pairs of name and value; `unset` those that it gives no
    value here, in pairs of name and what this should have come from.
    """

    name: str
    root: Path
    module: str
    attribute: str | None = None
    alone: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    unset: tuple[tuple[str, str], ...] = ()


def locate(spec: str) -> Project:
    """The project that `PATH[:callable]` names, PATH being a .py file or a directory.

    Raises InvalidFunction when there is none, or when it gives no name that a host may have.
    """
    path, attribute = _split(spec)
    if not path.exists():
        raise InvalidFunction("no such file or directory", where=str(path), hint="Give a .py file or a directory.")
    path = path.resolve()
    if path.is_dir():
        return _project(path, path, _entry_module(path), attribute, alone=False)
    if path.suffix != ".py":
        raise InvalidFunction("not a Python file", where=str(path), hint="Give a .py file or a directory.")
    if path.stem == "__init__":
        return locate(f"{path.parent}:{attribute}" if attribute else str(path.parent))
    return _project(path, path.parent, path.stem, attribute, alone=True)


def bundle(project: Project, into: Path) -> Bundle:
    """A copy of the project's source in `into`, in a directory named by the digest of its content.

    Atomic and idempotent: the directory appears whole or not at all, and the same source twice gives the same one.
    Caches and environments are left out. Raises InvalidFunction for a link that leads out of the project and for
    a project that is too large.
    """
    if project.alone:
        return bundle_files(project.root, project.module, into)
    return bundle_directory(project.root, into)


def _split(spec: str) -> tuple[Path, str | None]:
    path, colon, attribute = spec.rpartition(":")
    if not colon or Path(spec).exists():
        return Path(spec), None
    if not _ATTRIBUTE.fullmatch(attribute):
        raise InvalidFunction(
            f"{attribute!r} cannot name a callable",
            where=spec,
            hint="Write PATH or PATH:callable, as main.py:hello.",
        )
    return Path(path), attribute


def _name(stem: str, path: Path) -> str:
    name = stem.lower().replace("_", "-")
    if not is_dns_1035_label(name):
        raise InvalidFunction(
            f"{name!r} cannot be the name of a function",
            where=str(path),
            hint="Rename it to letters, digits and '-' or '_', beginning with a letter, at most 63 long.",
        )
    return name


def _project(path: Path, root: Path, module: str, attribute: str | None, *, alone: bool) -> Project:
    described = read_function_file(root)
    name = path.stem if alone else path.name
    if described is None:
        return Project(_name(name, path), root, module, attribute, alone)
    if described.name and (not alone or _is_entry(root, module)):
        name = described.name
    return Project(_name(name, path), root, module, attribute, alone, described.environment, described.unset)


def _is_entry(root: Path, module: str) -> bool:
    try:
        return _entry_module(root) == module
    except InvalidFunction:
        return False


def _entry_module(root: Path) -> str:
    own = root.name.replace("-", "_")
    for stem in (*_ENTRIES, root.name, own):
        if (root / f"{stem}.py").is_file():
            return stem
    if (root / "__init__.py").is_file():
        if not own.isidentifier():
            raise InvalidFunction(f"a package cannot be called {own!r}", where=str(root), hint="Rename it.")
        return own
    if laid_out := _laid_out_module(root):
        return laid_out
    found = sorted(each.stem for each in root.glob("*.py"))
    if len(found) == 1:
        return found[0]
    expected = ", ".join(f"{stem}.py" for stem in _ENTRIES)
    raise InvalidFunction(
        f"several .py files and none is the entry: {', '.join(found)}"
        if found
        else "no .py file in the directory",
        where=str(root),
        hint=f"Name the file itself, or call the entry one of {expected}.",
    )


def _laid_out_module(root: Path) -> str | None:
    """The module that other tools' layouts have for this: `func`'s package, or Django's project."""
    if (root / "function" / "__init__.py").is_file():
        return "function"
    if (root / "function" / "func.py").is_file():
        return "function.func"
    projects = (
        sorted(each.parent.name for each in root.glob("*/wsgi.py")) if (root / "manage.py").is_file() else []
    )
    return f"{projects[0]}.wsgi" if len(projects) == 1 else None

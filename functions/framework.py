"""Functions written for functions-framework, served by that package's own applications.

The package makes a Flask application of a sync function and a Starlette application of one from its `aio`, with
the routes, conversions of events and error answers that its users know; both are served here like any other
application. It is its `create_app` that makes them, in whose course the function's module is imported, so that
`current_app` and `errorhandler` work there. Only how the module is imported is ours: once, and under the path
that its author knows.

Known by its decorators, which are looked for in the source since the module cannot be imported before, or by
FUNCTION_TARGET in the environment; FUNCTION_SOURCE and FUNCTION_SIGNATURE_TYPE are heeded too.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from upwell.functions.errors import InvalidFunction

PACKAGE: Final = "functions_framework"
TARGET: Final = "FUNCTION_TARGET"
SOURCE: Final = "FUNCTION_SOURCE"
USE_ASGI: Final = "FUNCTION_USE_ASGI"

_DECORATORS = frozenset({"http", "cloud_event", "typed"})
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


def target_in(file: Path, attribute: str | None, where: str) -> str | None:
    """The name of the function in `file` that is for functions-framework; None when none is.

    `attribute` is what the user named. Raises InvalidFunction when several are decorated and nothing says which.
    """
    if TARGET in os.environ and importlib.util.find_spec(PACKAGE) is not None:
        return attribute or os.environ[TARGET]
    names = _decorated(file.read_bytes())
    if attribute is not None:
        return attribute if attribute in names else None
    if len(names) > 1:
        raise InvalidFunction(
            f"several functions are decorated: {', '.join(sorted(names))}",
            where=where,
            hint=f"Name one, as PATH:{min(names)}, or set {TARGET}.",
        )
    return names[0] if names else None


def application(target: str, file: Path, import_module: Callable[[], ModuleType], where: str) -> object:
    """The Flask or Starlette application of the function `target`; `import_module` imports its module from `file`.

    `where` names the file in errors. Raises InvalidFunction when the package is not installed or, in its words,
    for what it does not take; and what `import_module` raises.
    """
    package = _package(where)
    wants_asgi = os.environ.get(USE_ASGI, "").lower() in _TRUE
    create = importlib.import_module(f"{PACKAGE}.aio").create_asgi_app if wants_asgi else package.create_app
    importing = _Importing(import_module)
    try:
        with _loaded_by(importing, where):
            return create(target, str(file))
    except package.exceptions.FunctionsFrameworkException as error:
        raise InvalidFunction(str(error).replace(str(file), where), where=where) from error
    finally:
        importing.restore_cause()


def is_decorated(target: object) -> bool:
    """Whether a function carries one of the package's decorators."""
    if PACKAGE not in sys.modules or not inspect.isfunction(target) or not hasattr(target, "__wrapped__"):
        return False
    return target.__name__ in _registry().REGISTRY_MAP


def application_of(target: Any, where: str) -> object:
    """The application of a decorated function whose module was imported without one: it has no error handlers."""
    module = sys.modules[target.__module__]
    return application(target.__name__, Path(inspect.getfile(target)), lambda: module, where)


class _Importing:
    """Takes the place of a module's spec: imports it in our way when its loader is told to execute it."""

    def __init__(self, import_module: Callable[[], ModuleType]) -> None:
        self.loader = SimpleNamespace(exec_module=self._execute)
        self.module = ModuleType("function")
        self._import_module = import_module
        self._failed: tuple[BaseException, BaseException | None] | None = None

    def _execute(self, module: ModuleType) -> None:
        try:
            module.__dict__.update(vars(self._import_module()))
        except BaseException as error:
            self._failed = (error, error.__cause__)
            raise

    def restore_cause(self) -> None:
        """Give an error that passed through the package its cause again, which is lost on the way."""
        if self._failed is not None:
            self._failed[0].__cause__ = self._failed[1]


@contextmanager
def _loaded_by(importing: _Importing, where: str) -> Iterator[None]:
    registry = _registry()
    theirs = getattr(registry, "load_function_module", None)
    if theirs is None:
        raise InvalidFunction(
            "this version of functions-framework is not known",
            where=where,
            hint="Versions from 3.9 are: pip install --upgrade functions-framework",
        )
    registry.load_function_module = lambda source: (importing.module, importing)
    try:
        yield
    finally:
        registry.load_function_module = theirs


def _package(where: str) -> Any:
    try:
        return importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        raise InvalidFunction(
            f"no module named {error.name}",
            where=where,
            hint=f"Install it in upwell's own environment: {sys.executable} -m pip install functions-framework",
        ) from error


def _registry() -> Any:
    return importlib.import_module(f"{PACKAGE}._function_registry")


def _decorated(source: bytes) -> list[str]:
    """The functions of a module with one of the decorators, by whatever name they were imported."""
    if PACKAGE.encode() not in source:
        return []
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return []  # importing it will tell better
    names = _imported_names(body)
    functions = (each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    return [each.name for each in functions if any(_meaning(part, names) for part in each.decorator_list)]


def _imported_names(body: list[ast.stmt]) -> dict[str, str]:
    """What names stand for, dotted, where that is the package or something of it."""
    names: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    names[alias.asname or PACKAGE] = alias.name if alias.asname else PACKAGE
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _meaning(decorator: ast.expr, names: dict[str, str]) -> bool:
    """Whether a decorator, called or not, is one of the package's."""
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    written = ast.unparse(node)
    first, _, rest = written.partition(".")
    meant = ".".join(filter(None, (names.get(first, ""), rest))).split(".")
    return meant[0] == PACKAGE and len(meant) > 1 and meant[-1] in _DECORATORS

"""Functions written for functions-framework, served by that package's own applications.

The package makes a Flask application of a sync function and a Starlette application of one from its `aio`, with
the routes, conversions of events and error answers that its users know; both are served here like any other
application. Its `create_app` would execute the module itself, from the file and under a path that its author
does not know. So the module is imported here, but within the application's context and with the package's
`errorhandler` bound to it, as `create_app` does; then the package turns the function into the application's
view.

Known by its decorators, or by FUNCTION_TARGET, FUNCTION_SOURCE and FUNCTION_SIGNATURE_TYPE in the environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from upwell.functions.errors import InvalidFunction

PACKAGE = "functions_framework"

TARGET = "FUNCTION_TARGET"
SOURCE = "FUNCTION_SOURCE"
USE_ASGI = "FUNCTION_USE_ASGI"

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


def is_meant(file: Path) -> bool:
    """Whether the module in `file` is one for functions-framework: it, or the environment, says so."""
    if TARGET in os.environ:
        return importlib.util.find_spec(PACKAGE) is not None
    return PACKAGE.encode() in file.read_bytes()


def is_decorated(target: object) -> bool:
    """Whether a function carries one of the package's decorators."""
    if PACKAGE not in sys.modules or not inspect.isfunction(target):
        return False
    return target.__name__ in _registry().REGISTRY_MAP and hasattr(target, "__wrapped__")


def application_of(target: Any, where: str) -> object:
    """The application of a decorated function whose module is imported already; error handlers are not in it."""
    return Framework(where, Path.cwd()).application(sys.modules[target.__module__], target.__name__)


class Framework:
    """One application of functions-framework in the making; `where` names the function's file in errors.

    `directory` is where templates are. Raises InvalidFunction when the package is not installed, or has other
    parts than this knows.
    """

    def __init__(self, where: str, directory: Path) -> None:
        self._where = where
        try:
            self._package = importlib.import_module(PACKAGE)
            flask = importlib.import_module("flask")
        except ModuleNotFoundError as error:
            raise self._missing(error) from error
        with self._known_parts():
            if self._package._enable_execution_id_logging():
                self._package._configure_app_execution_id_logging()
            # Not by the module's name: Flask would import its package in search of the file.
            self._app = flask.Flask("function", root_path=str(directory))
            self._app.register_error_handler(500, self._package.crash_handler)
            self._app.wsgi_app = self._package.execution_id.WsgiMiddleware(self._app.wsgi_app)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Within it the function's module is to be imported."""
        self._package.__dict__["errorhandler"] = self._app.errorhandler
        with self._app.app_context():
            yield

    def target(self, module: ModuleType, attribute: str | None) -> str | None:
        """The name of the function in `module`; None when the package has nothing to do with it.

        Raises InvalidFunction when several are decorated and nothing says which.
        """
        registered = [name for name in _registry().REGISTRY_MAP if hasattr(module, name)]
        if attribute is not None:
            return attribute if attribute in registered or TARGET in os.environ else None
        if named := os.environ.get(TARGET):
            return named
        if len(registered) > 1:
            raise InvalidFunction(
                f"several functions are decorated: {', '.join(sorted(registered))}",
                where=self._where,
                hint=f"Name one, as PATH:{min(registered)}, or set {TARGET}.",
            )
        return registered[0] if registered else None

    def application(self, module: ModuleType, target: str) -> object:
        """A Flask or Starlette application of the function `target` in `module`.

        Raises InvalidFunction, in the package's words, for what it does not take.
        """
        with self._known_parts():
            try:
                return self._application(module, target)
            except self._package.exceptions.FunctionsFrameworkException as error:
                raise InvalidFunction(str(error), where=self._where) from error

    def _application(self, module: ModuleType, target: str) -> object:
        registry = _registry()
        os.environ[TARGET] = target
        function = registry.get_user_function(self._where, module, target)
        wants_asgi = os.environ.get(USE_ASGI, "").lower() in _TRUE
        if wants_asgi or target in registry.ASGI_FUNCTIONS:
            aio = importlib.import_module(f"{PACKAGE}.aio")
            return aio.create_asgi_app_from_module(target, self._where, None, module, module.__spec__)
        signature_type = registry.get_func_signature_type(target, None)
        self._package._configure_app(self._app, function, signature_type)
        return self._app

    @contextmanager
    def _known_parts(self) -> Iterator[None]:
        try:
            yield
        except AttributeError as error:
            if error.obj is not self._package and not isinstance(error.obj, ModuleType):
                raise
            raise InvalidFunction(
                f"this version of functions-framework has no {error.name}",
                where=self._where,
                hint="Versions from 3.9 are known to work: pip install -U functions-framework",
            ) from error

    def _missing(self, error: ModuleNotFoundError) -> InvalidFunction:
        return InvalidFunction(
            f"no module named {error.name}",
            where=self._where,
            hint=f"Install it in upwell's own environment: {sys.executable} -m pip install functions-framework",
        )


def _registry() -> Any:
    return importlib.import_module(f"{PACKAGE}._function_registry")

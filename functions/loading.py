"""Importing a function's source and picking the callable in it.

The source lies in a bundle, but its author knows another path: a finder for that one directory compiles it under
the file names of the original, so that tracebacks and error messages point there. `__file__` stays the
bundle's, where the function's data files are too. The finder goes through Python's own machinery for paths
(`sys.path_hooks`), so packages, namespace packages, extension modules and cached bytecode work as ever.

A process loads one function; what this leaves in `sys.path` and `sys.path_hooks` lives as long as it does.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
import types
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, FileFinder, SourceFileLoader
from pathlib import Path
from typing import Any, ClassVar, cast

from upwell.functions import eventalias, framework
from upwell.functions.errors import InvalidFunction
from upwell.functions.funcpython import FunctionApplication, is_func_python, read_invoke
from upwell.functions.picking import named, pick
from upwell.functions.sdk import LifecycleHooks, lifecycle_hooks


def load(root: Path, module: str, attribute: str | None, origin: Path | None = None) -> object:
    """The function in `module` below `root`: the named attribute, or the one that stands out.

    That is, in this order: the one that functions-framework's decorators or FUNCTION_TARGET name, `app`,
    `application`, `new`, `handle`, `main`, the only public callable defined in the module. A function written for
    functions-framework, or beside a `func.yaml`, comes as the application that it makes. `origin` is the directory
    that tracebacks show instead of `root`. Raises InvalidFunction when it cannot be imported, with what the import
    raised as the cause, or when nothing or too much fits.
    """
    root = root.resolve()
    shown = (origin or root).absolute()
    module = _source_module(root) or module if attribute is None else module
    file = _module_file(root, module, shown)
    where = str(_shown_path(file, root, shown))
    _prepare_path(root, shown)
    eventalias.install()
    target = framework.target_in(file, attribute, where)
    if target is None:
        return _entry(_import(root, module, shown, file), attribute, root, where)
    # As a package, when it can be one: that is how functions-framework lets a module import its neighbours.
    as_package = "." not in module
    imports = functools.partial(_import, root, module, shown, file, as_package=as_package)
    return framework.application(target, file, imports, where)


def hooks(target: object, module: str) -> LifecycleHooks:
    """The hooks of a function that `load` gave: those in the entry's `module`, and in the module that it was
    imported from, as the `__init__` of a package does."""
    names = dict.fromkeys((module, getattr(inspect.unwrap(cast(Any, target)), "__module__", None)))
    return lifecycle_hooks(*(sys.modules[name] for name in names if name in sys.modules))


def _entry(module: types.ModuleType, attribute: str | None, root: Path, where: str) -> object:
    found = named(module, attribute, where) if attribute is not None else pick(module, where)
    invoke = read_invoke(root)
    if invoke is not None and is_func_python(found):
        return FunctionApplication(cast(Callable[..., Any], found), where, invoke)
    return found


def _source_module(root: Path) -> str | None:
    """The module that FUNCTION_SOURCE names, a file below `root`."""
    source = os.environ.get(framework.SOURCE)
    if not source or framework.TARGET not in os.environ:
        return None
    path = root.joinpath(source).resolve()
    if not path.is_relative_to(root) or path.suffix != ".py":
        raise InvalidFunction(
            f"{framework.SOURCE} is {source!r}, which is no file of the function", where=str(root)
        )
    return ".".join(path.relative_to(root).with_suffix("").parts)


class _Loader(SourceFileLoader):
    """Loads source, compiled under the name that it has in the original directory."""

    root: ClassVar[Path]
    shown: ClassVar[Path]

    def get_code(self, fullname: str) -> types.CodeType | None:
        # Not where the source is compiled: bytecode from the cache gets the path that it was found at.
        shown = str(_shown_path(Path(self.path), self.root, self.shown))
        try:
            code = super().get_code(fullname)
        except SyntaxError as error:
            error.filename = shown
            raise
        return code if code is None else _renamed(code, shown)


def _loader_class(root: Path, shown: Path) -> type[_Loader]:
    return type("_Loader", (_Loader,), {"root": root, "shown": shown})


def _renamed(code: types.CodeType, filename: str) -> types.CodeType:
    if code.co_filename == filename:
        return code
    constants = tuple(
        _renamed(each, filename) if isinstance(each, types.CodeType) else each for each in code.co_consts
    )
    return code.replace(co_filename=filename, co_consts=constants)


def _prepare_path(root: Path, shown: Path) -> None:
    if str(root) in sys.path:
        return
    source = (_loader_class(root, shown), importlib.machinery.SOURCE_SUFFIXES)
    extensions = (ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)

    def hook(entry: str) -> FileFinder:
        path = Path(entry)
        if not path.is_relative_to(root) or not path.is_dir():
            raise ImportError(f"{entry} is no directory of the function", path=entry)
        return FileFinder(entry, extensions, source)

    sys.path_hooks.insert(0, hook)
    sys.path.insert(0, str(root))
    for entry in [each for each in sys.path_importer_cache if Path(each).is_relative_to(root)]:
        del sys.path_importer_cache[entry]


def _module_file(root: Path, module: str, shown: Path) -> Path:
    """The file of `module`; `root` itself is the package when only its `__init__.py` can be meant."""
    parts = module.split(".")
    for file in (root.joinpath(*parts).with_name(f"{parts[-1]}.py"), root.joinpath(*parts, "__init__.py")):
        if file.is_file():
            return file
    if len(parts) == 1 and (root / "__init__.py").is_file():
        return root / "__init__.py"
    raise InvalidFunction(f"no module {module} there", where=str(shown), hint="Was it renamed or moved?")


def _shown_path(file: Path, root: Path, shown: Path) -> Path:
    return shown / file.relative_to(root)


def _import(root: Path, module: str, shown: Path, file: Path, *, as_package: bool = False) -> types.ModuleType:
    top = module.partition(".")[0]
    _check_not_taken(top, root, _shown_path(file, root, shown))
    try:
        if file.parent == root and file.name == "__init__.py":
            as_package = True
        if as_package:
            return _import_as_package(module, file, root, shown)
        return importlib.import_module(module)
    except SyntaxError as error:
        raise _syntax_error(error) from error
    except ModuleNotFoundError as error:
        raise _missing_module(error, root, shown) from error
    except SystemExit as error:
        what = f"the module calls exit({error.code!r}) while it is imported"
        hint = "Keep what a script does under: if __name__ == '__main__':"
        raise InvalidFunction(what, where=_trim(error, shown), hint=hint) from error
    except Exception as error:
        what = "".join(traceback.format_exception_only(error)).strip()
        raise InvalidFunction(f"importing the module failed: {what}", where=_trim(error, shown)) from error


def _import_as_package(module: str, file: Path, root: Path, shown: Path) -> types.ModuleType:
    """Import `file`, whose neighbours it may import relatively."""
    if module in sys.modules:
        return sys.modules[module]
    loader = _loader_class(root, shown)(module, str(file))
    spec = importlib.util.spec_from_file_location(
        module, file, loader=loader, submodule_search_locations=[str(file.parent)]
    )
    if spec is None or spec.loader is None:
        raise InvalidFunction(f"{file.name} is no module", where=str(shown))
    imported = importlib.util.module_from_spec(spec)
    sys.modules[module] = imported
    try:
        spec.loader.exec_module(imported)
    except BaseException:
        del sys.modules[module]
        raise
    return imported


def _check_not_taken(top: str, root: Path, where: Path) -> None:
    """The user's module must not be hidden by one that Python or upwell has loaded, nor hide it from them."""
    taken = "Python's own" if top in sys.stdlib_module_names else ""
    loaded = sys.modules.get(top)
    if loaded is not None and not taken:
        origin = getattr(loaded, "__file__", None)
        taken = "" if origin and Path(origin).is_relative_to(root) else "an installed"
    if taken:
        raise InvalidFunction(f"the name {top} is {taken} module's", where=str(where), hint="Rename the file.")


def _syntax_error(error: SyntaxError) -> InvalidFunction:
    where = f"{error.filename}:{error.lineno}" if error.lineno else str(error.filename)
    text = (error.text or "").rstrip()
    indent = len(text) - len(text.lstrip())
    caret = " " * (max(1, error.offset or 1) - 1 - indent) + "^"
    return InvalidFunction(error.msg, where=where, hint=f"{text.strip()}\n  {caret}" if text else "")


def _missing_module(error: ModuleNotFoundError, root: Path, shown: Path) -> InvalidFunction:
    name = error.name or str(error)
    where = _trim(error, shown)
    top = name.partition(".")[0]
    hint = (
        "A file that lies beside the function is taken along only where an import names it: "
        "give the directory instead."
    )
    if not any((root / found).exists() for found in (top, f"{top}.py")):
        install = f"{sys.executable} -m pip install {top}"
        hint = f"Functions run in upwell's own Python environment; install it there: {install}\n  {hint}"
    if top == "cloudevents" and top in sys.modules:
        hint = (
            "The installed version of cloudevents has no such module: "
            "version 1 has cloudevents.http, version 2 cloudevents.v1.http and cloudevents.core."
        )
    return InvalidFunction(f"no module named {name}", where=where, hint=hint)


def _trim(error: BaseException, shown: Path) -> str:
    """Cut what is not the user's off the top of a traceback; `file:line` of the user's innermost frame."""
    where = ""
    first = None
    trace = error.__traceback__
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if Path(filename).is_relative_to(shown):
            first = first or trace
            where = f"{filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    error.__traceback__ = first or error.__traceback__
    return where

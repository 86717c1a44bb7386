"""Content-addressed copies of a project's source.

The digest is SHA-256 over each file's path within the project and its content, in the order of the paths, each
preceded by its length; so it depends on nothing else: not on times, owners, or the order of a directory. A copy
is made beside its final place while it is hashed, and renamed; what is hashed is therefore what is kept, even when
a file changes meanwhile.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from upwell.functions.errors import InvalidFunction
from upwell.functions.funcpython import FUNCTION_FILE

# A function's own source, not its dependencies: generous for that, small enough to keep a copy a revision.
SIZE_LIMIT = 64 * 1024 * 1024
FILE_LIMIT = 10_000

_SKIPPED = frozenset({"__pycache__", ".git", ".venv", "venv", "node_modules", ".mypy_cache", ".pytest_cache"})


@dataclass(frozen=True, slots=True)
class Bundle:
    """A kept copy: `root` is its directory, named by `digest` (64 hex digits); `size` counts its bytes."""

    digest: str
    root: Path
    files: int
    size: int


def bundle_directory(root: Path, into: Path) -> Bundle:
    """The copy of a whole directory. Raises InvalidFunction as `project.bundle` says."""
    return _copy(root, sorted(_walk(root, root)), into)


def bundle_files(root: Path, module: str, into: Path) -> Bundle:
    """The copy of one module of `root`, of the neighbours that it imports, theirs included, and `func.yaml`."""
    described = {PurePosixPath(FUNCTION_FILE)} if (root / FUNCTION_FILE).is_file() else set()
    return _copy(root, sorted(_imported(root, module) | described), into)


def _walk(root: Path, directory: Path, chain: tuple[Path, ...] = ()) -> Iterator[PurePosixPath]:
    """Files below a directory, relative to `root`; `chain` holds the real directories that lead to it."""
    chain = (*chain, directory.resolve())
    for entry in _entries(directory):
        if entry.name in _SKIPPED or entry.name.endswith(".pyc"):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            _check_link(root, path, chain)
        if entry.is_dir():
            yield from _walk(root, path, chain)
        elif entry.is_file():
            yield PurePosixPath(path.relative_to(root).as_posix())


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        raise InvalidFunction(f"cannot be read: {error.strerror}", where=str(directory)) from error


def _check_link(root: Path, link: Path, chain: tuple[Path, ...]) -> None:
    target = link.resolve()
    if not target.is_relative_to(root.resolve()):
        raise InvalidFunction(
            f"a symbolic link that leads out of the project, to {target}",
            where=str(link),
            hint="Copy what it points to into the project.",
        )
    if any(each.is_relative_to(target) for each in chain):
        raise InvalidFunction("a symbolic link to a directory that it is in", where=str(link), hint="Remove it.")


def _imported(root: Path, module: str) -> set[PurePosixPath]:
    """Files of `root` that a module needs, found by following the imports written in them."""
    found: set[PurePosixPath] = set()
    unread = [module]
    seen = {module}
    while unread:
        name = unread.pop()
        file, package = root / f"{name}.py", root / name
        for link in filter(Path.is_symlink, (file, package)):
            _check_link(root, link, (root.resolve(),))
        files = {PurePosixPath(file.name)} if file.is_file() else set()
        if (package / "__init__.py").is_file():
            files |= set(_walk(root, package))
        found |= files
        wanted = {each for path in files if path.suffix == ".py" for each in _imports(root, path)}
        unread += wanted - seen
        seen |= wanted
    return found


def _imports(root: Path, path: PurePosixPath) -> set[str]:
    """Names in `root` that a file may import; none when it is no Python, which importing it will tell better.

    By a relative import too: functions-framework imports a module so that it may name its neighbours like this.
    """
    try:
        tree = ast.parse((root / path).read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level in (0, len(path.parts)):
            names |= {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
    return names


def _copy(root: Path, paths: list[PurePosixPath], into: Path) -> Bundle:
    _check_size(root, paths)
    into.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=into))
    try:
        digest, size = _copy_hashing(root, paths, partial)
        return Bundle(digest, _settle(partial, into / digest), len(paths), size)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_hashing(root: Path, paths: list[PurePosixPath], target: Path) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    for path in paths:
        name = str(path).encode("utf-8", "surrogateescape")
        content = _read(root / path)
        size += len(content)
        for part in (name, content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        copy.chmod(0o755 if os.access(root / path, os.X_OK) else 0o644)
    return digest.hexdigest(), size


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            content = source.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InvalidFunction(f"cannot be read: {error.strerror}", where=str(file)) from error
    if len(content) > SIZE_LIMIT:
        raise InvalidFunction(f"larger than {SIZE_LIMIT >> 20} MiB", where=str(file))
    return content


def _settle(partial: Path, final: Path) -> Path:
    """Give a finished copy its name. Whoever comes second finds the same content there and leaves it."""
    partial.chmod(0o755)
    try:
        partial.rename(final)
    except OSError:
        if not final.is_dir():
            raise
    return final


def _check_size(root: Path, paths: list[PurePosixPath]) -> None:
    sizes: Counter[str] = Counter()
    for path in paths:
        sizes[path.parts[0]] += (root / path).stat().st_size
    total = sum(sizes.values())
    if len(paths) <= FILE_LIMIT and total <= SIZE_LIMIT:
        return
    largest = ", ".join(f"{name} ({size >> 20} MiB)" for name, size in sizes.most_common(3))
    raise InvalidFunction(
        f"{len(paths)} files with {total >> 20} MiB are too large for a function: "
        f"the limits are {FILE_LIMIT} files and {SIZE_LIMIT >> 20} MiB",
        where=str(root),
        hint=f"Move what is no source out of the directory. The largest: {largest}.",
    )

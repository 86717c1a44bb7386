"""Manifests from files, directories and standard input, read whole before anything is done with them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from upwell.functions.documents import SIZE_LIMIT
from upwell.functions.errors import InvalidInput, InvalidManifest
from upwell.functions.manifest import Manifest, load_manifests
from upwell.runtime.api.shapes import FieldFault
from upwell.runtime.cli.named import DEFAULT_NAMESPACE
from upwell.runtime.cluster.kinds import NAMESPACE, type_of

BYTES_LIMIT: Final = 4 * SIZE_LIMIT
"""No character has more bytes: what is longer need not be read to its end, which may never come."""
SUFFIXES: Final = (".yaml", ".yml", ".json")


def read_manifests(files: Sequence[str], *, recursive: bool, namespace: str | None) -> list[Manifest]:
    """The objects in all `files`, each a file, a directory or `-`, in their order, each with its namespace set.

    Raises InvalidManifest for the first that is none, or that names another namespace than `namespace`.
    """
    found = [
        each
        for path in files
        for source in _sources(path, recursive)
        for each in load_manifests(_text(source), str(source) if source else "standard input")
    ]
    if not found:
        raise InvalidInput("no objects in it", where=", ".join(files))
    for manifest in found:
        _set_namespace(manifest, namespace)
    return found


def _sources(path: str, recursive: bool) -> Iterable[Path | None]:
    """The files that a path stands for; None for standard input."""
    if path == "-":
        return [None]
    source = Path(path)
    if not source.is_dir():
        return [source]
    entries = source.rglob("*") if recursive else source.iterdir()
    found = sorted(each for each in entries if each.suffix in SUFFIXES and each.is_file())
    if not found:
        hint = "" if recursive else "With -R its subdirectories are read too."
        raise InvalidInput(f"no {', '.join(SUFFIXES)} file in the directory", where=path, hint=hint)
    return found


def _text(source: Path | None) -> str:
    where = "standard input" if source is None else str(source)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if source is None else source.open("rb") as file:
            data = file.read(BYTES_LIMIT + 1)
        if len(data) > BYTES_LIMIT:
            raise InvalidManifest(f"larger than {SIZE_LIMIT >> 20} MiB", where=where, hint="Split the file.")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=where) from error
    except UnicodeDecodeError as error:
        raise InvalidManifest("not UTF-8 text", where=where) from error


def _set_namespace(manifest: Manifest, namespace: str | None) -> None:
    metadata: dict[str, Any] = manifest.data["metadata"]
    if _has_none(manifest.data):
        return
    given = metadata.get("namespace") or None
    if namespace is not None and given not in (None, namespace):
        raise InvalidManifest(
            f"is {given!r}, while --namespace says {namespace!r}", where=manifest.where(("metadata", "namespace"))
        )
    metadata["namespace"] = given or namespace or DEFAULT_NAMESPACE


def _has_none(data: dict[str, Any]) -> bool:
    return data.get("apiVersion") == "v1" and type_of(data) == NAMESPACE


def fault_lines(manifests: Sequence[Manifest], faults: Sequence[FieldFault]) -> list[str]:
    """Each fault as `file:line: field: message`, in the order of the lines."""
    ordered = sorted(faults, key=lambda fault: (fault.index, manifests[fault.index].line(fault.path)))
    return [f"{manifests[fault.index].where(fault.path)}: {fault.message}" for fault in ordered]

"""Manifests: the objects in a YAML file, each knowing the line of every field, so that errors can name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from upwell.functions.api.meta import faults, field_path
from upwell.functions.documents import Document, Path, read_documents
from upwell.functions.errors import InvalidManifest

Resource = TypeVar("Resource", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as it was written: `data` holds JSON values only; `lines` count from 1."""

    data: dict[str, Any]
    source: str
    lines: dict[Path, int] = field(repr=False)

    @property
    def api_version(self) -> str:
        """As `serving.knative.dev/v1`."""
        return str(self.data["apiVersion"])

    @property
    def kind(self) -> str:
        """As `Service`."""
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        """The object's name; unique for its kind in its namespace."""
        return str(self.data["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The namespace that the manifest gives, or `default`."""
        return str(self.data["metadata"].get("namespace") or "default")

    def line(self, path: Path) -> int:
        """The line of a field, or of the nearest one around it when it is missing or came by an alias."""
        return next(self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines)

    def where(self, path: Path) -> str:
        """`file:line: field`, with the line as `line` has it."""
        place = f"{self.source}:{self.line(path)}"
        return f"{place}: {field_path(path)}" if path else place

    def parse(self, model: type[Resource], context: object = None) -> Resource:
        """The manifest as a resource; `context` is what the model's validation depends on, as `Defaults`.

        Raises InvalidManifest for the first field at fault, with the others in its hint.
        """
        try:
            return model.model_validate(self.data, context=context)
        except ValidationError as error:
            first, *others = sorted(faults(error), key=lambda fault: self.line(fault.path))
            hint = "\n  ".join(f"{self.where(fault.path)}: {fault.message}" for fault in others)
            raise InvalidManifest(first.message, where=self.where(first.path), hint=hint) from error


def load_manifests(text: str, source: str) -> list[Manifest]:
    """The objects in a YAML text of any number of documents, empty ones left out; `source` names it in errors. A
    `List`, as `kubectl get -o yaml` prints several objects, is what it holds.

    Raises InvalidManifest, with `file:line: field`, for what is no YAML, is too large, or is no object with
    apiVersion, kind and metadata.name.
    """
    documents = (each for each in read_documents(text, source) if each.value is not None)
    return [_manifest(each, source) for document in documents for each in _listed(document)]


def _listed(document: Document) -> Iterator[Document]:
    """The document, or the items of the List that it is, each with its lines in the file."""
    value = document.value
    if not isinstance(value, dict) or value.get("kind") != "List" or not isinstance(value.get("items"), list):
        yield document
        return
    lines: list[dict[Path, int]] = [{} for _ in value["items"]]
    for path, line in document.lines.items():
        if len(path) > 1 and path[0] == "items" and isinstance(path[1], int):
            lines[path[1]][path[2:]] = line
    for item, known in zip(value["items"], lines, strict=True):
        # What came by an alias has no lines of its own.
        yield Document(item, {(): document.lines[()], **known})


def _manifest(document: Document, source: str) -> Manifest:
    if not isinstance(document.value, dict):
        raise InvalidManifest("not an object, which is a mapping", where=f"{source}:{document.lines[()]}")
    manifest = Manifest(document.value, source, document.lines)
    for path in (("apiVersion",), ("kind",), ("metadata",), ("metadata", "name")):
        _require(manifest, path)
    return manifest


def _require(manifest: Manifest, path: tuple[str, ...]) -> None:
    value: Any = manifest.data
    for part in path:
        value = value.get(part)
    expected, called = (dict, "mapping") if path == ("metadata",) else (str, "string")
    if value is None or value == "":
        raise InvalidManifest("required, but missing", where=manifest.where(path))
    if not isinstance(value, expected):
        raise InvalidManifest(f"must be a {called}", where=manifest.where(path))

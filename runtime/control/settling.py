"""A declared object beside the one that is stored: what is to be written, and whether that changes anything.

What runs an image is part of a template, as an annotation; it is kept for as long as the image is the same, and
for a revision with a given name it may be said once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from upwell.functions.api.meta import Fault
from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.kinds import type_of
from upwell.runtime.cluster.labels import ROUTES_ANNOTATION
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION, SourceReference, read_reference
from upwell.runtime.control.admitted import SET_BY_PLATFORM, WITH_TEMPLATE, Action, Admitted, Declared, Refused
from upwell.runtime.control.configuration import CREATOR_ANNOTATION, MODIFIER_ANNOTATION

NOTED_ANNOTATIONS: Final = (CREATOR_ANNOTATION, MODIFIER_ANNOTATION, ROUTES_ANNOTATION)
"""Kept when a manifest is applied that does not say them."""


def settle(declared: Declared, existing: Manifest | None, source: str | None, *, index: int = 0) -> Admitted:
    """What is to be stored in the place of `existing`.

    `source` is the annotation that says what runs a template's image now; None keeps the one that the manifest, or
    the stored object with the same image, has. Raises Refused with `index` for a template that changes while the
    name given to its revision stays.
    """
    manifest = declared.manifest
    has_template = type_of(manifest) in WITH_TEMPLATE
    if has_template:
        _set_source(manifest, existing, source)
    if existing is None:
        return Admitted(manifest, "created", declared.warnings)
    if has_template:
        _check_revision_name(manifest, existing, index)
    _keep_annotations(manifest, existing)
    action: Action = "unchanged" if _declares(manifest) == _declares(existing) else "configured"
    kept = existing["metadata"]
    held = {name: kept[name] for name in (*SET_BY_PLATFORM, "finalizers", "ownerReferences") if name in kept}
    merged = {**held, **manifest["metadata"]}
    # Written over whatever the platform noted meanwhile: a manifest names no version that it was made from.
    merged.pop("resourceVersion", None)
    status = {"status": existing["status"]} if "status" in existing else {}
    return Admitted({**manifest, "metadata": merged, **status}, action, declared.warnings)


def _keep_annotations(manifest: Manifest, existing: Manifest) -> None:
    """Keep what was noted on the object by others than who applies it."""
    noted = existing["metadata"].get("annotations") or {}
    kept = {key: noted[key] for key in NOTED_ANNOTATIONS if key in noted}
    if kept:
        metadata = manifest["metadata"]
        metadata["annotations"] = {**kept, **(metadata.get("annotations") or {})}


def _declares(manifest: Manifest) -> tuple[object, ...]:
    metadata = manifest["metadata"]
    fields = tuple(manifest.get(name) or {} for name in ("spec", "data", "binaryData", "immutable"))
    return (*fields, metadata.get("labels") or {}, metadata.get("annotations") or {})


def _set_source(manifest: Manifest, existing: Manifest | None, source: str | None) -> None:
    template = manifest["spec"]["template"]
    annotations = template.get("metadata", {}).get("annotations", {})
    kept = _kept_source(manifest, existing)
    if source is None:
        source = annotations.get(SOURCE_ANNOTATION) or kept
    if source is not None:
        # The same source from another place is the same, and the place that tracebacks name stays.
        source = kept if kept is not None and _is_same(kept, source) else source
        metadata = template.get("metadata", {})
        template["metadata"] = {**metadata, "annotations": {**annotations, SOURCE_ANNOTATION: source}}


def _is_same(one: str, other: str) -> bool:
    """Whether two annotations say that the same runs, wherever it was found."""
    try:
        references = [read_reference({SOURCE_ANNOTATION: each}, "") for each in (one, other)]
    except InvalidFunction:
        return False
    placeless = [replace(each, origin=None) if isinstance(each, SourceReference) else each for each in references]
    return placeless[0] == placeless[1]


def _kept_source(manifest: Manifest, existing: Manifest | None) -> str | None:
    if existing is None:
        return None
    before, after = existing["spec"]["template"], manifest["spec"]["template"]
    if before["spec"]["containers"][0]["image"] != after["spec"]["containers"][0]["image"]:
        return None
    kept: str | None = before.get("metadata", {}).get("annotations", {}).get(SOURCE_ANNOTATION)
    return kept


def _check_revision_name(manifest: Manifest, existing: Manifest, index: int) -> None:
    """A revision never changes: a given name stands for one template. One that nothing could run may get its
    source, since it has never answered."""
    before, after = existing["spec"]["template"], manifest["spec"]["template"]
    name = after.get("metadata", {}).get("name")
    if name is None or before.get("metadata", {}).get("name") != name:
        return
    if before == after or before == without_source(after):
        return
    what = "its source" if without_source(before) == without_source(after) else "the template"
    message = f"{what} changed, but not the revision's name {name!r}: give it another, or none"
    raise Refused(index, [Fault(("spec", "template", "metadata", "name"), message)])


def without_source(template: Manifest) -> Manifest:
    """A template as it is without the annotation that says what runs it."""
    metadata = dict(template.get("metadata", {}))
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k != SOURCE_ANNOTATION}
    metadata["annotations"] = annotations
    if not annotations:
        del metadata["annotations"]
    rest = {name: value for name, value in template.items() if name != "metadata"}
    return {**rest, "metadata": metadata} if metadata else rest

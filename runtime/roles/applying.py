"""Applies batches of manifests to a store: all admitted, then all sources kept, then all written, or nothing.

One batch at a time. What an image is mapped to is bundled before anything is written, in a thread, so that neither
a restart nor an edited file changes a revision, and requests are served meanwhile.
"""

from __future__ import annotations

import asyncio
import difflib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from upwell.functions.api.meta import Fault
from upwell.functions.errors import InvalidSettings, NotFound, Unavailable
from upwell.functions.funcpython import FUNCTION_FILE
from upwell.functions.project import bundle, locate
from upwell.runtime.cluster.interface import Manifest, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import CONFIG_MAP, NAMESPACE
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION, CommandReference, SourceReference
from upwell.runtime.control.admission import TAKEN_KINDS, AdmissionContext, key_of, validate
from upwell.runtime.control.admitted import Action, Admitted, Declared, Refused
from upwell.runtime.control.config import ConfigLayers, platform_config
from upwell.runtime.control.configmaps import config_data, stored_config_maps
from upwell.runtime.control.images import (
    Mapped,
    PathMapping,
    find_mapping,
    parse_mapping,
    unmapped_message,
)
from upwell.runtime.control.settling import settle


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one manifest."""

    key: ObjectKey
    action: Action
    warnings: tuple[str, ...]
    manifest: Manifest
    """The object as it is stored now, or would be."""


class Applier:
    """Writes what is declared into `objects`; sources go to `bundles`; `images` are mapped for every batch."""

    def __init__(
        self, objects: ObjectStore, bundles: Path, layers: ConfigLayers, images: Mapping[str, Mapped]
    ) -> None:
        self._objects = objects
        self._bundles = bundles
        self._layers = layers
        self._images = images
        self._one_at_a_time = asyncio.Lock()

    async def apply(
        self, manifests: Sequence[object], images: Mapping[str, str], *, dry_run: bool
    ) -> list[Applied]:
        """See `Platform.apply`."""
        commanded = {name: parse_mapping(text, f"--image {name}") for name, text in images.items()}
        async with self._one_at_a_time:
            declared = await self._validate(manifests)
            mapped = self._map(list(declared.values()), commanded)
            if dry_run:
                with tempfile.TemporaryDirectory(prefix="upwell-dry-") as elsewhere:
                    admitted = await self._settle(declared, await _sources(mapped, Path(elsewhere)))
            else:
                settled = await self._settle(declared, await _sources(mapped, self._bundles))
                admitted = await self._write(settled)
        return [Applied(key, each.action, each.warnings, each.manifest) for key, each in admitted.items()]

    async def delete(self, key: ObjectKey) -> None:
        """See `Platform.delete`."""
        async with self._one_at_a_time:
            if await self._objects.get(key) is None:
                raise NotFound(f"{key} does not exist", where=str(key))
            if key.kind == NAMESPACE:
                for kind in TAKEN_KINDS:
                    for manifest in await self._objects.list(kind, key.name):
                        await self._objects.delete(ObjectKey.of(manifest))
            await self._objects.delete(key)

    async def _validate(self, manifests: Sequence[object]) -> dict[ObjectKey, Declared]:
        """Each manifest as an object. A ConfigMap counts for those that follow it, as with `kubectl apply`."""
        maps = await stored_config_maps(self._objects)
        context = self._context(maps)
        found: dict[ObjectKey, Declared] = {}
        for index, manifest in enumerate(manifests):
            key = key_of(manifest, index=index)
            if key in found:
                raise Refused(index, [Fault(("metadata", "name"), f"{key} stands twice in what is applied")])
            declared = found[key] = validate(manifest, context, index=index)
            if key.kind == CONFIG_MAP:
                maps[key.name] = config_data(declared.manifest)
                context = self._context(maps)
            await asyncio.sleep(0)  # a large batch leaves room for requests
        return found

    def _context(self, maps: Mapping[str, Mapping[str, str]]) -> AdmissionContext:
        config = platform_config(maps, self._layers)
        return AdmissionContext(config.defaults, config.autoscaler, self._layers)

    def _map(self, declared: Sequence[Declared], commanded: Mapping[str, Mapped]) -> dict[str, Mapped]:
        """What each image of the batch is mapped to. Raises InvalidSettings for a mapping that none has."""
        images = {each.image for each in declared if each.image is not None}
        found = {image: find_mapping(image, commanded, self._images) for image in images}
        used = {mapping[0] for mapping in found.values() if mapping is not None}
        for name in commanded:
            if name not in used:
                alike = difflib.get_close_matches(name, images, n=1, cutoff=0.4) or sorted(images)[:3]
                hint = f"The images there are: {', '.join(alike)}." if alike else "No manifest has an image."
                raise InvalidSettings(f"no manifest has the image {name}", where="--image", hint=hint)
        return {image: mapping[1] for image, mapping in found.items() if mapping is not None}

    async def _settle(
        self, declared: Mapping[ObjectKey, Declared], sources: Mapping[str, _Source]
    ) -> dict[ObjectKey, Admitted]:
        admitted = {}
        for index, (key, each) in enumerate(declared.items()):
            source = sources.get(each.image) if each.image is not None else None
            annotation = source.annotation if source is not None else None
            settled = settle(each, await self._objects.get(key), annotation, index=index)
            admitted[key] = _with_warnings(settled, each.image, source)
            await asyncio.sleep(0)
        return admitted

    async def _write(self, admitted: Mapping[ObjectKey, Admitted]) -> dict[ObjectKey, Admitted]:
        changed = {key: each for key, each in admitted.items() if each.action != "unchanged"}
        stored = await self._objects.apply_all([each.manifest for each in changed.values()])
        written = {
            key: Admitted(manifest, each.action, each.warnings)
            for (key, each), manifest in zip(changed.items(), stored, strict=True)
        }
        return {key: written.get(key, each) for key, each in admitted.items()}


def _with_warnings(admitted: Admitted, image: str | None, source: _Source | None) -> Admitted:
    if image is None:
        return admitted
    template = admitted.manifest["spec"]["template"]
    warnings = []
    if SOURCE_ANNOTATION not in template.get("metadata", {}).get("annotations", {}):
        warnings.append(unmapped_message(image))
    if source is not None:
        given = {each["name"] for each in template["spec"]["containers"][0].get("env") or ()}
        warnings += [
            f"{FUNCTION_FILE} takes {name} from {origin}, which is not here: the function runs without it"
            for name, origin in source.unset
            if name not in given
        ]
    return Admitted(admitted.manifest, admitted.action, (*admitted.warnings, *warnings))


@dataclass(frozen=True, slots=True)
class _Source:
    """What was kept for an image: the annotation that says so, and the variables that its `func.yaml` could not
    give a value, in pairs of name and origin."""

    annotation: str
    unset: tuple[tuple[str, str], ...] = ()


async def _sources(mapped: Mapping[str, Mapped], bundles: Path) -> dict[str, _Source]:
    """What runs each image; what two images are mapped to is kept once."""
    kept: dict[Mapped, _Source] = {}
    for mapping in mapped.values():
        if mapping not in kept:
            kept[mapping] = await asyncio.to_thread(_keep, mapping, bundles)
    return {image: kept[mapping] for image, mapping in mapped.items()}


def _keep(mapping: Mapped, bundles: Path) -> _Source:
    if not isinstance(mapping, PathMapping):
        return _Source(CommandReference(mapping.command, mapping.directory).annotation())
    project = locate(mapping.path)
    try:
        kept = bundle(project, bundles)
    except OSError as error:
        what = f"the source cannot be kept: {error.strerror or error}"
        raise Unavailable(what, where=mapping.path, hint=f"It is copied to {bundles}.") from error
    root, environment = str(project.root), project.environment
    reference = SourceReference(kept.digest, project.module, project.attribute, root, environment)
    return _Source(reference.annotation(), project.unset)

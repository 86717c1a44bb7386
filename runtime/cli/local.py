"""What `upwell run` serves: Services, and the local source that their images stand for.

A `LocalSource` is read anew each time that it is applied, so that what is saved is what is applied; a
`LocalDeployment` applies it to a platform of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from upwell.functions.errors import InvalidManifest, InvalidSettings
from upwell.functions.manifest import Manifest as WrittenManifest
from upwell.functions.project import locate
from upwell.runtime.cli.files import SUFFIXES, read_manifests
from upwell.runtime.cli.functions import function_image, function_service, source_path
from upwell.runtime.cli.reload import Applied
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import REVISION, SERVICE
from upwell.runtime.cluster.labels import GENERATION_LABEL, SERVICE_LABEL
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION, SourceReference, read_reference
from upwell.runtime.control.admission import Refused
from upwell.runtime.roles.up import Platform

READY_SECONDS: Final = 120.0
KEPT_REVISIONS: Final = 2
"""Of each Service that is applied again and again: the one that serves, and the one before, whose requests may
still be under way."""


class LocalSource(Protocol):
    """What is to be served."""

    @property
    def name(self) -> str:
        """As a person calls it."""
        ...

    @property
    def images(self) -> Mapping[str, str]:
        """What each image stands for."""
        ...

    @property
    def directories(self) -> frozenset[Path]:
        """Those that hold it, besides the directories of the images' sources."""
        ...

    def manifests(self) -> list[Manifest]:
        """Read now. Raises InvalidManifest."""
        ...

    def place(self, refused: Refused) -> InvalidManifest | Refused:
        """`refused`, told by where the field stands in what was read last."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionFile:
    """A function, given as `PATH[:callable]`."""

    name: str
    path: str
    """Absolute."""
    environment: Mapping[str, str]

    @property
    def images(self) -> Mapping[str, str]:
        return {function_image(self.name): self.path}

    @property
    def directories(self) -> frozenset[Path]:
        return frozenset()

    def manifests(self) -> list[Manifest]:
        return [function_service(self.name, self.environment)]

    def place(self, refused: Refused) -> InvalidManifest | Refused:
        return refused


@dataclass(slots=True)
class ManifestFile:
    """A file of manifests, and what their images stand for."""

    file: Path
    images: Mapping[str, str]
    _read: list[WrittenManifest] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def directories(self) -> frozenset[Path]:
        return frozenset({self.file.absolute().parent})

    def manifests(self) -> list[Manifest]:
        self._read = read_manifests([str(self.file)], recursive=False, namespace=None)
        return [written.data for written in self._read]

    def place(self, refused: Refused) -> InvalidManifest | Refused:
        written = self._read[refused.index]
        first, *others = refused.faults
        hint = "\n  ".join(f"{written.where(fault.path)}: {fault.message}" for fault in others)
        return InvalidManifest(first.message, where=written.where(first.path), hint=hint)


def local_source(path: str, environment: Mapping[str, str], images: Mapping[str, str]) -> LocalSource:
    """What `path` names: a manifest by its suffix, else a function. Raises InvalidInput."""
    if path.endswith(SUFFIXES):
        if environment:
            raise InvalidSettings("a manifest says its variables itself", where="--env", hint="Use `env` there.")
        return ManifestFile(Path(path), images)
    if images:
        raise InvalidSettings("a function stands for no image", where="--image", hint="Give a manifest.")
    project = locate(path)
    return FunctionFile(project.name, source_path(project), environment)


class LocalDeployment:
    """Applies a source to a platform, again and again. `warn` is told of what is doubtful in it, once of each."""

    def __init__(
        self, platform: Platform, source: LocalSource, bundles: Path, warn: Callable[[str], None]
    ) -> None:
        self._platform = platform
        self._source = source
        self._bundles = bundles
        self._warn = warn
        self._warned: set[str] = set()
        self._services: list[ObjectKey] = []

    async def apply(self) -> Applied:
        """Apply what the source holds now. Raises UpwellError; then nothing is applied."""
        manifests = self._source.manifests()
        try:
            applied = await self._platform.apply(manifests, images=self._source.images)
        except Refused as refused:
            raise self._source.place(refused) from refused
        for warning in (warning for each in applied for warning in each.warnings):
            if warning not in self._warned:
                self._warned.add(warning)
                self._warn(warning)
        services = [each for each in applied if each.key.kind == SERVICE]
        self._services = [each.key for each in services]
        directories = {path for each in services for path in self._directories(each.manifest)}
        return Applied(
            frozenset(directories) | self._source.directories,
            any(each.action != "unchanged" for each in applied),
            self._serving,
        )

    async def urls(self) -> list[str]:
        """Where the Services answer, once they do."""
        found = [await self._platform.objects.get(key) for key in self._services]
        return [service["status"]["url"] for service in found if service is not None]

    def _directories(self, service: Manifest) -> set[Path]:
        """Where the source stood that runs a Service: each directory of which the bundle holds a file."""
        annotations = service["spec"]["template"].get("metadata", {}).get("annotations", {})
        if SOURCE_ANNOTATION not in annotations:
            return set()
        reference = read_reference(annotations, service["metadata"]["name"])
        if not isinstance(reference, SourceReference) or reference.origin is None:
            return set()
        kept, origin = self._bundles / reference.bundle, Path(reference.origin)
        return {origin} | {origin / path.relative_to(kept).parent for path in kept.rglob("*") if path.is_file()}

    async def _serving(self) -> str:
        """Wait for all Services; the names of the revisions that serve."""
        serving = []
        for key in self._services:
            service = await self._platform.wait_ready(key, READY_SECONDS)
            revision = service["status"]["latestReadyRevisionName"]
            serving.append(f"{key.namespace}/{revision}")
            await self._forget_revisions(key, revision)
        return ", ".join(serving)

    async def _forget_revisions(self, service: ObjectKey, serving: str) -> None:
        labels = {SERVICE_LABEL: service.name}
        found = await self._platform.objects.list(REVISION, service.namespace, labels=labels)
        found.sort(key=lambda revision: int(revision["metadata"]["labels"][GENERATION_LABEL]))
        for revision in found[:-KEPT_REVISIONS]:
            if revision["metadata"]["name"] != serving:
                await self._platform.objects.delete(ObjectKey.of(revision))

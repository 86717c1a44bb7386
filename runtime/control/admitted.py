"""What admission ends in: a complete manifest, an object to store, or a refusal with the fields at fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from upwell.functions.api.meta import Fault
from upwell.functions.errors import InvalidInput
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.kinds import CONFIGURATION, SERVICE, type_of

SET_BY_PLATFORM: Final = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)
"""Of an object's metadata: what its store says and no manifest."""

WITH_TEMPLATE: Final = (SERVICE, CONFIGURATION)
"""The kinds that revisions are made from."""

Action = Literal["created", "configured", "unchanged"]


class Refused(InvalidInput):
    """A manifest that the platform does not take. `faults` are in the order in which they were found."""

    def __init__(self, index: int, found: Iterable[Fault]) -> None:
        first, *others = found
        hint = "\n  ".join(f"{fault.field}: {fault.message}" for fault in others)
        super().__init__(first.message, where=first.field, hint=hint)
        self.index = index
        """Which manifest of the batch."""
        self.faults = (first, *others)


@dataclass(frozen=True, slots=True)
class Declared:
    """A manifest that may be stored: complete, and rid of what is the platform's to say."""

    manifest: Manifest
    warnings: tuple[str, ...]

    @property
    def image(self) -> str | None:
        """The image of a Service or Configuration."""
        if type_of(self.manifest) not in WITH_TEMPLATE:
            return None
        return str(self.manifest["spec"]["template"]["spec"]["containers"][0]["image"])


@dataclass(frozen=True, slots=True)
class Admitted:
    """An object as it is to be stored, and what that does."""

    manifest: Manifest
    action: Action
    warnings: tuple[str, ...]

"""What a plan consists of: writes of objects, each with its reason."""

from __future__ import annotations

import enum
from typing import NamedTuple

from upwell.runtime.cluster.interface import Manifest


class Verb(enum.Enum):
    """What to do with an object."""

    CREATE = "create"
    UPDATE = "update"
    STATUS = "status"
    DELETE = "delete"


class Write(NamedTuple):
    """One write, and why."""

    verb: Verb
    manifest: Manifest
    reason: str

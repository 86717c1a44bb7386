"""What a run is to do: the load, and the classes of requests that it is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from upwell.functions.errors import InvalidSettings
from upwell.runtime.load.dial import Place
from upwell.runtime.load.parts import Field, read_field
from upwell.runtime.load.requests import Outline

EVERYTHING: Final = "all"
"""The class of a run without classes, and the name of all of them together."""
_SHARE: Final = re.compile(r"(.+\S):(\d+(?:\.\d+)?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LoadClass:
    """Requests that are alike, and reported apart."""

    name: str
    outline: Outline
    share: float = 1.0
    """Of the rate, the connections and the count, in proportion to those of the other classes."""


@dataclass(frozen=True, slots=True)
class Load:
    """A run. Without `rate` it is a closed loop, which ends by `count` or `seconds`, or when it is interrupted."""

    place: Place
    url: str
    classes: tuple[LoadClass, ...]
    connections: int
    rate: float | None = None
    """Requests a second in an open loop."""
    is_poisson: bool = False
    seed: int = 0
    seconds: float | None = None
    count: int | None = None
    """So many requests are sent, however long that takes."""
    timeout: float = 15.0
    """Seconds for a connection, and for each answer from the moment its request was sent."""
    keep_alive: bool = True


def read_class(text: str) -> tuple[str, Field, float]:
    """`NAME:HEADER: VALUE[:SHARE]`; a number behind the last colon, with no space before it, is a share.

    Raises InvalidSettings.
    """
    name, colon, rest = text.partition(":")
    if not colon or not name or name == EVERYTHING:
        hint = "Write it as guest:'user_type: guest', with :SHARE behind it if you like."
        raise InvalidSettings(f"{text!r} is no class", where="--class", hint=hint)
    shared = _SHARE.fullmatch(rest)
    if shared is not None and ":" in shared[1]:
        share = float(shared[2])
        if share <= 0:
            raise InvalidSettings(f"a class without a share sends nothing: {text!r}", where="--class")
        return name, read_field(shared[1], "--class"), share
    return name, read_field(rest, "--class"), 1.0

"""`$(NAME)` in commands, arguments and variables, as Kubernetes expands it.

A reference to a variable that is not set stays as it is written, and `$$` is a dollar sign, so that `$$(NAME)`
comes out as `$(NAME)`. Shell syntax such as `$NAME` means nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with every reference to one of `variables` replaced."""

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        return "$" if name is None else variables.get(name, found[0])

    return _REFERENCE.sub(replaced, text)


def expand_in_order(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Variables by name; each may refer to those that stand before it. Of two with one name the later holds."""
    variables: dict[str, str] = {}
    for name, value in pairs:
        variables[name] = expand(value, variables)
    return variables

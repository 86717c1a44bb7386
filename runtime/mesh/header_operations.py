"""Operations on header fields: removed first, then set, then added to, as Envoy does whatever their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from upwell.functions.api.http_routes import HeaderOperations, HeaderRules
from upwell.functions.api.http_values import AUTHORITY_NAMES
from upwell.runtime.http.messages import Headers


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """One step: the operations that stand at one place of a rule."""

    remove: frozenset[bytes] = frozenset()
    """Names that go, of fields that are set too."""
    put: tuple[tuple[bytes, bytes], ...] = ()
    """What comes, of `set` before `add`."""

    def apply(self, headers: Headers) -> Headers:
        """The fields afterwards; `headers` itself stays as it is."""
        gone = self.remove
        kept = [field for field in headers if field[0] not in gone] if gone else list(headers)
        kept.extend(self.put)
        return kept


NO_CHANGES: Final[tuple[HeaderChange, ...]] = ()


def header_change(operations: HeaderOperations | None) -> tuple[HeaderChange, ...]:
    """The operations of one place, none or one change; the Host header is not among them (see `rewrite`)."""
    if operations is None:
        return NO_CHANGES
    put: dict[str, list[tuple[bytes, bytes]]] = {"set": [], "add": []}
    for operation, name, value in operations.values():
        if name.lower() not in AUTHORITY_NAMES:
            put[operation].append((name.lower().encode("latin-1"), value.encode("latin-1")))
    removed = {name.lower().encode("latin-1") for name in operations.remove or []}
    removed.update(name for name, _ in put["set"])
    if not removed and not put["add"]:
        return NO_CHANGES
    return (HeaderChange(frozenset(removed), (*put["set"], *put["add"])),)


def request_change(rules: HeaderRules | None) -> tuple[HeaderChange, ...]:
    """Those of `headers.request`."""
    return header_change(rules.request if rules is not None else None)


def response_change(rules: HeaderRules | None) -> tuple[HeaderChange, ...]:
    """Those of `headers.response`."""
    return header_change(rules.response if rules is not None else None)


def apply_all(changes: tuple[HeaderChange, ...], headers: Headers) -> Headers:
    """The fields after each step in its turn."""
    for change in changes:
        headers = change.apply(headers)
    return headers

"""Objects as they change, over a platform that may be restarted meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from upwell.functions.errors import Unavailable
from upwell.runtime.api.client import Client
from upwell.runtime.clock import Clock

RESUME_SECONDS: Final = 15.0
"""A platform that is started again drains the old one's requests first."""
RETRY_SECONDS: Final = 0.2


Key = tuple[str, str]


class Change(NamedTuple):
    """An object as it is now, or None once it is gone."""

    namespace: str
    name: str
    manifest: dict[str, Any] | None


def follow(
    client: Client, kind: str, namespace: str | None, name: str | None, clock: Clock
) -> Iterator[list[Change]]:
    """First what there is, all at once, then each change; what was told is not told again after a restart.

    Raises Unavailable when no platform runs, or none runs again within RESUME_SECONDS.
    """
    told: dict[Key, str] = {}
    begun = False
    while True:
        for changes in _changes(client.watch(kind, namespace, name), told):
            if changes or not begun:
                yield changes
            begun = True
        _wait_for_platform(client, clock)


def _changes(lines: Iterator[dict[str, Any]], told: dict[Key, str]) -> Iterator[list[Change]]:
    """The changes that the lines of one watch tell beyond `told`, which is kept up to date."""
    first: list[Change] | None = []
    missing = set(told)
    for line in lines:
        if "synced" in line:
            yield [*(first or ()), *(_gone(key, told) for key in sorted(missing))]
            first = None
            continue
        key = _key(line)
        missing.discard(key)
        changes = _read(line, key, told)
        if first is None:
            yield changes
        else:
            first += changes


def _key(line: dict[str, Any]) -> Key:
    named = line["deleted"] if "deleted" in line else line["object"]["metadata"]
    return named.get("namespace", ""), named["name"]


def _read(line: dict[str, Any], key: Key, told: dict[Key, str]) -> list[Change]:
    if "deleted" in line:
        return [_gone(key, told)]
    manifest = line["object"]
    version = manifest["metadata"]["resourceVersion"]
    if told.get(key) == version:
        return []
    told[key] = version
    return [Change(*key, manifest)]


def _gone(key: Key, told: dict[Key, str]) -> Change:
    told.pop(key, None)
    return Change(*key, None)


def _wait_for_platform(client: Client, clock: Clock) -> None:
    deadline = clock.monotonic() + RESUME_SECONDS
    while True:
        time.sleep(RETRY_SECONDS)
        try:
            client.platform()
            return
        except Unavailable:
            if clock.monotonic() >= deadline:
                raise

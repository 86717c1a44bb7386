"""Follows the platform's ConfigMaps, so that a change of them takes effect at once and without a restart."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping

from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import CONFIG_MAP
from upwell.runtime.control.config import (
    CONFIG_MAPS,
    CONFIG_NAMESPACE,
    ConfigLayers,
    PlatformConfig,
    platform_config,
)


async def stored_config_maps(objects: ObjectStore) -> dict[str, dict[str, str]]:
    """The data of each of the platform's ConfigMaps that is stored, by name."""
    keys = [ObjectKey(CONFIG_MAP, CONFIG_NAMESPACE, name) for name in CONFIG_MAPS]
    found = [(key.name, await objects.get(key)) for key in keys]
    return {name: config_data(manifest) for name, manifest in found if manifest is not None}


def config_data(manifest: Manifest) -> dict[str, str]:
    """The keys of a ConfigMap."""
    return dict(manifest.get("data") or {})


class ConfigMapFollower:
    """Calls `changed` with the platform's configuration whenever it is another than before, `config` at first."""

    def __init__(
        self,
        objects: ObjectStore,
        layers: ConfigLayers,
        config: PlatformConfig,
        changed: Callable[[PlatformConfig], Awaitable[None]],
    ) -> None:
        self._objects = objects
        self._layers = layers
        self._config = config
        self._changed = changed

    async def run(self) -> None:
        """Follow until cancelled."""
        maps: dict[str, Mapping[str, str]] = {}
        is_synced = False
        watched = self._objects.watch(CONFIG_MAP, namespace=CONFIG_NAMESPACE)
        async with contextlib.aclosing(watched) as changes:
            async for change in changes:
                if not isinstance(change, ObjectChange):
                    is_synced = True
                elif change.manifest is None:
                    maps.pop(change.key.name, None)
                elif change.key.name in CONFIG_MAPS:
                    maps[change.key.name] = config_data(change.manifest)
                if is_synced:
                    await self._apply(platform_config(maps, self._layers))

    async def _apply(self, config: PlatformConfig) -> None:
        if config != self._config:
            self._config = config
            await self._changed(config)

"""Kubernetes' own kinds, as far as the platform takes them: ConfigMap and Namespace."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import field_validator

from upwell.functions.api.meta import Dns1123, DottedObjectMeta, Model, ObjectMeta, invalid

_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class ConfigMap(Model):
    """Settings, as text by key."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    metadata: DottedObjectMeta
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None
    immutable: bool | None = None

    @field_validator("data", "binary_data")
    @classmethod
    def _check_keys(cls, data: dict[str, str] | None) -> dict[str, str] | None:
        for key in data or ():
            if not _CONFIG_KEY.fullmatch(key):
                raise invalid(f"{key!r} cannot be a key: it may hold letters, digits, '-', '_' and '.'", key)
        return data


class NamespaceMeta(ObjectMeta):
    """A namespace is in none; its name may begin with a digit."""

    name: Dns1123
    namespace: Literal[""] = ""


class Namespace(Model):
    """A name that objects share."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Namespace"] = "Namespace"
    metadata: NamespaceMeta
    spec: dict[str, Any] | None = None

"""What the platform's ConfigMaps come to: domains, hosts, the autoscaler's settings, defaults of Services, and
which revisions are kept.

Six of Knative's ConfigMaps count here, all in the namespace `knative-serving`. `config-autoscaler` lies between
what this platform presumes and what its flags say. A ConfigMap is checked when it is applied; one that is stored
and unusable all the same, since another version stored it, counts as absent.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from upwell.autoscaler.quantities import parse_bool, parse_int32
from upwell.autoscaler.spec import AutoscalerConfig, UnusableKey
from upwell.functions.api.names import is_dns_1123_label
from upwell.functions.api.serving import Defaults
from upwell.runtime.control.config_keys import (
    FEATURE_KEYS,
    NETWORK_KEYS,
    RETENTION_KEYS,
    Table,
    feature_warnings,
    has_tag_header_routing,
    ignored,
    network_warnings,
    read_keys,
    read_network,
    read_retention,
)
from upwell.runtime.control.domains import EXAMPLE, Domains, read_domains
from upwell.runtime.control.gc import RetentionSettings
from upwell.runtime.control.kingress import IngressSettings

CONFIG_NAMESPACE: Final = "knative-serving"
DOMAIN: Final = "config-domain"
AUTOSCALER: Final = "config-autoscaler"
DEFAULTS: Final = "config-defaults"
FEATURES: Final = "config-features"
NETWORK: Final = "config-network"
RETENTION: Final = "config-gc"
CONFIG_MAPS: Final = (AUTOSCALER, DEFAULTS, DOMAIN, FEATURES, RETENTION, NETWORK)


@dataclass(frozen=True, slots=True)
class ConfigLayers:
    """What ConfigMaps stand between."""

    domains: tuple[str, ...] = ("localhost",)
    """Of the platform's settings: where Services answer without a `config-domain`."""
    below: Mapping[str, str] = field(default_factory=dict)
    """Keys of `config-autoscaler` that it may override."""
    above: Mapping[str, str] = field(default_factory=dict)
    """Keys of `config-autoscaler` that it may not."""

    def autoscaler(self, data: Mapping[str, str]) -> AutoscalerConfig:
        """The autoscaler's settings with `data` in between. Raises UnusableKey."""
        return AutoscalerConfig.from_config_map({**self.below, **data, **self.above})


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """The platform's settings that ConfigMaps decide."""

    ingress: IngressSettings
    """Under which hosts Routes answer, and how."""
    autoscaler: AutoscalerConfig
    defaults: Defaults
    retention: RetentionSettings
    """Which revisions are kept that nothing refers to."""

    @property
    def domains(self) -> Domains:
        """Where Services answer from outside."""
        return self.ingress.domains


class Findings(NamedTuple):
    """What is wrong in a ConfigMap, by key, and what is only odd."""

    faults: dict[str, str]
    warnings: list[str]


def platform_config(maps: Mapping[str, Mapping[str, str]], layers: ConfigLayers) -> PlatformConfig:
    """The settings of the ConfigMaps' data by name; one that is absent or unusable leaves the defaults.

    Raises UnusableKey when the flags above do not agree among themselves.
    """
    usable = {name: data for name, data in maps.items() if not check_config_map(name, data, layers).faults}
    domains = Domains((), layers.domains)
    if DOMAIN in usable:
        domains, _ = read_domains(usable[DOMAIN], layers.domains)
    defaults, _ = _read_defaults(usable.get(DEFAULTS, {}))
    ingress = IngressSettings(
        domains=domains,
        has_tag_header_routing=has_tag_header_routing(usable.get(FEATURES, {})),
        **read_network(usable.get(NETWORK, {})).values,
    )
    autoscaler = layers.autoscaler(usable.get(AUTOSCALER, {}))
    retention = RetentionSettings(**read_retention(usable.get(RETENTION, {})).values)
    return PlatformConfig(ingress, autoscaler, defaults, retention)


def check_config_map(name: str, data: Mapping[str, str], layers: ConfigLayers) -> Findings:
    """What is to be said of one of CONFIG_MAPS."""
    if name == DOMAIN:
        return Findings(read_domains(data, layers.domains)[1], [])
    if name == DEFAULTS:
        _, faults = _read_defaults(data)
        known = (*_DEFAULTS, *_WITHOUT_EFFECT)
        return Findings(faults, [*_unknown(data, known), *ignored(data, _WITHOUT_EFFECT)])
    if name == NETWORK:
        return Findings(read_network(data).faults, [*_unknown(data, NETWORK_KEYS), *network_warnings(data)])
    if name == FEATURES:
        return Findings({}, [*_unknown(data, FEATURE_KEYS), *feature_warnings(data)])
    if name == RETENTION:
        return Findings(read_retention(data).faults, _unknown(data, RETENTION_KEYS))
    return _check_autoscaler(data, layers)


def _check_autoscaler(data: Mapping[str, str], layers: ConfigLayers) -> Findings:
    known = [each.metadata["key"] for each in dataclasses.fields(AutoscalerConfig)]
    try:
        layers.autoscaler(data)
    except UnusableKey as error:
        return Findings({error.key: error.fault}, _unknown(data, known))
    return Findings({}, _unknown(data, known))


def _unknown(data: Mapping[str, str], known: Iterable[str]) -> list[str]:
    warnings = []
    for key in sorted(set(data) - {EXAMPLE, *known}):
        alike = difflib.get_close_matches(key, list(known), n=1)
        hint = f"; did you mean {alike[0]}?" if alike else ""
        warnings.append(f"data.{key}: not a key of this ConfigMap, so it sets nothing{hint}")
    return warnings


# config-defaults


def _container_name(text: str) -> str:
    if not is_dns_1123_label(text):
        raise ValueError("not a name of a container; templates are not filled in here")
    return text


_DEFAULTS: Final[Table] = {
    "revision-timeout-seconds": ("timeout_seconds", parse_int32),
    "max-revision-timeout-seconds": ("max_timeout_seconds", parse_int32),
    "revision-response-start-timeout-seconds": ("response_start_timeout_seconds", parse_int32),
    "revision-idle-timeout-seconds": ("idle_timeout_seconds", parse_int32),
    "container-concurrency": ("container_concurrency", parse_int32),
    "container-concurrency-max-limit": ("max_container_concurrency", parse_int32),
    "allow-container-concurrency-zero": ("allow_zero_concurrency", parse_bool),
    "container-name-template": ("container_name", _container_name),
    "enable-service-links": ("enable_service_links", lambda text: text.lower() == "true"),
}
_WITHOUT_EFFECT: Final = (
    "init-container-name-template",
    *(
        f"revision-{resource}-{bound}"
        for resource in ("cpu", "memory", "ephemeral-storage")
        for bound in ("request", "limit")
    ),
)


def _read_defaults(data: Mapping[str, str]) -> tuple[Defaults, dict[str, str]]:
    """The defaults that `config-defaults` sets and, by key, what is wrong in it."""
    values, faults = read_keys(data, _DEFAULTS)
    # As in Knative, the limit of the first byte follows the whole request's unless it is given itself.
    if "timeout_seconds" in values:
        values.setdefault("response_start_timeout_seconds", values["timeout_seconds"])
    defaults = Defaults(**values)
    return defaults, faults or dict(_contradictions(defaults))


def _contradictions(defaults: Defaults) -> Iterable[tuple[str, str]]:
    timeout, most = defaults.timeout_seconds, defaults.max_container_concurrency
    if not 0 < timeout <= defaults.max_timeout_seconds:
        limit = f"{defaults.max_timeout_seconds} (max-revision-timeout-seconds)"
        yield "revision-timeout-seconds", f"must be from 1 to {limit}, was {timeout}"
    for key, seconds in (
        ("revision-response-start-timeout-seconds", defaults.response_start_timeout_seconds),
        ("revision-idle-timeout-seconds", defaults.idle_timeout_seconds),
    ):
        if not 0 <= seconds <= timeout:
            yield key, f"must be from 0 to {timeout} (revision-timeout-seconds), was {seconds}"
    if most < 1:
        yield "container-concurrency-max-limit", f"must be at least 1, was {most}"
    if not 0 <= defaults.container_concurrency <= most:
        limit = f"{most} (container-concurrency-max-limit)"
        yield "container-concurrency", f"must be from 0 to {limit}, was {defaults.container_concurrency}"

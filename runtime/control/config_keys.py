"""The keys of `config-network`, `config-features` and `config-gc`: how they are read, and which do nothing here.

Each reader gives the values that a ConfigMap's data sets, by the name of the field that they are for, and, by key,
what is wrong in it. An older spelling of a key counts where the newer one is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from upwell.autoscaler.quantities import parse_int32, parse_seconds
from upwell.runtime.control.gc import RetentionSettings
from upwell.runtime.control.kingress import DOMAIN_VALUES, HTTP_OPTIONS, TAG_VALUES
from upwell.runtime.control.templates import Template, Values

Table = Mapping[str, tuple[str, Callable[[str], Any]]]
"""By key, the field that it sets and what reads its text; that raises ValueError."""


_HOST: Final = re.compile(r"[a-z0-9.-]+")


class Reading(NamedTuple):
    """What a ConfigMap sets, and what is wrong in it by key."""

    values: dict[str, Any]
    faults: dict[str, str]


def read_keys(data: Mapping[str, str], table: Table) -> Reading:
    """The values of the keys of `table` that are there."""
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for key, (name, parse) in table.items():
        if key in data:
            try:
                values[name] = parse(data[key])
            except ValueError as error:
                faults[key] = f"cannot be read: {error}, was {data[key][:64]!r}"
    return Reading(values, faults)


def ignored(data: Mapping[str, str], without_effect: Iterable[str]) -> list[str]:
    """What to say of the keys that are taken and do nothing."""
    return [f"data.{key}: kept, but does nothing on this machine" for key in without_effect if key in data]


# config-network


def _template(values: Values) -> Callable[[str], Template]:
    def read(text: str) -> Template:
        template = Template.read(text, values)
        host = template.render(values)
        # Labels and annotations may be anything later, and are nothing here.
        if not _HOST.fullmatch(host):
            raise ValueError(f"makes names such as {host[:64]!r}, which are none of DNS")
        return template

    return read


def _http_option(text: str) -> str:
    # Knative still takes the third and means the first by it.
    if text.lower() not in ("", *HTTP_OPTIONS, "disabled"):
        raise ValueError("not Enabled or Redirected")
    return HTTP_OPTIONS.get(text.lower(), "Enabled")


def _scheme(text: str) -> str:
    if text not in ("http", "https"):
        raise ValueError("not http or https")
    return text


def _not_negative(text: str) -> int:
    number = parse_int32(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


_domain_template: Final = _template(DOMAIN_VALUES)
_tag_template: Final = _template(TAG_VALUES)

_NETWORK: Final[Table] = {
    "ingress.class": ("ingress_class", str),
    "ingress-class": ("ingress_class", str),
    "domainTemplate": ("domain_template", _domain_template),
    "domain-template": ("domain_template", _domain_template),
    "tagTemplate": ("tag_template", _tag_template),
    "tag-template": ("tag_template", _tag_template),
    "httpProtocol": ("http_option", _http_option),
    "http-protocol": ("http_option", _http_option),
    "rolloutDuration": ("rollout_seconds", _not_negative),
    "rollout-duration": ("rollout_seconds", _not_negative),
    "defaultExternalScheme": ("external_scheme", _scheme),
    "default-external-scheme": ("external_scheme", _scheme),
}
_NETWORK_WITHOUT_EFFECT: Final = (
    "certificate.class",
    "certificate-class",
    "namespace-wildcard-cert-selector",
    "autoTLS",
    "auto-tls",
    "external-domain-tls",
    "cluster-local-domain-tls",
    "system-internal-tls",
    "internal-encryption",
    "autocreateClusterDomainClaims",
    "autocreate-cluster-domain-claims",
    "enable-mesh-pod-addressability",
    "mesh-compatibility-mode",
)
NETWORK_KEYS: Final = (*_NETWORK, *_NETWORK_WITHOUT_EFFECT)


def read_network(data: Mapping[str, str]) -> Reading:
    """The fields of IngressSettings that `config-network` sets."""
    return read_keys(data, _NETWORK)


def network_warnings(data: Mapping[str, str]) -> list[str]:
    """What of `config-network` does nothing here."""
    return ignored(data, _NETWORK_WITHOUT_EFFECT)


# config-features

TAG_HEADER_ROUTING: Final = "tag-header-based-routing"
_FLAGS: Final = ("enabled", "allowed", "disabled")
_FEATURES_WITHOUT_EFFECT: Final = (
    "autodetect-http2",
    "init-containers",
    "kubernetes.containerspec-addcapabilities",
    "kubernetes.podspec-affinity",
    "kubernetes.podspec-dnsconfig",
    "kubernetes.podspec-dnspolicy",
    "kubernetes.podspec-fieldref",
    "kubernetes.podspec-hostaliases",
    "kubernetes.podspec-hostipc",
    "kubernetes.podspec-hostnetwork",
    "kubernetes.podspec-hostpid",
    "kubernetes.podspec-init-containers",
    "kubernetes.podspec-nodeselector",
    "kubernetes.podspec-persistent-volume-claim",
    "kubernetes.podspec-persistent-volume-write",
    "kubernetes.podspec-priorityclassname",
    "kubernetes.podspec-runtimeclassname",
    "kubernetes.podspec-schedulername",
    "kubernetes.podspec-securitycontext",
    "kubernetes.podspec-shareprocessnamespace",
    "kubernetes.podspec-tolerations",
    "kubernetes.podspec-topologyspreadconstraints",
    "kubernetes.podspec-volumes-csi",
    "kubernetes.podspec-volumes-emptydir",
    "kubernetes.podspec-volumes-ephemeral",
    "kubernetes.podspec-volumes-hostpath",
    "kubernetes.podspec-volumes-image",
    "kubernetes.podspec-volumes-mount-propagation",
    "multi-container",
    "multi-container-probing",
    "queueproxy.mount-podinfo",
    "queueproxy.resource-defaults",
    "secure-pod-defaults",
)
FEATURE_KEYS: Final = (TAG_HEADER_ROUTING, *_FEATURES_WITHOUT_EFFECT)


def has_tag_header_routing(data: Mapping[str, str]) -> bool:
    """Whether `config-features` lets requests choose a tag by a header. As in Knative only `enabled` does."""
    return data.get(TAG_HEADER_ROUTING, "").lower() == "enabled"


def feature_warnings(data: Mapping[str, str]) -> list[str]:
    """What of `config-features` does nothing, by its key or by its value."""
    odd = [
        f"data.{key}: {data[key][:64]!r} is not Enabled, Allowed or Disabled, so it sets nothing"
        for key in FEATURE_KEYS
        if key in data and data[key].lower() not in _FLAGS
    ]
    return [*odd, *ignored(data, _FEATURES_WITHOUT_EFFECT)]


# config-gc


def _or_disabled(parse: Callable[[str], float | int]) -> Callable[[str], float | int | None]:
    def read(text: str) -> float | int | None:
        if text.lower() == "disabled":
            return None
        value = parse(text)
        if value < 0:
            raise ValueError("must not be negative")
        return value

    return read


_RETENTION: Final[Table] = {
    "retain-since-create-time": ("since_create_time", _or_disabled(parse_seconds)),
    "retain-since-last-active-time": ("since_last_active_time", _or_disabled(parse_seconds)),
    "min-non-active-revisions": ("min_non_active", _not_negative),
    "max-non-active-revisions": ("max_non_active", _or_disabled(parse_int32)),
}
RETENTION_KEYS: Final = tuple(_RETENTION)


def read_retention(data: Mapping[str, str]) -> Reading:
    """The fields of RetentionSettings that `config-gc` sets."""
    reading = read_keys(data, _RETENTION)
    settings = RetentionSettings(**reading.values)
    if settings.max_non_active is not None and settings.min_non_active > settings.max_non_active:
        limit = f"{settings.max_non_active} (max-non-active-revisions)"
        what = f"must be at most {limit}, was {settings.min_non_active}"
        return Reading({}, {**reading.faults, "min-non-active-revisions": what})
    return reading

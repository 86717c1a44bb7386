"""Knative's `config-domain`: under which domain a Service has its URL, chosen by the Service's labels.

Each key is a domain, its value a YAML text with a `selector` of labels. Of the domains whose selector a Service
matches, the one with the most labels wins, of several the first by name; one without a selector is for everybody,
and when none is, `svc.cluster.local` is, whose Services answer inside only. An Ingress has the domain chosen and
no other; on this machine the gateway answers below `localhost` as well, since that always resolves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from upwell.functions.api.names import is_dns_subdomain
from upwell.functions.api.serving import CLUSTER_LOCAL, VISIBILITY_LABEL
from upwell.functions.documents import read_documents
from upwell.functions.errors import InvalidManifest

CLUSTER_DOMAIN: Final = "svc.cluster.local"
EXAMPLE: Final = "_example"
"""The key of a ConfigMap that explains the others and sets nothing."""


class Domain(NamedTuple):
    """A domain and the labels of the Services that it is for."""

    name: str
    selector: Mapping[str, str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a Service with these labels is among them."""
        return all(labels.get(name) == value for name, value in self.selector.items())


@dataclass(frozen=True, slots=True)
class Domains:
    """Where Services answer from outside."""

    configured: tuple[Domain, ...]
    """What the ConfigMap says; empty when there is none."""
    own: tuple[str, ...]
    """The platform's own, for Services without a ConfigMap's."""

    def of(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The domains of a Service with these labels, the first making its URL; none when it answers inside
        only."""
        if labels.get(VISIBILITY_LABEL) == CLUSTER_LOCAL:
            return ()
        if not self.configured:
            return self.own
        chosen = min(
            (domain for domain in self.configured if domain.matches(labels)),
            key=lambda domain: (-len(domain.selector), domain.name),
        )
        return () if chosen.name == CLUSTER_DOMAIN else (chosen.name,)


def loopback_domains(domains: Sequence[str]) -> tuple[str, ...]:
    """Those of some domains whose names always lead to the machine that asks."""
    return tuple(name for name in domains if name == "localhost" or name.endswith(".localhost"))


def read_domains(data: Mapping[str, str], own: Sequence[str]) -> tuple[Domains, dict[str, str]]:
    """The domains of a ConfigMap's `data` and, by key, what is wrong in it; keys with a fault are left out."""
    domains: list[Domain] = []
    faults: dict[str, str] = {}
    for key, text in data.items():
        if key == EXAMPLE:
            continue
        try:
            domains.append(_read(key, text))
        except ValueError as error:
            faults[key] = str(error)
    if all(domain.selector for domain in domains):
        domains.append(Domain(CLUSTER_DOMAIN, {}))
    return Domains(tuple(domains), tuple(own)), faults


def _read(key: str, text: str) -> Domain:
    if not is_dns_subdomain(key):
        raise ValueError(f"{key!r} is not a domain: a-z, 0-9, '-' and '.'")
    try:
        values = [document.value for document in read_documents(text, key)]
    except InvalidManifest as error:
        raise ValueError(f"not valid YAML: {error.what}") from error
    value = values[0] if values else None
    if value is not None and not isinstance(value, dict):
        raise ValueError("must be empty or hold a `selector:` of labels")
    return Domain(key, _selector(value or {}))


def _selector(value: Mapping[str, Any]) -> Mapping[str, str]:
    unknown = [name for name in value if name != "selector"]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not known: it may hold a `selector:` of labels and nothing else")
    selector = value.get("selector")
    if selector is None:
        return {}
    if not isinstance(selector, dict) or not all(isinstance(each, str) for each in selector.values()):
        raise ValueError("its selector must map labels to text")
    return selector

"""Names of objects, by the rules of Kubernetes and Knative. Pure strings, so that every process may import it."""

from __future__ import annotations

import hashlib
import re

LONGEST = 63  # a DNS label

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_HASH_LENGTH = 32


def is_dns_1035_label(name: str) -> bool:
    """Whether `name` may name a Service: a-z, 0-9 and '-', from a letter to a letter or digit, at most 63."""
    return len(name) <= LONGEST and _DNS_1035.fullmatch(name) is not None


def is_dns_subdomain(name: str) -> bool:
    """Whether `name` is one or more DNS labels in lower case, joined by dots, at most 253 characters."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def is_dns_1123_label(name: str) -> bool:
    """Whether `name` may name a namespace: as a DNS-1035 label, but it may begin with a digit."""
    return len(name) <= LONGEST and _DNS_1123.fullmatch(name) is not None


def child_name(parent: str, suffix: str) -> str:
    """The name of what `parent` owns: `parent + suffix`, shortened by a hash when that is longer than a label.

    The algorithm is Knative's (knative.dev/pkg/kmeta, ChildName), so that the names agree with a cluster's: a long
    parent is cut and the md5 of the whole of it put before the suffix; where the suffix alone leaves no room for
    that, the md5 of both stands between what fits of each.
    """
    if len(parent) + len(suffix) <= LONGEST:
        return _ended(parent + suffix)
    room = LONGEST - _HASH_LENGTH
    if len(suffix) < room:
        return _ended(parent[: room - len(suffix)] + _hash(parent) + suffix)
    return _ended((parent[:room] + _hash(parent + suffix) + suffix)[:LONGEST])


def revision_name(configuration: str, generation: int) -> str:
    """The name that Knative gives to the revision of a configuration's generation: `hello-00001`."""
    return child_name(configuration, f"-{generation:05d}")


def _hash(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _ended(name: str) -> str:
    """Cutting may leave a name that ends in '-' or '.', which no name may."""
    return name.rstrip("-.")

"""The Ingress of a Route: which hosts answer, and how each splits over revisions.

It has Knative's shape (networking.internal.knative.dev) and its rules stand in the order that Knative's reconciler
gives them (knative/serving, pkg/reconciler/route/resources/ingress.go): for every tag, the main target first, a
rule for the names inside the cluster, then one for each external host. Where routing by the header
`Knative-Serving-Tag` is on, the main rules begin with a path for each tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from upwell.functions.api.names import is_dns_subdomain
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.domains import CLUSTER_DOMAIN, Domains
from upwell.runtime.control.resources import owner_reference
from upwell.runtime.control.rollout import (
    ROLLOUT_ANNOTATION,
    Assigned,
    RevisionRollout,
    Rollout,
    targets_by_tag,
)
from upwell.runtime.control.templates import Template, Values

INGRESS_CLASS: Final = "istio.ingress.networking.knative.dev"
"""Knative's default. It only names who serves an Ingress in a cluster: on a laptop every class is served."""
CLASS_ANNOTATIONS: Final = ("networking.knative.dev/ingress.class", "networking.knative.dev/ingress-class")
"""The first is what an Ingress carries; a Route may use either."""
HTTP_OPTION_ANNOTATIONS: Final = ("networking.knative.dev/httpOption", "networking.knative.dev/http-protocol")
HTTP_OPTIONS: Final = {"enabled": "Enabled", "redirected": "Redirected"}
LAST_APPLIED_ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"
ROUTE_LABEL: Final = "serving.knative.dev/route"
ROUTE_NAMESPACE_LABEL: Final = "serving.knative.dev/routeNamespace"
TAG_HEADER: Final = "Knative-Serving-Tag"
DEFAULT_ROUTE_HEADER: Final = "Knative-Serving-Default-Route"
DOMAIN_VALUES: Final[Values] = {
    "Name": "name",
    "Namespace": "namespace",
    "Domain": "example.com",
    "Annotations": {},
    "Labels": {},
}
"""What a domain template may name, with values to try one on."""
TAG_VALUES: Final[Values] = {"Name": "name", "Tag": "tag"}
"""The same for a tag template."""
_EXCLUDED: Final = (
    LAST_APPLIED_ANNOTATION,
    "networking.knative.dev/certificate-class",
    CLASS_ANNOTATIONS[1],
    ROLLOUT_ANNOTATION,
)
"""Annotations of a Route that its Ingress does not take over."""


def _domain_template() -> Template:
    return Template.read("{{.Name}}.{{.Namespace}}.{{.Domain}}", DOMAIN_VALUES)


def _tag_template() -> Template:
    return Template.read("{{.Tag}}-{{.Name}}", TAG_VALUES)


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """What an Ingress depends on besides its Route."""

    domains: Domains
    domain_template: Template = field(default_factory=_domain_template)
    tag_template: Template = field(default_factory=_tag_template)
    ingress_class: str = INGRESS_CLASS
    http_option: str = "Enabled"
    """Or `Redirected`: of the Routes that do not say."""
    external_scheme: str = "http"
    """Of the URLs of what answers outside; `https` where something in front of the gateway speaks TLS."""
    rollout_seconds: int = 0
    """How long a new revision takes to get all traffic, of the Routes that do not say; 0 for none."""
    has_tag_header_routing: bool = False


class HostNames(NamedTuple):
    """Where a Route, or one of its tags, answers."""

    local: tuple[str, ...]
    """Inside the cluster, the full name last."""
    external: tuple[str, ...]
    """Outside, the one of its URL first; none when it is private."""

    @property
    def main(self) -> str:
        """The host of its URL."""
        return self.external[0] if self.external else self.local[-1]


def host_names(route: Manifest, tag: str, settings: IngressSettings) -> HostNames:
    """The hosts of a Route, or of one of its tags. What a template makes that is no DNS name is left out."""
    metadata = route["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    name: str = metadata["name"]
    if tag:
        name = settings.tag_template.render({"Name": name, "Tag": tag})
    local = f"{name}.{metadata['namespace']}"
    external = [
        settings.domain_template.render(
            {
                "Name": name,
                "Namespace": metadata["namespace"],
                "Domain": domain,
                "Annotations": annotations,
                "Labels": labels,
            }
        )
        for domain in settings.domains.of(labels)
    ]
    usable = dict.fromkeys(host for host in external if is_dns_subdomain(host))
    return HostNames((local, f"{local}.svc", f"{local}.{CLUSTER_DOMAIN}"), tuple(usable))


def url_of(hosts: HostNames, settings: IngressSettings, port: int) -> str:
    """The URL that a person types, `port` being the gateway's for plain HTTP; inside names have none."""
    if not hosts.external:
        return f"http://{hosts.main}"
    shown = "" if port == 80 or settings.external_scheme == "https" else f":{port}"
    return f"{settings.external_scheme}://{hosts.main}{shown}"


def route_ingress(
    route: Manifest, traffic: Iterable[Assigned], settings: IngressSettings, rollout: Rollout
) -> Manifest:
    """The Ingress that sends the traffic of `route`, a Route as it is stored, to revisions as it is assigned; what
    follows a latest revision is shared as `rollout` says."""
    metadata = route["metadata"]
    given = metadata.get("annotations") or {}
    annotations = {
        CLASS_ANNOTATIONS[0]: given.get(CLASS_ANNOTATIONS[1], settings.ingress_class),
        **{name: text for name, text in given.items() if name not in _EXCLUDED},
        ROLLOUT_ANNOTATION: rollout.to_json(),
    }
    labels = metadata.get("labels") or {}
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**labels, ROUTE_LABEL: metadata["name"], ROUTE_NAMESPACE_LABEL: metadata["namespace"]},
            "annotations": annotations,
            "ownerReferences": [owner_reference(route)],
        },
        "spec": {
            "httpOption": http_option(given, settings.http_option),
            "rules": _rules(route, targets_by_tag(traffic), settings, rollout),
        },
    }


def http_option(annotations: Mapping[str, str], default: str) -> str:
    """Whether plain HTTP is answered or sent on to https, by a Route's annotations, else `default`."""
    given = next((annotations[name] for name in HTTP_OPTION_ANNOTATIONS if annotations.get(name)), "")
    return HTTP_OPTIONS.get(given.lower(), default)


def _rules(
    route: Manifest, targets: Mapping[str, Sequence[Assigned]], settings: IngressSettings, rollout: Rollout
) -> list[dict[str, Any]]:
    namespace = route["metadata"]["namespace"]
    splits = {tag: _splits(tag, assigned, rollout, namespace) for tag, assigned in targets.items()}
    rules = []
    for tag in targets:
        hosts = host_names(route, tag, settings)
        paths = _paths(tag, splits, settings)
        rules.append(_rule(hosts.local, paths, "ClusterLocal"))
        rules += [_rule((host,), paths, "ExternalIP") for host in hosts.external]
    return rules


def _rule(hosts: Sequence[str], paths: Sequence[dict[str, Any]], visibility: str) -> dict[str, Any]:
    return {"hosts": list(hosts), "http": {"paths": list(paths)}, "visibility": visibility}


def _paths(
    tag: str, splits: Mapping[str, list[dict[str, Any]]], settings: IngressSettings
) -> list[dict[str, Any]]:
    if not settings.has_tag_header_routing:
        return [{"splits": splits[tag]}]
    if tag:
        return [{"appendHeaders": {TAG_HEADER: tag}, "splits": splits[tag]}]
    by_header = [{"headers": {TAG_HEADER: {"exact": name}}, "splits": splits[name]} for name in splits if name]
    return [*by_header, {"appendHeaders": {DEFAULT_ROUTE_HEADER: "true"}, "splits": splits[tag]}]


def _splits(tag: str, assigned: Sequence[Assigned], rollout: Rollout, namespace: str) -> list[dict[str, Any]]:
    return [
        {
            "appendHeaders": {
                "Knative-Serving-Namespace": namespace,
                "Knative-Serving-Revision": share.revision,
            },
            "percent": share.percent,
            "serviceName": share.revision,
            "serviceNamespace": namespace,
            "servicePort": target.port,
        }
        for target in assigned
        if target.percent
        for share in _shares(target, tag, rollout)
    ]


def _shares(target: Assigned, tag: str, rollout: Rollout) -> Sequence[RevisionRollout]:
    current = rollout.of(tag, target.configuration) if target.latest else None
    if current is None or current.is_done:
        return [RevisionRollout(target.revision, target.percent)]
    return current.revisions

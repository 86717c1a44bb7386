"""`networking.internal.knative.dev/v1alpha1`: the Ingress, which says what answers for which hosts.

The platform makes one for each Route, and takes those that are written by hand, whatever their class. Validation
and `with_defaults` do what Knative's webhook does (knative/networking, pkg/apis/networking/v1alpha1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from upwell.functions.api.http_values import FIELD_NAME, FIELD_VALUE, FRAMING, check_authority, check_host
from upwell.functions.api.meta import DottedObjectMeta, Model, ObjectMeta, Status, invalid


def _check_text(text: str) -> str:
    if not text:
        raise invalid("must not be empty")
    return text


def _check_items(items: list[Any]) -> list[Any]:
    if not items:
        raise invalid("must not be empty")
    return items


def _check_fields(fields: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        text = value.exact if isinstance(value, HeaderMatch) else value
        if not FIELD_NAME.fullmatch(name) or name.lower() in FRAMING:
            raise invalid(f"{name!r} cannot be the name of a header field here", name)
        if not FIELD_VALUE.fullmatch(text):
            raise invalid("the value holds what no header field may hold", name)
    return fields


def _check_rewrite(host: str) -> str:
    return check_authority(host) if host else host


Text = Annotated[str, AfterValidator(_check_text)]
Host = Annotated[str, AfterValidator(check_host)]
Fields = Annotated[dict[str, str], AfterValidator(_check_fields)]


class HeaderMatch(Model):
    """What a header must be."""

    exact: str


class Split(Model):
    """A share of a path's traffic, for one revision's service."""

    service_namespace: Text
    service_name: Text
    service_port: int | str
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    append_headers: Fields | None = None
    """Set on the request: they replace what the client sent."""


class Path(Model):
    """Requests that fit all that is said, and where they go."""

    path: str | None = None
    """A literal prefix; all paths without one."""
    headers: Annotated[dict[str, HeaderMatch], AfterValidator(_check_fields)] | None = None
    rewrite_host: Annotated[str, AfterValidator(lambda host: check_authority(host) if host else host)] | None = (
        None
    )
    append_headers: Fields | None = None
    timeout: str | None = None
    """Of an early version; it sets nothing, as in Knative."""
    retries: dict[str, Any] | None = None
    """Of an early version; it sets nothing, as in Knative."""
    splits: Annotated[list[Split], AfterValidator(_check_items)]

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str | None) -> str | None:
        if path and not path.startswith("/"):
            raise invalid(f"must begin with '/', not be {path[:64]!r}: it is a literal prefix")
        return path

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, splits: list[Split]) -> list[Split]:
        total = sum(split.percent or 0 for split in splits)
        if total != 100 and (len(splits) != 1 or total):
            raise invalid(f"the percentages must add up to 100, not {total}")
        return splits


class Http(Model):
    """The paths of a rule; the first that fits a request has it."""

    paths: Annotated[list[Path], AfterValidator(_check_items)]


class Rule(Model):
    """What some hosts do with their requests."""

    hosts: list[Host] | None = None
    visibility: Literal["ExternalIP", "ClusterLocal", ""] | None = None
    http: Http


class IngressTls(Model):
    """The certificate of some hosts."""

    hosts: list[str] | None = None
    secret_name: Text
    secret_namespace: Text


class IngressSpec(Model):
    """The rules, of which the first that has a request's host counts."""

    http_option: Literal["Enabled", "Redirected", ""] | None = None
    tls: list[IngressTls] | None = None
    rules: Annotated[list[Rule], AfterValidator(_check_items)]


class LoadBalancerIngress(Model):
    """Where an Ingress can be reached."""

    ip: str | None = None
    domain: str | None = None
    domain_internal: str | None = None
    mesh_only: bool | None = None


class LoadBalancer(Model):
    """Places of the same kind where an Ingress can be reached."""

    ingress: list[LoadBalancerIngress] | None = None


class IngressStatus(Status):
    """Whether the gateway answers as the Ingress says."""

    public_load_balancer: LoadBalancer | None = None
    private_load_balancer: LoadBalancer | None = None


class Ingress(Model):
    """What answers for which hosts, and how it is shared."""

    api_version: Literal["networking.internal.knative.dev/v1alpha1"] = "networking.internal.knative.dev/v1alpha1"
    kind: Literal["Ingress"] = "Ingress"
    metadata: DottedObjectMeta
    """Its name may hold dots, as that of a mapped domain does."""
    spec: IngressSpec
    status: IngressStatus | None = None

    @field_validator("spec")
    @classmethod
    def _check_namespaces(cls, spec: IngressSpec, info: ValidationInfo) -> IngressSpec:
        metadata = info.data.get("metadata")
        if isinstance(metadata, ObjectMeta):
            for number, rule in enumerate(spec.rules):
                _check_namespace(rule, metadata.namespace, "rules", number)
        return spec

    def warnings(self) -> Iterator[str]:
        """What is taken and does nothing."""
        for number, rule in enumerate(self.spec.rules):
            for index, host in enumerate(rule.hosts or ()):
                if host.startswith("*"):
                    yield f"spec.rules[{number}].hosts[{index}]: kept, but hosts are matched in full, so none fits"
            for index, path in enumerate(rule.http.paths):
                for name in ("timeout", "retries"):
                    if getattr(path, name) is not None:
                        yield f"spec.rules[{number}].http.paths[{index}].{name}: kept, but it sets nothing"

    def with_defaults(self) -> Ingress:
        """With everything said that Knative would fill in; a new object."""
        rules = [_complete_rule(rule) for rule in self.spec.rules]
        return self.model_copy(update={"spec": self.spec.model_copy(update={"rules": rules})})


def _check_namespace(rule: Rule, namespace: str, *place: str | int) -> None:
    for index, path in enumerate(rule.http.paths):
        for at, split in enumerate(path.splits):
            if split.service_namespace != namespace:
                where = (*place, "http", "paths", index, "splits", at, "serviceNamespace")
                raise invalid(f"must be the Ingress' own, {namespace}, not {split.service_namespace!r}", *where)


def _complete_rule(rule: Rule) -> Rule:
    paths = [
        path.model_copy(update={"splits": [path.splits[0].model_copy(update={"percent": 100})]})
        if len(path.splits) == 1
        else path
        for path in rule.http.paths
    ]
    http = rule.http.model_copy(update={"paths": paths})
    return rule.model_copy(update={"visibility": rule.visibility or "ExternalIP", "http": http})

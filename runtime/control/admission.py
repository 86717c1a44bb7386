"""Which manifests the platform takes, and what becomes of them: pure, before anything is written.

`validate` looks at a manifest alone: its kind, its fields, what Knative's webhook would refuse or fill in, and
what this machine cannot honour. `settle` puts it beside the object that is stored. `admit` is both. What a printed
object carries of the platform's own (its status, uid, versions) is left out of it, so that what `get -o yaml`
prints can be applied again.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from upwell.autoscaler.annotations import (
    PREFIX,
    UPWELL_PREFIX,
    doubtful,
    not_built,
    unknown_annotations,
    validate_annotations,
)
from upwell.autoscaler.spec import AutoscalerConfig
from upwell.functions.api.asm import ASMCircuitBreaker, ASMLocalRateLimiter
from upwell.functions.api.core import ConfigMap, Namespace
from upwell.functions.api.destination_rule import DestinationRule
from upwell.functions.api.meta import Fault, faults, field_path
from upwell.functions.api.networking import Ingress
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.scheduling import QuotaSchedulingPolicy
from upwell.functions.api.serving import (
    Configuration,
    Defaults,
    Route,
    Service,
    complete_configuration,
    complete_route,
    with_defaults,
)
from upwell.functions.api.virtual_service import VirtualService
from upwell.functions.errors import InvalidFunction
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import NAMESPACE, type_of
from upwell.runtime.cluster.reference import SOURCE_ANNOTATION, SourceReference, read_reference
from upwell.runtime.control.admitted import SET_BY_PLATFORM, Admitted, Declared, Refused
from upwell.runtime.control.config import CONFIG_MAPS, CONFIG_NAMESPACE, ConfigLayers, check_config_map
from upwell.runtime.control.honoured import not_honoured
from upwell.runtime.control.kingress import HTTP_OPTION_ANNOTATIONS, HTTP_OPTIONS
from upwell.runtime.control.revision import PROGRESS_DEADLINE, read_progress_deadline
from upwell.runtime.control.rollout import DURATION_ANNOTATIONS, read_rollout_duration
from upwell.runtime.control.settling import settle

SIZE_LIMIT: Final = 1024 * 1024
"""Bytes of one object as JSON: what a cluster's API server takes at the least."""
DEPTH_LIMIT: Final = 100
LARGEST_INTEGER: Final = 2**64 - 1
"""Of either sign: the largest that any field can mean."""

__all__ = ["AdmissionContext", "Admitted", "Declared", "Refused", "admit", "key_of", "settle", "validate"]

POLICIES: Final[Sequence[type[PolicyResource]]] = (
    ASMLocalRateLimiter,
    ASMCircuitBreaker,
    DestinationRule,
    QuotaSchedulingPolicy,
    VirtualService,
)
_MODELS: Final[Mapping[tuple[str, str], type[BaseModel]]] = {
    ("serving.knative.dev/v1", "Service"): Service,
    ("serving.knative.dev/v1", "Configuration"): Configuration,
    ("serving.knative.dev/v1", "Route"): Route,
    ("networking.internal.knative.dev/v1alpha1", "Ingress"): Ingress,
    **{(version, policy.KIND): policy for policy in POLICIES for version in policy.VERSIONS},
    ("v1", "ConfigMap"): ConfigMap,
    ("v1", "Namespace"): Namespace,
}
TAKEN_KINDS: Final = tuple(
    dict.fromkeys(type_of({"apiVersion": version, "kind": kind}) for version, kind in _MODELS if kind != NAMESPACE)
)
"""All that is in a namespace, those before that own others."""
_TEMPLATE_ANNOTATIONS: Final = ("spec", "template", "metadata", "annotations")

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """What admission depends on besides the manifest."""

    defaults: Defaults = field(default_factory=Defaults)
    autoscaler: AutoscalerConfig = field(default_factory=AutoscalerConfig)
    layers: ConfigLayers = field(default_factory=ConfigLayers)
    sources: Mapping[str, str] = field(default_factory=dict)
    """The annotation that says what runs it, by image."""


def admit(manifest: object, existing: Manifest | None, context: AdmissionContext, *, index: int = 0) -> Admitted:
    """The object to store for `manifest` in the place of `existing`. Raises Refused with `index`."""
    declared = validate(manifest, context, index=index)
    image = declared.image
    return settle(declared, existing, context.sources.get(image) if image else None, index=index)


def key_of(manifest: object, *, index: int = 0) -> ObjectKey:
    """The key of a manifest's object. Raises Refused when it names none that the platform takes."""
    _model_of(manifest, index)
    assert isinstance(manifest, dict), "has a kind"
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        path = ("metadata", "name") if isinstance(metadata, dict) else ("metadata",)
        raise Refused(index, [Fault(path, "required, but missing")])
    namespace = metadata.get("namespace") or "default"
    if not isinstance(namespace, str):
        raise Refused(index, [Fault(("metadata", "namespace"), "must be a string")])
    kind = type_of(manifest)
    return ObjectKey(kind, "" if kind == NAMESPACE else namespace, name)


# The manifest alone


def validate(manifest: object, context: AdmissionContext, *, index: int = 0) -> Declared:
    """The manifest as an object: checked, with Knative's defaults filled in. Raises Refused with `index`."""
    _check_size(manifest, index)
    model = _model_of(manifest, index)
    assert isinstance(manifest, dict), "has a kind"
    own, moved = _own_part(manifest), list[str]()
    if issubclass(model, PolicyResource):
        own, moved = model.lift(own)
    try:
        resource = model.model_validate(own, context=context.defaults)
    except ValidationError as error:
        raise Refused(index, faults(error)) from error
    if isinstance(resource, PolicyResource):
        return Declared(resource.to_manifest(), (*moved, *resource.warnings()))
    if isinstance(resource, Ingress):
        return Declared(resource.with_defaults().to_manifest(), tuple(resource.warnings()))
    if isinstance(resource, ConfigMap):
        return _declared_config_map(resource, context, index)
    if isinstance(resource, Namespace):
        return _declared_namespace(resource)
    return _declared_serving(resource, context, index)


def _declared_namespace(resource: Namespace) -> Declared:
    declared = resource.to_manifest()
    del declared["metadata"]["namespace"]
    return Declared(declared, ())


def _model_of(manifest: object, index: int) -> type[BaseModel]:
    if not isinstance(manifest, dict):
        raise Refused(index, [Fault((), "not an object, which is a mapping")])
    version, kind = manifest.get("apiVersion"), manifest.get("kind")
    for name, value in (("apiVersion", version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            message = "required, but missing" if value in (None, "") else "must be a string"
            raise Refused(index, [Fault((name,), message)])
    model = _MODELS.get((str(version), str(kind)))
    if model is None:
        near = [known for known, name in _MODELS if name == kind]
        if near:
            raise Refused(index, [Fault(("apiVersion",), f"must be {' or '.join(near)} for kind {kind}")])
        raise Refused(index, [Fault(("kind",), _unknown(str(kind), str(version)))])
    return model


def _unknown(kind: str, version: str) -> str:
    alike = difflib.get_close_matches(kind, [name for _, name in _MODELS], n=1, cutoff=0.75)
    return f"there is no kind {kind}; did you mean {alike[0]}?" if alike else f"{_taken()}, not {kind} ({version})"


def _taken() -> str:
    """The kinds with their versions, as a sentence begins."""
    versions: dict[str, list[str]] = {}
    for version, kind in _MODELS:
        versions.setdefault(kind, []).append(version)
    *kinds, last = (f"{kind} ({', '.join(known)})" for kind, known in versions.items())
    return f"taken are {', '.join(kinds)} and {last}"


def _own_part(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without what the platform says of its objects."""
    own = {name: value for name, value in manifest.items() if name != "status"}
    metadata = own.get("metadata")
    if isinstance(metadata, dict):
        own["metadata"] = {name: value for name, value in metadata.items() if name not in SET_BY_PLATFORM}
        if not metadata.get("namespace"):
            own["metadata"].pop("namespace", None)
    return own


def _check_size(manifest: object, index: int) -> None:
    """Refuse what is no JSON that can be stored: too deep, too large, with text or numbers that are none."""
    level, depth = [manifest], 0
    while level := [inner for each in level for inner in _inner(each)]:
        depth += 1
        if any(isinstance(each, int) and abs(each) > LARGEST_INTEGER for each in level):
            raise Refused(index, [Fault((), "holds an integer of more than 64 bits")])
        if depth > DEPTH_LIMIT:
            raise Refused(index, [Fault((), f"nested deeper than {DEPTH_LIMIT}")])
    try:
        size = len(json.dumps(manifest, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    except (TypeError, ValueError) as error:
        raise Refused(index, [Fault((), "holds what JSON has no form for")]) from error
    if size > SIZE_LIMIT:
        raise Refused(index, [Fault((), f"an object may have {SIZE_LIMIT >> 20} MiB, not {size} bytes")])


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _declared_serving(resource: BaseModel, context: AdmissionContext, index: int) -> Declared:
    """A Service, Configuration or Route."""
    if isinstance(resource, Route):
        declared = complete_route(resource).to_manifest()
        found, warnings = list(_route_faults(declared)), list[str]()
    elif isinstance(resource, Configuration):
        declared = complete_configuration(resource, context.defaults).to_manifest()
        found, warnings = _template_findings(declared, context)
    else:
        assert isinstance(resource, Service), "one of the models"
        declared = with_defaults(resource, context.defaults).to_manifest()
        found, warnings = _template_findings(declared, context)
        found += _route_faults(declared)
    if found:
        raise Refused(index, found)
    return Declared(declared, tuple(warnings))


def _template_findings(declared: Manifest, context: AdmissionContext) -> tuple[list[Fault], list[str]]:
    """What is wrong with the template of a Service or Configuration, and what is only odd."""
    found, warnings = not_honoured(declared)
    annotations = declared["spec"]["template"].get("metadata", {}).get("annotations", {})
    found += [
        Fault((*_TEMPLATE_ANNOTATIONS, key), problem)
        for key, problem in validate_annotations(annotations, context.autoscaler)
    ]
    found += [
        Fault(("metadata", "annotations", key), "counts only in spec.template.metadata.annotations; move it there")
        for key in declared["metadata"].get("annotations", {})
        if key.startswith((PREFIX, UPWELL_PREFIX))
    ]
    if SOURCE_ANNOTATION in annotations:
        found += _source_faults(annotations)
    if PROGRESS_DEADLINE in annotations:
        found += _deadline_faults(annotations[PROGRESS_DEADLINE])
    return found, [*warnings, *_annotation_warnings(annotations, context.autoscaler)]


def _route_faults(declared: Manifest) -> Iterable[Fault]:
    yield from _rollout_faults(declared)
    yield from _http_option_faults(declared)


def _rollout_faults(declared: Manifest) -> Iterable[Fault]:
    annotations = declared["metadata"].get("annotations", {})
    for key in DURATION_ANNOTATIONS:
        try:
            read_rollout_duration(annotations.get(key, ""))
        except ValueError as error:
            yield Fault(("metadata", "annotations", key), f"{error}, was {annotations[key][:64]!r}")


def _http_option_faults(declared: Manifest) -> Iterable[Fault]:
    annotations = declared["metadata"].get("annotations", {})
    for key in HTTP_OPTION_ANNOTATIONS:
        given = annotations.get(key, "")
        if given and given.lower() not in HTTP_OPTIONS:
            message = f"must be {' or '.join(HTTP_OPTIONS)}, was {given[:64]!r}"
            yield Fault(("metadata", "annotations", key), message)


def _annotation_warnings(annotations: Mapping[str, str], config: AutoscalerConfig) -> Iterable[str]:
    for key, meant in unknown_annotations(annotations):
        hint = f"; did you mean {meant}?" if meant else ""
        yield f"{field_path((*_TEMPLATE_ANNOTATIONS, key))}: no such annotation, so it sets nothing{hint}"
    for key, what in (*not_built(annotations, config), *doubtful(annotations, config)):
        place = field_path((*_TEMPLATE_ANNOTATIONS, key)) if key in annotations else f"config-autoscaler: {key}"
        yield f"{place}: {what}"


def _deadline_faults(text: str) -> Iterable[Fault]:
    try:
        read_progress_deadline(text)
    except ValueError as error:
        yield Fault((*_TEMPLATE_ANNOTATIONS, PROGRESS_DEADLINE), f"{error}, was {text[:64]!r}")


def _source_faults(annotations: Mapping[str, str]) -> Iterable[Fault]:
    try:
        reference = read_reference(annotations, "")
    except InvalidFunction as error:
        yield Fault((*_TEMPLATE_ANNOTATIONS, SOURCE_ANNOTATION), error.what)
        return
    if isinstance(reference, SourceReference) and not _DIGEST.fullmatch(str(reference.bundle)):
        yield Fault((*_TEMPLATE_ANNOTATIONS, SOURCE_ANNOTATION), "its bundle is not named by a digest")


def _declared_config_map(config_map: ConfigMap, context: AdmissionContext, index: int) -> Declared:
    declared = config_map.to_manifest()
    metadata = declared["metadata"]
    if metadata["name"] not in CONFIG_MAPS:
        message = f"taken are {', '.join(CONFIG_MAPS)} in {CONFIG_NAMESPACE}, not {metadata['name']!r}"
        raise Refused(index, [Fault(("metadata", "name"), message)])
    if metadata["namespace"] != CONFIG_NAMESPACE:
        message = f"must be {CONFIG_NAMESPACE} for {metadata['name']}, not {metadata['namespace']!r}"
        raise Refused(index, [Fault(("metadata", "namespace"), message)])
    findings = check_config_map(metadata["name"], declared.get("data", {}), context.layers)
    if findings.faults:
        raise Refused(index, [Fault(("data", key), what) for key, what in findings.faults.items()])
    return Declared(declared, tuple(findings.warnings))

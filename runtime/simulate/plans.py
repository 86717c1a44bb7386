"""Under which settings a trace is simulated: those of a manifest, of flags, and of one point of a sweep.

They come together as on the platform: what it presumes, then a ConfigMap `config-autoscaler`, then `--set`; of a
Service its template's annotations and containerConcurrency. A point of a sweep stands above all of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from upwell.autoscaler.annotations import PREFIX, unknown_annotations, validate_annotations
from upwell.autoscaler.metric_targets import CONCURRENCY, RPS
from upwell.autoscaler.quantities import parse_int32
from upwell.autoscaler.spec import AutoscalerConfig, RevisionSettings
from upwell.functions.api.serving import Defaults
from upwell.functions.errors import InvalidInput, InvalidSettings
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.cluster.kinds import CONFIG_MAP, SERVICE, type_of
from upwell.runtime.control import admission
from upwell.runtime.control.admission import AdmissionContext, validate
from upwell.runtime.control.autoscaler import burst_threshold
from upwell.runtime.control.config import AUTOSCALER, ConfigLayers, platform_config
from upwell.runtime.control.revision import revision_settings
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.simulate.replicas import RevisionPlan

CONTAINER_CONCURRENCY: Final = "container-concurrency"
NOT_SIMULATED: Final = "metrics not simulated"
"""Under this a report's settings name them."""
BELOW: Final = {"allow-zero-initial-scale": "true", "initial-scale": "0"}
"""What a platform on a laptop presumes."""
_GENERATION: Final = re.compile(r"-\d{5}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Declared:
    """What is simulated, as it was declared: admitted manifests, and keys of `config-autoscaler` above them."""

    services: Sequence[Manifest] = ()
    config_map: Mapping[str, str] = field(default_factory=dict)
    above: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, manifests: Sequence[Manifest], above: Mapping[str, str]) -> Declared:
        """What admitted manifests declare, as far as it counts here."""
        config_map: Mapping[str, str] = {}
        for manifest in manifests:
            if type_of(manifest) == CONFIG_MAP and manifest["metadata"]["name"] == AUTOSCALER:
                config_map = manifest.get("data", {})
        return cls([each for each in manifests if type_of(each) == SERVICE], config_map, above)


def admitted(manifests: Sequence[object], above: Mapping[str, str]) -> tuple[list[Manifest], list[Sequence[str]]]:
    """The manifests as the platform would store them, and what it would warn of for each.

    ConfigMaps come first, since they decide what the others may say. Raises Refused for the first that the
    platform would not take, and UnusableKey for a key of `above` that cannot be used.
    """
    layers = ConfigLayers(below=BELOW, above=above)
    maps: dict[str, Mapping[str, str]] = {}
    config = platform_config(maps, layers)
    found: dict[int, admission.Declared] = {}
    for index in sorted(range(len(manifests)), key=lambda index: _is_service(manifests[index])):
        context = AdmissionContext(config.defaults, config.autoscaler, layers)
        found[index] = validate(manifests[index], context, index=index)
        manifest = found[index].manifest
        if type_of(manifest) == CONFIG_MAP:
            maps[manifest["metadata"]["name"]] = manifest.get("data", {})
            config = platform_config(maps, layers)
    kept = [found[index] for index in range(len(manifests))]
    return [each.manifest for each in kept], [each.warnings for each in kept]


def _is_service(manifest: object) -> bool:
    return isinstance(manifest, dict) and manifest.get("kind") == "Service"


@dataclass(frozen=True, slots=True)
class Plans:
    """Plans of a trace's functions, in their order, and what a person would want to know of the settings."""

    plans: tuple[RevisionPlan, ...]
    shown: Mapping[str, str]


def config_keys() -> list[str]:
    """The keys of `config-autoscaler`."""
    return [each.metadata["key"] for each in dataclasses.fields(AutoscalerConfig)]


def plan(declared: Declared, functions: Sequence[str], varied: Mapping[str, str]) -> Plans:
    """What each function is simulated under, with `varied` (names as in a sweep) above what is declared.

    Raises InvalidInput for a setting that is not, or cannot be used, and for a function that none of several
    Services is called like.
    """
    annotations, keys, concurrency = _sorted_out(varied)
    config = ConfigLayers((), BELOW, {**declared.above, **keys}).autoscaler(declared.config_map)
    _check_annotations(annotations, config)
    made: dict[int, RevisionPlan] = {}
    chosen = []
    for function in functions:
        index = _service_of(function, declared.services)
        if index not in made:
            made[index] = _plan(config, _template(declared.services, index), annotations, concurrency)
        chosen.append(made[index])
    shown = _shown(next(iter(made.values()), None) if len(made) == 1 else None)
    return Plans(tuple(chosen), {**shown, **_not_simulated(made.values())})


def _sorted_out(varied: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], int | None]:
    """Annotations, `config-autoscaler` keys and the containerConcurrency; a name that is both is an annotation."""
    annotations, keys, concurrency = {}, {}, None
    for name, value in varied.items():
        if name == CONTAINER_CONCURRENCY:
            concurrency = _concurrency(value)
        elif not unknown_annotations({f"{PREFIX}{name}": value}):
            annotations[f"{PREFIX}{name}"] = value
        elif name in config_keys():
            keys[name] = value
        else:
            known = [*config_keys(), "target", "metric", "window", "activation-scale", CONTAINER_CONCURRENCY]
            alike = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {alike[0]}?" if alike else "Name an autoscaling annotation without its prefix."
            raise InvalidSettings("there is no such setting", where=name, hint=hint)
    return annotations, keys, concurrency


def _concurrency(text: str) -> int:
    most = Defaults().max_container_concurrency
    try:
        value = parse_int32(text)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise InvalidSettings(f"{text!r} is not a whole number from 0 to {most}", where=CONTAINER_CONCURRENCY)
    return value


def _check_annotations(annotations: Mapping[str, str], config: AutoscalerConfig) -> None:
    for key, problem in validate_annotations(annotations, config):
        raise InvalidSettings(problem, where=key.removeprefix(PREFIX))


def _service_of(function: str, services: Sequence[Manifest]) -> int:
    """Which Service a function of the trace is; one alone stands for all."""
    if len(services) <= 1:
        return 0
    name = _GENERATION.sub("", function.rpartition("/")[2])
    for index, service in enumerate(services):
        if service["metadata"]["name"] == name:
            return index
    names = ", ".join(service["metadata"]["name"] for service in services)
    raise InvalidInput(
        f"no Service is called like {function!r} of the trace", where="-f", hint=f"There are {names}."
    )


def _template(services: Sequence[Manifest], index: int) -> Mapping[str, Any]:
    return services[index]["spec"]["template"] if services else {}


def _plan(
    config: AutoscalerConfig, template: Mapping[str, Any], annotations: Mapping[str, str], concurrency: int | None
) -> RevisionPlan:
    spec = dict(template.get("spec", {}))
    if concurrency is not None:
        spec["containerConcurrency"] = concurrency
    metadata = template.get("metadata") or {}
    revision = {
        "metadata": {"annotations": {**(metadata.get("annotations") or {}), **annotations}},
        "spec": spec,
    }
    limits = RevisionLimits(
        container_concurrency=int(spec.get("containerConcurrency") or 0),
        timeout_seconds=float(spec.get("timeoutSeconds") or Defaults().timeout_seconds),
        burst_threshold=burst_threshold(config, revision),
    )
    return RevisionPlan(revision_settings(config, revision), limits)


def _not_simulated(plans: Iterable[RevisionPlan]) -> dict[str, str]:
    """What nothing here measures, since only requests are simulated."""
    further = [each for plan in plans for each in plan.settings.metrics]
    labels = dict.fromkeys(each.label for each in further if each.metric not in (CONCURRENCY, RPS))
    return {NOT_SIMULATED: ", ".join(labels)} if labels else {}


def _shown(plan: RevisionPlan | None) -> dict[str, str]:
    """The settings that decide most, as people write them; none when functions differ in them."""
    if plan is None:
        return {}
    settings: RevisionSettings = plan.settings
    shown = {
        "class": settings.autoscaler_class,
        "metric": settings.metric,
        "target": f"{settings.target_value:g} of {settings.total_value:g}",
        CONTAINER_CONCURRENCY: str(plan.limits.container_concurrency),
        "window": f"{settings.stable_window:g}s",
        "panic window": f"{settings.panic_window:g}s",
        "panic threshold": f"{settings.panic_threshold:g}",
        "min-scale": str(settings.min_scale),
        "max-scale": str(settings.max_scale),
        "scale-down-delay": f"{settings.scale_down_delay:g}s",
        "scale-to-zero": str(settings.enable_scale_to_zero).lower(),
        "grace period": f"{settings.scale_to_zero_grace_period:g}s",
        "timeout": f"{plan.limits.timeout_seconds:g}s",
    }
    return shown

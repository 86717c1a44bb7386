"""An ASMLocalRateLimiter as the EnvoyFilter that a mesh makes of it: Envoy's local rate limit filter.

The filter stands before the router of every listener, without a limit of its own, and each config gives its limit
to the virtual hosts (or the route) that it means. Overrides become descriptors, which Envoy (from 1.31) finds
by the filter's own `rate_limits`. Envoy's filter has no body of its own for a refusal: one is put in by the
connection manager's local reply, for refusals of that host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from upwell.functions.api.asm import ASMLocalRateLimiter, FillInterval, LimitConfig, LocalRateLimiterConfig
from upwell.functions.api.asm_scope import TargetService
from upwell.functions.api.request_match import HeaderMatcher, QueryParameterMatcher, RequestMatcher
from upwell.runtime.cluster.interface import Manifest

FILTER: Final = "envoy.filters.http.local_ratelimit"
_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_MANAGER_TYPE: Final = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_STAT_PREFIX: Final = "http_local_rate_limiter"
_CONTEXTS: Final = {
    "gateway": "GATEWAY",
    "sidecar_inbound": "SIDECAR_INBOUND",
    "sidecar_outbound": "SIDECAR_OUTBOUND",
    "waypoint": "SIDECAR_INBOUND",
}
_ALWAYS: Final = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
_OVERWRITE: Final = "OVERWRITE_IF_EXISTS_OR_ADD"


def envoy_filter(limiter: ASMLocalRateLimiter) -> Manifest:
    """The EnvoyFilter of a limiter, of its name and in its namespace."""
    spec = limiter.spec
    context = "GATEWAY" if spec.is_gateway else _CONTEXTS[spec.apply_to_traffic or "sidecar_inbound"]
    patches = [_insertion(context)]
    for index, config in enumerate(spec.configs):
        patches.extend(_config_patches(limiter, config, config.name or str(index), context))
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": limiter.metadata.name, "namespace": limiter.metadata.namespace},
        "spec": {
            **({"workloadSelector": {"labels": dict(spec.labels)}} if spec.labels else {}),
            "configPatches": patches,
        },
    }


def _typed(value: dict[str, Any], type_url: str = _TYPE) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": type_url, "value": value}


def _insertion(context: str) -> dict[str, Any]:
    router = {"name": _MANAGER, "subFilter": {"name": "envoy.filters.http.router"}}
    return {
        "applyTo": "HTTP_FILTER",
        "match": {"context": context, "listener": {"filterChain": {"filter": router}}},
        "patch": {
            "operation": "INSERT_BEFORE",
            "value": {"name": FILTER, "typed_config": _typed({"stat_prefix": _STAT_PREFIX})},
        },
    }


def _config_patches(
    limiter: ASMLocalRateLimiter, config: LocalRateLimiterConfig, name: str, context: str
) -> Iterator[dict[str, Any]]:
    limit = {"typed_per_filter_config": {FILTER: _typed(_limit(config, name))}}
    for host, port, route in _places(limiter, config):
        virtual_host: dict[str, Any] = {}
        if host != "*":
            virtual_host["name"] = f"{host}:{port}" if port else host
        if route:
            virtual_host["route"] = {"name": route}
        match: dict[str, Any] = {"context": context}
        # A virtual host's name ends with its port; where all are meant the port is told apart by the listener.
        configuration = {"portNumber": port} if host == "*" and port else {}
        if configuration or virtual_host:
            match["routeConfiguration"] = {**configuration, **({"vhost": virtual_host} if virtual_host else {})}
        yield {
            "applyTo": "HTTP_ROUTE" if route else "VIRTUAL_HOST",
            "match": match,
            "patch": {"operation": "MERGE", "value": limit},
        }
        if config.limit.custom_response_body is not None:
            yield _body_patch(config.limit.custom_response_body, host, context)


def _places(
    limiter: ASMLocalRateLimiter, config: LocalRateLimiterConfig
) -> Iterator[tuple[str, int | None, str | None]]:
    """Host, port and name of the route of all that a config means."""
    if config.host is not None:
        yield config.host, config.port, config.route_name
    for target in config.targets:
        yield _target_host(target, limiter.metadata.namespace), target.port, target.section_name


def _target_host(target: TargetService, namespace: str) -> str:
    if target.resource_kind == "Service":
        return f"{target.name}.{target.namespace or namespace}.svc.cluster.local"
    # Of a VirtualService the hosts are not known here: its route's name says who is meant.
    return "*" if target.resource_kind == "VirtualService" else target.name


def _limit(config: LocalRateLimiterConfig, name: str) -> dict[str, Any]:
    limit = config.limit
    added = {"x-local-rate-limit": "true", **limit.added_headers}
    value: dict[str, Any] = {
        "stat_prefix": _STAT_PREFIX,
        "token_bucket": _bucket(limit),
        "filter_enabled": {"runtime_key": "local_rate_limit_enabled", **_ALWAYS},
        "filter_enforced": {"runtime_key": "local_rate_limit_enforced", **_ALWAYS},
        "response_headers_to_add": [
            {"append_action": _OVERWRITE, "header": {"key": key, "value": text}} for key, text in added.items()
        ],
    }
    if limit.status is not None:
        value["status"] = {"code": limit.status}
    if limit.per_downstream_connection:
        value["local_rate_limit_per_downstream_connection"] = True
    overrides = config.limit_overrides or []
    if overrides:
        descriptors = [f"{name}-{index}" for index in range(len(overrides))]
        value["rate_limits"] = [
            {"actions": [action for action, _ in _actions(override.request_match, descriptor)]}
            for override, descriptor in zip(overrides, descriptors, strict=True)
        ]
        value["descriptors"] = [
            {
                "entries": [entry for _, entry in _actions(override.request_match, descriptor)],
                "token_bucket": _bucket(override.limit),
            }
            for override, descriptor in zip(overrides, descriptors, strict=True)
        ]
    return value


def _bucket(limit: LimitConfig) -> dict[str, Any]:
    return {
        "max_tokens": limit.quota,
        "tokens_per_fill": limit.quota,
        "fill_interval": _duration(limit.fill_interval),
    }


def _duration(interval: FillInterval) -> str:
    """As protobuf writes a duration in JSON."""
    seconds, nanoseconds = divmod(interval.nanoseconds, 1_000_000_000)
    return f"{seconds}.{nanoseconds:09d}".rstrip("0").rstrip(".") + "s"


def _actions(match: RequestMatcher, descriptor: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """What makes the entries of a descriptor of a request, and the entries that are limited."""
    value = {"descriptor_value": descriptor, "expect_match": True}
    if match.header_match:
        headers = [_header(each) for each in match.header_match]
        yield (
            {"header_value_match": {"descriptor_key": "header_match", **value, "headers": headers}},
            {"key": "header_match", "value": descriptor},
        )
    if match.query_match:
        parameters = [_parameter(each) for each in match.query_match]
        yield (
            {
                "query_parameter_value_match": {
                    "descriptor_key": "query_match",
                    **value,
                    "query_parameters": parameters,
                }
            },
            {"key": "query_match", "value": descriptor},
        )
    if match.remote_address is not None:
        network = match.remote_address.network
        length = "v4_prefix_mask_len" if network.version == 4 else "v6_prefix_mask_len"
        yield (
            {"masked_remote_address": {length: network.prefixlen}},
            {"key": "masked_remote_address", "value": str(network)},
        )


def _header(matcher: HeaderMatcher) -> dict[str, Any]:
    found: dict[str, Any] = {"name": matcher.name}
    condition, text = matcher.condition
    if matcher.is_exact_match_empty:
        found["string_match"] = {"exact": ""}
    elif condition == "present_match":
        found["present_match"] = matcher.present_match is not False
    else:
        found["string_match"] = _string_match(condition, text)
    if matcher.invert_match:
        found["invert_match"] = True
    return found


def _parameter(matcher: QueryParameterMatcher) -> dict[str, Any]:
    condition, text = matcher.condition
    if condition == "present_match":
        return {"name": matcher.name, "present_match": matcher.present_match is not False}
    match = _string_match(condition, text)
    return {
        "name": matcher.name,
        "string_match": {**match, **({"ignore_case": True} if matcher.ignore_case else {})},
    }


def _string_match(condition: str, text: str) -> dict[str, Any]:
    if condition == "regex_match":
        return {"safe_regex": {"regex": text}}
    return {condition.removesuffix("_match"): text}


def _body_patch(body: str, host: str, context: str) -> dict[str, Any]:
    limited: dict[str, Any] = {"response_flag_filter": {"flags": ["RL"]}}
    if host != "*":
        authority = {"name": ":authority", "string_match": {"prefix": host}}
        limited = {"and_filter": {"filters": [limited, {"header_filter": {"header": authority}}]}}
    reply = {"mappers": [{"filter": limited, "body": {"inline_string": body}}]}
    return {
        "applyTo": "NETWORK_FILTER",
        "match": {"context": context, "listener": {"filterChain": {"filter": {"name": _MANAGER}}}},
        "patch": {
            "operation": "MERGE",
            "value": {"name": _MANAGER, "typed_config": _typed({"local_reply_config": reply}, _MANAGER_TYPE)},
        },
    }

"""QuotaSchedulingPolicy (istio.alibabacloud.com): a quota of requests, and whose turn it is when it is used up.

The fields are those of Alibaba's ASM and of FluxNinja Aperture below it. Every optional field is None where it is
not set, so that an object prints as it was written; the properties beside the fields tell what holds then.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from upwell.functions.api.durations import Duration, PositiveDuration, seconds
from upwell.functions.api.meta import invalid
from upwell.functions.api.policies import PolicyResource, SnakeModel
from upwell.functions.api.regex import Regex
from upwell.functions.errors import InvalidInput

DEFAULT_WORKLOAD: Final = "default"
"""Requests that match no workload."""
DEFAULT_MARGIN: Final = 0.01
DEFAULT_MAX_IDLE: Final = 7200.0
DEFAULT_STATUS: Final = 503
_DEEPEST_EXPRESSION: Final = 32
_STATUS_NAMES: Final = {each.name.replace("_", "").lower(): each.value for each in HTTPStatus if each >= 200}
_SCHEDULER: Final = "spec.quota_scheduler.scheduler"

_START: Final = re.compile(r"((?:\(\?[imsU-]+\))*)(\^|\\A)?")
_END: Final = re.compile(r"(?<!\\)(?:\\\\)*(?:\$|\\z)\Z")
_TOKEN: Final = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|.", re.DOTALL)


def searching(pattern: str) -> str:
    """The expression for whole texts that hold a match of `pattern` somewhere, as RE2 searches.

    What may stand before and after is added to each alternative, save where `^` or `$` says that nothing may.
    """
    return "|".join(_searching(option) for option in _alternatives(pattern))


def _alternatives(pattern: str) -> Iterator[str]:
    """The pattern's parts between the `|` that stand in no parentheses."""
    depth = start = 0
    for token in _TOKEN.finditer(pattern):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if token[0] == "|" and depth == 0:
            yield pattern[start : token.start()]
            start = token.end()
    yield pattern[start:]


def _searching(option: str) -> str:
    flags, anchor = _START.match(option).groups()  # type: ignore[union-attr] # matches the empty text
    body = option[len(flags) :]
    before = "" if anchor else "(?s:.*)"
    after = "" if _END.search(body) else "(?s:.*)"
    return f"{flags}{before}{body}{after}"


def _checked_pattern(pattern: str) -> str:
    try:
        Regex(searching(pattern))
    except InvalidInput as error:
        raise invalid(f"{pattern!r}: {error}") from None
    return pattern


Pattern = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_checked_pattern)]
Amount = Annotated[int | float, Field(ge=0, allow_inf_nan=False)]
"""Of tokens. An integer stays one when it is printed."""
Priority = Annotated[int | float, Field(gt=0, allow_inf_nan=False)]
_HEADER_LABEL: Final = "http.request.header."
_REQUEST_LABELS: Final = frozenset(
    f"http.{name}" for name in ("method", "target", "host", "scheme", "flavor", "request_content_length")
)
Label = Annotated[str, Field(min_length=1, max_length=1024)]
"""The name of a flow label."""


class MatchRequirement(SnakeModel):
    """What one label must be, in the words of a Kubernetes selector."""

    key: Label
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        takes_values = self.operator in ("In", "NotIn")
        if takes_values and not self.values:
            raise invalid(f"{self.operator} asks for at least one value", "values")
        if not takes_values and self.values:
            raise invalid(f"{self.operator} takes no values", "values")
        return self


class EqualsExpression(SnakeModel):
    """The label has this value."""

    label: Label
    value: str = ""


class MatchesExpression(SnakeModel):
    """The regular expression matches somewhere in the label's value."""

    label: Label
    regex: Pattern


class ExpressionList(SnakeModel):
    """Expressions that are joined."""

    of: list[MatchExpression]


class MatchExpression(SnakeModel):
    """A condition on labels: exactly one of its fields is set."""

    not_: MatchExpression | None = Field(default=None, alias="not")
    all: ExpressionList | None = None
    any: ExpressionList | None = None
    label_exists: Label | None = None
    label_equals: EqualsExpression | None = None
    label_matches: MatchesExpression | None = None

    @model_validator(mode="after")
    def _check_single(self) -> Self:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise invalid("must say exactly one of not, all, any, label_exists, label_equals and label_matches")
        return self

    @property
    def parts(self) -> list[MatchExpression]:
        """The expressions that it joins or negates."""
        parts = [self.not_] if self.not_ is not None else []
        for joined in (self.all, self.any):
            parts += joined.of if joined is not None else []
        return parts

    @property
    def depth(self) -> int:
        """How deep expressions stand in each other."""
        return 1 + max((each.depth for each in self.parts), default=0)

    @property
    def labels(self) -> Iterator[str]:
        """Names of the labels that it reads."""
        if self.label_exists is not None:
            yield self.label_exists
        for single in (self.label_equals, self.label_matches):
            if single is not None:
                yield single.label
        for part in self.parts:
            yield from part.labels


def _checked_expression(expression: MatchExpression) -> MatchExpression:
    if expression.depth > _DEEPEST_EXPRESSION:
        raise invalid(f"expressions may stand {_DEEPEST_EXPRESSION} deep, not {expression.depth}")
    return expression


class LabelMatcher(SnakeModel):
    """Which requests are meant, by their flow labels: all that is set must hold, and an empty one means all."""

    match_labels: dict[Label, str] | None = None
    match_list: list[MatchRequirement] | None = None
    match_expressions: list[MatchRequirement] | None = None
    """As `match_list`, under its old name."""
    expression: Annotated[MatchExpression, AfterValidator(_checked_expression)] | None = None

    @property
    def requirements(self) -> list[MatchRequirement]:
        return [*(self.match_list or ()), *(self.match_expressions or ())]

    @property
    def labels(self) -> Iterator[str]:
        """Names of the labels that it reads."""
        yield from self.match_labels or ()
        yield from (each.key for each in self.requirements)
        if self.expression is not None:
            yield from self.expression.labels

    @property
    def is_empty(self) -> bool:
        """Whether it means every request."""
        return not self.match_labels and not self.requirements and self.expression is None


class SelectorPort(SnakeModel):
    """A port of a service."""

    number: Annotated[int, Field(ge=1, le=65535)] | None = None


class Selector(SnakeModel):
    """Which requests a policy is for."""

    control_point: str | None = None
    service: str | None = None
    agent_group: str | None = None
    port: SelectorPort | None = None
    label_matcher: LabelMatcher | None = None

    @property
    def host(self) -> str:
        """Whose requests: a service as policies name it, `*` for every one."""
        return "*" if self.service in (None, "", "any") else str(self.service)

    @property
    def port_number(self) -> int | None:
        """None for every port."""
        return self.port.number if self.port is not None else None

    @property
    def is_ingress(self) -> bool:
        """Whether requests that come to a service are meant, and not those that it sends."""
        return self.control_point != "egress"


class LazySync(SnakeModel):
    """How often agents of Aperture tell each other; there is one gateway here, which has nobody to tell."""

    enabled: bool | None = None
    num_sync: Annotated[int, Field(ge=0)] | None = None


class RateLimiterParameters(SnakeModel):
    """How a bucket of tokens is filled, and how many there are."""

    interval: PositiveDuration
    limit_by_label_key: str | None = None
    """One bucket for each value of this label; requests without it pass."""
    continuous_fill: bool | None = None
    max_idle_time: Duration | None = None
    lazy_sync: LazySync | None = None
    delay_initial_fill: bool | None = None

    @property
    def interval_seconds(self) -> float:
        return seconds(self.interval)

    @property
    def fills_continuously(self) -> bool:
        return self.continuous_fill is not False

    @property
    def max_idle_seconds(self) -> float:
        return DEFAULT_MAX_IDLE if self.max_idle_time is None else seconds(self.max_idle_time)


class WorkloadParameters(SnakeModel):
    """What a request of a workload weighs."""

    priority: Priority | None = None
    tokens: Amount | None = None
    queue_timeout: Duration | None = None

    @property
    def weight(self) -> float:
        """The share among workloads that wait."""
        return 1.0 if self.priority is None else float(self.priority)

    @property
    def cost(self) -> float:
        """Tokens a request; none is one too."""
        return float(self.tokens or 1.0)

    @property
    def queue_timeout_seconds(self) -> float | None:
        """How long a request may wait at the most; 0 for not at all, None for no limit of its own."""
        return None if self.queue_timeout is None else seconds(self.queue_timeout)


class SchedulerWorkload(SnakeModel):
    """Requests that share a priority."""

    name: str | None = None
    label_matcher: LabelMatcher
    parameters: WorkloadParameters | None = None


def _checked_status(status: int | str) -> int | str:
    if isinstance(status, str) and status.lower() not in _STATUS_NAMES:
        raise invalid(f"{status!r} is not the name of a status such as ServiceUnavailable")
    if isinstance(status, int) and status and not 200 <= status <= 599:
        raise invalid(f"must be a status from 200 to 599, not {status}")
    return status


class Scheduler(SnakeModel):
    """Whose turn it is when requests wait."""

    workloads: list[SchedulerWorkload] | None = None
    default_workload_parameters: WorkloadParameters | None = None
    decision_deadline_margin: Duration | None = None
    tokens_label_key: str | None = None
    priority_label_key: str | None = None
    workload_label_key: str | None = None
    fairness_label_key: str | None = None
    denied_response_status_code: Annotated[int | str, AfterValidator(_checked_status)] | None = None

    @field_validator("workloads")
    @classmethod
    def _check_names(cls, workloads: list[SchedulerWorkload] | None) -> list[SchedulerWorkload] | None:
        taken = {DEFAULT_WORKLOAD}
        for index, workload in enumerate(workloads or ()):
            taken.add(str(index))
            if workload.name and workload.name in taken:
                raise invalid(f"the name {workload.name!r} is taken by another workload", index, "name")
            taken.add(workload.name or "")
        return workloads

    @property
    def margin_seconds(self) -> float:
        """How long before a caller's deadline a request must have its turn."""
        margin = self.decision_deadline_margin
        return DEFAULT_MARGIN if margin is None else seconds(margin)

    @property
    def denied_status(self) -> int:
        status = self.denied_response_status_code or DEFAULT_STATUS
        return _STATUS_NAMES[status.lower()] if isinstance(status, str) else status


class QuotaScheduler(SnakeModel):
    """A bucket of tokens and the queue before it."""

    bucket_capacity: Amount
    fill_amount: Amount
    rate_limiter: RateLimiterParameters
    scheduler: Scheduler
    selectors: Annotated[list[Selector], Field(min_length=1)]

    @property
    def labels(self) -> frozenset[str]:
        """Names of all labels of a request that have a say in what becomes of it."""
        scheduler = self.scheduler
        matchers = [each.label_matcher for each in (*self.selectors, *(scheduler.workloads or ()))]
        keys = (
            self.rate_limiter.limit_by_label_key,
            scheduler.tokens_label_key,
            scheduler.priority_label_key,
            scheduler.workload_label_key,
            scheduler.fairness_label_key,
        )
        matched = [label for matcher in matchers if matcher is not None for label in matcher.labels]
        return frozenset([*matched, *(key for key in keys if key)])


class QuotaSchedulingSpec(SnakeModel):
    """The specification of a QuotaSchedulingPolicy."""

    quota_scheduler: QuotaScheduler


class QuotaSchedulingPolicy(PolicyResource):
    """Requests beyond a quota wait for their turn, which comes by priority."""

    VERSIONS: ClassVar[tuple[str, ...]] = ("istio.alibabacloud.com/v1", "istio.alibabacloud.com/v1beta1")
    KIND: ClassVar[str] = "QuotaSchedulingPolicy"

    spec: QuotaSchedulingSpec

    @classmethod
    def lift(cls, manifest: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Takes `selectors` out of `scheduler`, where printed examples have them for want of an indentation."""
        scheduler = _below(manifest, "spec", "quota_scheduler", "scheduler")
        quota = _below(manifest, "spec", "quota_scheduler")
        if "selectors" not in scheduler or "selectors" in quota:
            return manifest, []
        lifted = copy.deepcopy(manifest)
        quota = lifted["spec"]["quota_scheduler"]
        quota["selectors"] = quota["scheduler"].pop("selectors")
        return lifted, [f"{_SCHEDULER}.selectors is read as spec.quota_scheduler.selectors, where it belongs"]

    def warnings(self) -> list[str]:
        """What has no effect here, and what can never match."""
        quota = self.spec.quota_scheduler
        lazy = quota.rate_limiter.lazy_sync
        found = []
        if lazy is not None and lazy.enabled:
            found.append("spec.quota_scheduler.rate_limiter.lazy_sync has no effect: one gateway has all tokens")
        for index, selector in enumerate(quota.selectors):
            found += _selector_warnings(f"spec.quota_scheduler.selectors[{index}]", selector)
        found += [_label_warning(label) for label in sorted(quota.labels) if not _may_be_there(label)]
        return found + _workload_warnings(quota.scheduler.workloads or [])


def _below(manifest: Any, *path: str) -> dict[str, Any]:
    for name in path:
        manifest = manifest.get(name) if isinstance(manifest, dict) else None
    return manifest if isinstance(manifest, dict) else {}


def _may_be_there(label: str) -> bool:
    """Whether a request can have it; whatever is not named below `http.` may be a member of its baggage."""
    if label.startswith(_HEADER_LABEL):
        return "-" not in label and label == label.lower()
    return not label.startswith("http.") or label in _REQUEST_LABELS


def _label_warning(label: str) -> str:
    meant = f"{_HEADER_LABEL}NAME, in lower case with _ for -"
    return f"spec.quota_scheduler: no request has the label {label!r}: a header's is {meant}"


def _selector_warnings(path: str, selector: Selector) -> list[str]:
    found = []
    if not selector.is_ingress:
        found.append(f"{path}.control_point: the gateway sees requests to a service alone; this matches nothing")
    elif selector.control_point not in (None, "", "ingress"):
        found.append(f"{path}.control_point {selector.control_point!r} is taken for ingress")
    if selector.agent_group not in (None, "", "default"):
        found.append(f"{path}.agent_group has no effect: there are no agents")
    return found + _matcher_warnings(path, selector.label_matcher)


def _workload_warnings(workloads: list[SchedulerWorkload]) -> list[str]:
    found = []
    catching = next((index for index, each in enumerate(workloads) if each.label_matcher.is_empty), None)
    for index, workload in enumerate(workloads):
        path = f"{_SCHEDULER}.workloads[{index}]"
        found += _matcher_warnings(path, workload.label_matcher)
        if catching is not None and index > catching:
            found.append(f"{path} never matches: workloads[{catching}] before it takes every request")
    return found


def _matcher_warnings(path: str, matcher: LabelMatcher | None) -> list[str]:
    if matcher is None or matcher.match_expressions is None:
        return []
    return [f"{path}.label_matcher.match_expressions is deprecated: match_list is its name"]

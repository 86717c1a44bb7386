"""What all kinds share: object metadata, conditions, and how a field at fault is told.

Models carry the API's camelCase names on the outside and refuse what they do not know, as Kubernetes does in
strict validation. Validation raises pydantic's ValidationError; `faults` turns it into field paths as `kubectl`
prints them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from upwell.functions.api.names import is_dns_1035_label, is_dns_1123_label, is_dns_subdomain

_QUALIFIED = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ANNOTATIONS_LIMIT = 256 * 1024
_ALTERNATIVES: Final = {
    ("str", "string_type"): "a string",
    ("int", "int_type"): "a whole number",
    ("float", "float_type"): "a number",
}
"""Of a field that may be one or the other pydantic tells an error for each, below the field, by its type."""


class Fault(NamedTuple):
    """One field that is wrong: its path as in `spec.template.spec.containers[0].image`, in parts, and why."""

    path: tuple[str | int, ...]
    message: str

    @property
    def field(self) -> str:
        """The path as text."""
        return field_path(self.path)


def field_path(path: tuple[str | int, ...]) -> str:
    """`("spec", "containers", 0)` as `spec.containers[0]`; a key that holds more than a name is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def invalid(message: str, *path: str | int) -> PydanticCustomError:
    """An error to raise in a validator; `path` leads from the validated field to the one at fault below it."""
    return PydanticCustomError("field", "{message}", {"message": message, "path": path})


def faults(error: ValidationError) -> Iterator[Fault]:
    """Each field at fault, in the API's words."""
    for field, group in groupby(error.errors(include_url=False, include_input=False), _field_of_alternative):
        errors = list(group)
        if field is not None and len(errors) > 1:
            yield Fault(field, f"must be {_either([each['loc'][-1], each['type']] for each in errors)}")
            continue
        for each in errors:
            path = (*each["loc"], *each.get("ctx", {}).get("path", ()))
            yield Fault(path, _message(each["type"], each["msg"]))


def _field_of_alternative(error: ErrorDetails) -> tuple[str | int, ...] | None:
    *field, last = error["loc"] or ("",)
    return tuple(field) if (last, error["type"]) in _ALTERNATIVES else None


def _either(alternatives: Iterable[Sequence[str | int]]) -> str:
    words = [_ALTERNATIVES[str(name), str(kind)] for name, kind in alternatives]
    return " or ".join(word for word in words if word != "a whole number" or "a number" not in words)


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "required, but missing"
    if kind == "string_type":
        return "must be a string; a number or true stands in quotes there"
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


class Model(BaseModel):
    """The base of all kinds: camelCase outside, nothing unknown."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    def to_manifest(self) -> dict[str, Any]:
        """The object as JSON values, under the API's names, without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _check_dns_1035(name: str) -> str:
    if not is_dns_1035_label(name):
        raise invalid(
            f"{name!r} is not a DNS-1035 label: a-z, 0-9 and '-', beginning with a letter, "
            "ending with a letter or digit, at most 63 characters"
        )
    return name


def _check_dns_1123(name: str) -> str:
    if not is_dns_1123_label(name):
        raise invalid(
            f"{name!r} is not a DNS-1123 label: a-z, 0-9 and '-', beginning and ending with a letter or digit, at "
            "most 63 characters"
        )
    return name


def _check_key(key: str, field: str, folded: str) -> None:
    """`folded` is the key as the rules see it: those for annotations do not mind capitals in the prefix."""
    prefix, slash, name = folded.rpartition("/")
    valid_prefix = not slash or (len(prefix) <= 253 and _PREFIX.fullmatch(prefix))
    if not valid_prefix or not _QUALIFIED.fullmatch(name):
        raise invalid(f"{key!r} cannot be the key of {field}: it must be like example.com/name", key)


Dns1035 = Annotated[str, AfterValidator(_check_dns_1035)]
EmptyOrDns1035 = Annotated[str, AfterValidator(lambda name: _check_dns_1035(name) if name else name)]


def _check_subdomain(name: str) -> str:
    if not is_dns_subdomain(name):
        raise invalid(f"{name!r} is not a DNS name: a-z, 0-9, '-' and '.', at most 253 characters")
    return name


Dns1123 = Annotated[str, AfterValidator(_check_dns_1123)]
# JSON has no time: it is a string on the outside.
Time = Annotated[datetime, Field(strict=False)]


class OwnerReference(Model):
    """Who an object belongs to; it goes when its owner goes."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class TemplateMeta(Model):
    """The metadata of a template: what the revision made from it will carry."""

    name: Dns1035 | None = None
    generate_name: str | None = None
    namespace: Dns1123 | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: Time | None = None
    """Always null; tools that print templates write it."""

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str] | None) -> dict[str, str] | None:
        for key, value in (labels or {}).items():
            _check_key(key, "a label", key)
            if value and not _QUALIFIED.fullmatch(value):
                raise invalid(f"{value!r} cannot be the value of a label", key)
        return labels

    @field_validator("annotations")
    @classmethod
    def _check_annotations(cls, annotations: dict[str, str] | None) -> dict[str, str] | None:
        size = 0
        for key, value in (annotations or {}).items():
            _check_key(key, "an annotation", key.lower())
            size += len(key) + len(value.encode())
        if size > _ANNOTATIONS_LIMIT:
            raise invalid(f"annotations may be {_ANNOTATIONS_LIMIT} bytes together, not {size}")
        return annotations


class ObjectMeta(TemplateMeta):
    """The metadata of an object: its name, and what the platform notes about it."""

    name: Dns1035
    namespace: Dns1123 = "default"
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] | None = None
    owner_references: list[OwnerReference] | None = None
    managed_fields: list[dict[str, Any]] | None = None
    self_link: str | None = None


class DottedObjectMeta(ObjectMeta):
    """The metadata of an object whose name may begin with a digit and hold dots."""

    name: Annotated[str, AfterValidator(_check_subdomain)]


class Condition(Model):
    """One aspect of an object's state, by Knative's rules: `severity` empty means that Ready depends on it."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    severity: str | None = None
    last_transition_time: Time | None = None


class Status(Model):
    """What every kind reports about itself."""

    # A status is written by the platform; one that comes in with a manifest was printed by another version of it.
    model_config = ConfigDict(extra="ignore")

    observed_generation: int | None = None
    conditions: list[Condition] = Field(default_factory=list)


class Addressable(Model):
    """Where an object can be called from within."""

    url: str | None = None

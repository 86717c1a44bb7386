"""Reads requests and guards what answers them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from upwell.functions.api.names import is_dns_1123_label
from upwell.functions.errors import InvalidInput, NotFound, UpwellError
from upwell.runtime.api.resources import resource_of
from upwell.runtime.api.shapes import BODY_LIMIT, FieldFault, error_to_json
from upwell.runtime.cluster.interface import Manifest
from upwell.runtime.control.admission import Refused

LONGEST_TAIL: Final = 1_000_000
_WORDS: Final = {"true": True, "false": False, None: False}

_log = logging.getLogger("upwell.api")


class TooLarge(InvalidInput):
    """A request with more than can be held for it."""

    status: ClassVar[int] = 413


def guarded(endpoint: Callable[[Request], Awaitable[ASGIApp]]) -> Callable[[Request], Awaitable[ASGIApp]]:
    """`endpoint`, whose errors are answered: those of upwell in their own words, others as internal ones."""

    async def answer(request: Request) -> ASGIApp:
        try:
            return await endpoint(request)
        except Refused as error:
            return _told(error, tuple(FieldFault(error.index, each.path, each.message) for each in error.faults))
        except UpwellError as error:
            return _told(error)
        except ClientDisconnect:
            return Response()  # nobody reads it
        except Exception:
            _log.exception("a request failed", extra={"method": request.method, "path": request.url.path})
            return _told(UpwellError("internal error"))

    return answer


def _told(error: UpwellError, faults: tuple[FieldFault, ...] = (), status: int | None = None) -> Response:
    # What is quoted from a request may be text that has no bytes in UTF-8, and so everything is escaped.
    body = json.dumps(error_to_json(error, faults)).encode()
    return Response(body, status or error.status, media_type="application/json")


async def no_such_route(request: Request, error: Exception) -> Response:
    """Answers what Starlette has no route for, in the same shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = UpwellError(f"the platform's interface has no {request.method} {request.url.path}")
    return _told(told, status=status)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be applied."""

    manifests: list[Manifest]
    images: dict[str, str]
    dry_run: bool


async def read_batch(request: Request) -> Batch:
    """The body of an apply. Raises InvalidInput and TooLarge."""
    try:
        body = json.loads(await _read_body(request))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the request's body is no JSON") from error
    if not isinstance(body, dict):
        raise InvalidInput("the request's body is no object")
    manifests, images = body.get("manifests"), body.get("images", {})
    if not isinstance(manifests, list):
        raise InvalidInput("manifests must be a list")
    if not isinstance(images, dict) or not all(isinstance(each, str) for each in images.values()):
        raise InvalidInput("images must map names to a path or a command, as text")
    return Batch(manifests, images, body.get("dry_run") is True)


async def _read_body(request: Request) -> bytes:
    too_large = TooLarge(f"more than {BODY_LIMIT >> 20} MiB at once", hint="Apply fewer manifests at a time.")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > BODY_LIMIT:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT:
            raise too_large
    return bytes(body)


def read_kind(request: Request) -> str:
    """The kind in the path. Raises NotFound for one that is not served."""
    kind: str = request.path_params["kind"]
    if resource_of(kind) is None:
        raise NotFound(f"there is no kind {kind}")
    return kind


def read_labels(request: Request) -> Mapping[str, str] | None:
    """The labels that are asked for. Raises InvalidInput."""
    labels = {}
    for given in request.query_params.getlist("label"):
        name, equals, value = given.partition("=")
        if not equals:
            raise InvalidInput(f"{given!r} is not NAME=VALUE", where="label")
        labels[name] = value
    return labels or None


def read_name(given: str, where: str) -> str:
    """A name that may become part of a path. Raises InvalidInput."""
    if not is_dns_1123_label(given):
        raise InvalidInput(f"{given!r} is no name", where=where)
    return given


def read_flag(request: Request, name: str) -> bool:
    """A query parameter that is true or false; false when it is not given. Raises InvalidInput."""
    given = request.query_params.get(name)
    if given not in _WORDS:
        raise InvalidInput(f"{given!r} is not true or false", where=name)
    return _WORDS[given]


def read_seconds(request: Request, name: str) -> float | None:
    """A length of time that is asked for, None when it is not. Raises InvalidInput."""
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidInput(f"{given[:20]!r} is no number of seconds", where=name)
    return seconds


def read_one_of(request: Request, name: str, allowed: Collection[str]) -> str | None:
    """A query parameter that is one of `allowed`, None when it is not given. Raises InvalidInput."""
    given = request.query_params.get(name)
    if given is not None and given not in allowed:
        raise InvalidInput(f"{given[:64]!r} is none of {', '.join(allowed)}", where=name)
    return given


def read_tail(request: Request) -> int | None:
    """How many lines are asked for, None for all. Raises InvalidInput."""
    given: Any = request.query_params.get("tail")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:12]) <= LONGEST_TAIL):
        raise InvalidInput(f"{given[:20]!r} is not a whole number to {LONGEST_TAIL}", where="tail")
    return int(given)

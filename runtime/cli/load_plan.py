"""The run that the options of `upwell load` ask for."""

from __future__ import annotations

import ssl
import uuid
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import SplitResult, urlsplit

from upwell.functions.errors import InvalidInput, InvalidSettings
from upwell.runtime.api.client import Client
from upwell.runtime.cli.named import DEFAULT_NAMESPACE, service_name
from upwell.runtime.cli.options import pairs
from upwell.runtime.cli.sending import gateway_address, read_body, service_host
from upwell.runtime.load.dial import Place
from upwell.runtime.load.parts import Field, read_field
from upwell.runtime.load.plan import EVERYTHING, Load, LoadClass, read_class
from upwell.runtime.load.requests import Event, EventMode, Outline

DEFAULT_RATE: Final = 8.0
"""As fortio has it."""
DEFAULT_SECONDS: Final = 5.0
OPEN_CONNECTIONS: Final = 1000
CLOSED_CONNECTIONS: Final = 4
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Given:
    """The options as they were given; None where one was not."""

    target: str
    rate: float | None
    connections: int | None
    seconds: float | None
    count: int | None
    arrivals: str
    seed: int
    headers: tuple[str, ...]
    body: str | None
    method: str | None
    path: str
    classes: tuple[str, ...]
    event: str | None
    event_mode: str
    source: str
    id_prefix: str | None
    extensions: tuple[str, ...]
    timeout: float
    no_keepalive: bool
    insecure: bool
    cacert: str | None
    namespace: str | None


def plan_load(client: Client, given: Given) -> Load:
    """The run that is asked for. Raises InvalidSettings and InvalidInput, and what the platform tells."""
    if given.timeout <= 0:
        raise InvalidSettings("nothing can come in no time", where="--timeout")
    url = _url(given.target) if "://" in given.target else None
    classes = _classes(given, "" if url is None else url.netloc, _path(given, url))
    if url is None:
        host, place = _service(client, given)
        classes = tuple(_at(each, host) for each in classes)
        shown = f"http://{host}{classes[0].outline.target}"
    else:
        tls = _tls(given) if url.scheme == "https" else None
        place = Place(url.hostname or "", url.port or _PORTS[url.scheme], tls)
        shown = given.target
    rate = given.rate if given.rate is not None else DEFAULT_RATE if given.connections is None else 0.0
    seconds = DEFAULT_SECONDS if given.seconds is None else given.seconds
    return Load(
        place=place,
        url=shown,
        classes=classes,
        connections=given.connections or (OPEN_CONNECTIONS if rate else CLOSED_CONNECTIONS),
        rate=rate or None,
        is_poisson=given.arrivals == "poisson",
        seed=given.seed,
        seconds=seconds or None,
        count=given.count or None,
        timeout=given.timeout,
        keep_alive=not given.no_keepalive,
    )


def _url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        known = url.scheme in _PORTS and url.hostname and url.netloc.isascii() and url.port != 0
    except ValueError:
        known = None
    if not known or url.username is not None:
        hint = "Write http://HOST[:PORT]/PATH or https."
        raise InvalidSettings("it is no URL to send to", where=text, hint=hint)
    return url


def _path(given: Given, url: SplitResult | None) -> str:
    if url is None:
        return given.path if given.path.startswith("/") else f"/{given.path}"
    if given.path != "/":
        raise InvalidSettings("the path stands in the URL already", where="--path")
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def _tls(given: Given) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.cacert)
    except OSError as error:
        raise InvalidInput("no certificates can be read from it", where=f"--cacert {given.cacert}") from error
    if given.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _service(client: Client, given: Given) -> tuple[str, Place]:
    """Its host, and the place of the gateway at an address of this machine."""
    namespace, name = given.namespace or DEFAULT_NAMESPACE, service_name(given.target)
    return service_host(client, namespace, name), Place(*gateway_address(client))


# What is sent


def _classes(given: Given, host: str, target: str) -> tuple[LoadClass, ...]:
    """As given, or one of everything. Raises InvalidSettings."""
    fields = tuple(read_field(each, "--header") for each in given.headers)
    body = None if given.body is None else read_body(given.body)
    event = _event(given)
    outline = Outline(
        method=given.method or ("GET" if body is None and event is None else "POST"),
        target=target,
        host=host,
        fields=fields,
        body=body,
        event=event,
        keep_alive=not given.no_keepalive,
    )
    read = [read_class(each) for each in given.classes]
    names = [name for name, _, _ in read]
    for name in names:
        if names.count(name) > 1:
            raise InvalidSettings(f"{name!r} stands for two classes", where="--class")
    if not read:
        return (LoadClass(EVERYTHING, outline),)
    return tuple(LoadClass(name, _with(outline, field), share) for name, field, share in read)


def _with(outline: Outline, field: Field) -> Outline:
    others = (each for each in outline.fields if each[0].lower() != field[0].lower())
    return replace(outline, fields=(*others, field))


def _at(each: LoadClass, host: str) -> LoadClass:
    return replace(each, outline=replace(each.outline, host=host))


def _event(given: Given) -> Event | None:
    if given.event is None:
        if given.id_prefix or given.extensions:
            where = "--id, --extension"
            raise InvalidSettings("there is no event to say this of", where=where, hint="Give --event.")
        return None
    prefix = f"load-{uuid.uuid4().hex[:8]}-" if given.id_prefix is None else given.id_prefix
    attributes = pairs(given.extensions, "--extension")
    return Event(given.event, given.source, prefix, attributes, EventMode(given.event_mode))

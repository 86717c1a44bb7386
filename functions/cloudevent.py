"""The one place that knows the CloudEvents library, in both of its major versions.

Version 1 has one class, `cloudevents.http.CloudEvent`. Version 2 keeps it as `cloudevents.v1.http.CloudEvent` and
adds `cloudevents.core`, with an event class for each version of the specification. The two families differ in how
they are built and in what Python value the data becomes; the annotation of a function says which one it gets.
Without one it gets the class that both majors have, so that its code means the same under either.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from upwell.functions.asgi import Headers
from upwell.functions.encoding import encode_json
from upwell.functions.errors import InvalidEvent, InvalidFunction
from upwell.functions.events import Event, is_json, parse_time
from upwell.functions.eventwriting import write_batch, write_event


@dataclass(frozen=True, slots=True)
class EventClass:
    """A class of the library: `versions` of the specification that it takes, and `build` from an event to one.

    `build` raises InvalidEvent for what the library refuses.
    """

    versions: tuple[str, ...]
    build: Callable[[Event], Any]


def event_class(wanted: type | None) -> EventClass:
    """How to build instances of `wanted`, or of the common class when None.

    Raises InvalidFunction when the library is not there.
    """
    if wanted is not None and any(base.__module__ == "cloudevents.core.base" for base in wanted.__mro__):
        return _core_class(wanted)
    return _classic_class(wanted)


def event_reply(event: Any) -> tuple[Headers, bytes]:
    """Headers and body that carry an event of either family, in binary mode.

    Raises InvalidResult for an attribute or data that cannot be sent.
    """
    attributes, body = _reply_of(event)
    return write_event(attributes, body), body


def batch_reply(events: Iterable[Any]) -> tuple[Headers, bytes]:
    """Headers and body that carry events of either family as a batch. Raises InvalidResult as `event_reply`."""
    return write_batch(_reply_of(each) for each in events)


def _reply_of(event: Any) -> tuple[dict[str, Any], bytes]:
    attributes = {name: value for name, value in event.get_attributes().items() if name != "data"}
    content_type = attributes.get("datacontenttype")
    data = event.get_data()
    if data is None:
        body = b""
    elif isinstance(data, bytes | bytearray | memoryview):
        body = bytes(data)
    elif isinstance(data, str) and (_is_core(type(event)) or not is_json(content_type)):
        body = data.encode()
    else:
        body = encode_json(data)
        attributes.setdefault("datacontenttype", "application/json")
    return attributes, body


def _classic_class(wanted: type | None) -> EventClass:
    create = getattr(_concrete(wanted), "create")  # noqa: B009  the class is known at run time only
    return EventClass(
        ("1.0", "0.3"), lambda event: _build(lambda: create(dict(event.attributes), _classic_data(event)))
    )


def _core_class(wanted: type) -> EventClass:
    if wanted.__module__ == "cloudevents.core.base":
        wanted = importlib.import_module("cloudevents.core.v1.event").CloudEvent

    def build(event: Event) -> Any:
        attributes: dict[str, Any] = dict(event.attributes)
        if "time" in attributes:
            attributes["time"] = parse_time(attributes["time"])
        return _build(lambda: wanted(attributes, _core_data(event)))

    return EventClass(("0.3" if ".v03." in wanted.__module__ else "1.0",), build)


def _build(create: Callable[[], Any]) -> Any:
    """The library checks again, and by rules of its own: what it refuses is the sender's fault too."""
    try:
        return create()
    except (ValueError, TypeError) as error:
        raise InvalidEvent("the CloudEvent is not one that this function's event class takes") from error
    except Exception as error:
        if type(error).__module__.startswith("cloudevents."):
            raise InvalidEvent(f"the CloudEvent is not valid: {error}") from error
        raise


def _concrete(wanted: type | None) -> type:
    """`wanted`, or the class that both majors have when it is open or abstract."""
    if wanted is not None and not wanted.__module__.endswith(".abstract.event"):
        return wanted
    for module in ("cloudevents.v1.http", "cloudevents.http"):
        try:
            found: type = importlib.import_module(module).CloudEvent
        except ModuleNotFoundError:
            continue
        return found
    raise InvalidFunction(
        "the function takes a CloudEvent, but the cloudevents package is not installed",
        hint="Install it: pip install cloudevents",
    )


def _is_core(kind: type) -> bool:
    return any(base.__module__ == "cloudevents.core.base" for base in kind.__mro__)


def _classic_data(event: Event) -> Any:
    """What parses as JSON becomes that, whatever its type; else the bytes: as the library has it."""
    if not event.encoded or event.data is None:
        return event.data
    try:
        return json.loads(event.data)
    except (ValueError, RecursionError):
        return event.data


def _core_data(event: Event) -> Any:
    """JSON where the content type says so, else text, else bytes, as `cloudevents.core` has it."""
    if not event.encoded or event.data is None:
        return event.data
    content_type = event.attributes.get("datacontenttype")
    try:
        text = event.data.decode("utf-8")
    except UnicodeDecodeError:
        return event.data
    if is_json(content_type if isinstance(content_type, str) else None):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text

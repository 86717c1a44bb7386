"""Waits until Services are ready, watching them."""

from __future__ import annotations

from typing import Any, NamedTuple

from upwell.functions.errors import NotFound, Unavailable, UpwellError
from upwell.runtime.api.client import Client
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.kinds import SERVICE
from upwell.runtime.control.conditions import READY, StatusCondition, find_for_generation


class Awaited(NamedTuple):
    """A Service, in the generation that was applied or a later one."""

    namespace: str
    name: str
    generation: int

    def __str__(self) -> str:
        return f"{SERVICE.lower()}/{self.name}"


class NotReady(UpwellError):
    """A Service is not ready, or was not in time; `what` is the message of its condition."""


def wait_ready(client: Client, service: Awaited, deadline: float, clock: Clock) -> str:
    """The URL of `service` once it is ready.

    Raises NotReady when it cannot become so, and when it has not by `deadline`, of the monotonic clock.
    """
    condition: StatusCondition | None = None

    def remaining() -> float:
        return deadline - clock.monotonic()

    watch = client.watch(SERVICE, service.namespace, service.name, remaining=remaining)
    try:
        for line in watch:
            if "deleted" in line:
                raise NotFound("was deleted meanwhile", where=str(service))
            manifest: dict[str, Any] = line.get("object") or {}
            if manifest and manifest["metadata"]["generation"] >= service.generation:
                condition = find_for_generation(manifest, READY)
                if condition is not None and condition.status == "True":
                    return str(manifest["status"].get("url", ""))
                if condition is not None and condition.status == "False":
                    raise NotReady(_message(condition), where=str(service))
            if remaining() <= 0:
                raise TimeoutError
    except TimeoutError:
        hint = "It goes on becoming ready; see upwell describe ksvc " + service.name
        raise NotReady(f"not ready in time: {_message(condition)}", where=str(service), hint=hint) from None
    raise Unavailable("the platform ended meanwhile", where=str(client.socket))


def _message(condition: StatusCondition | None) -> str:
    if condition is None:
        return "nothing has been said of it yet"
    return condition.message or condition.reason or f"Ready is {condition.status}"

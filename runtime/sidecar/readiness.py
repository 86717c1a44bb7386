"""Whether the container is ready, asked for each probe of the kubelet, as Knative's queue-proxy does.

The kubelet asks us and we ask the container. A probe without a period is an eager one: it is tried every 50 ms for
up to ten seconds before the answer is no, so that a container counts as ready as soon as it is. Probes that arrive
while one is under way share its answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from upwell.functions.errors import InvalidFunction, InvalidSettings
from upwell.runtime.clock import Clock
from upwell.runtime.sidecar.checks import Target, carry_out
from upwell.runtime.sidecar.probing import Action, Exec, Sleep, TcpConnect, read_action

EAGER_SECONDS: Final = 10.0
EAGER_PAUSE: Final = 0.05
EAGER_TIMEOUT: Final = 0.1
VARIABLE: Final = "SERVING_READINESS_PROBE"


@dataclass(frozen=True, slots=True)
class ReadinessProbe:
    """One declared probe; `period` 0 makes it eager. Times in seconds."""

    action: Action
    period: float = 0.0
    timeout: float = 1.0
    success_threshold: int = 1


def read_probes(text: str, own_port: int) -> tuple[ReadinessProbe, ...]:
    """The probes in a JSON object, or in an array of them. Raises InvalidSettings."""
    try:
        declared = json.loads(text)
        return tuple(_read(each, own_port) for each in (declared if isinstance(declared, list) else [declared]))
    except (InvalidFunction, ValueError, TypeError, AttributeError) as error:
        what = error.what if isinstance(error, InvalidFunction) else "the probe is not a JSON object of Kubernetes"
        raise InvalidSettings(what, where=VARIABLE) from error


def _read(declared: dict[str, Any], own_port: int) -> ReadinessProbe:
    action = read_action(declared, own_port, VARIABLE) or TcpConnect()
    if isinstance(action, Exec | Sleep):
        raise InvalidSettings(
            "a command cannot be run in another container", where=VARIABLE, hint="Use httpGet, tcpSocket or grpc."
        )
    return ReadinessProbe(
        action,
        period=float(declared.get("periodSeconds") or 0),
        timeout=float(declared.get("timeoutSeconds") or 1),
        success_threshold=int(declared.get("successThreshold") or 1),
    )


class ContainerReadiness:
    """Asks all `probes` of the container at `target`. Owns the task that asks, until `aclose`."""

    def __init__(self, probes: tuple[ReadinessProbe, ...], target: Target, clock: Clock) -> None:
        self._probes = probes
        self._target = target
        self._clock = clock
        self._asking: asyncio.Task[bool] | None = None

    def ask(self, told: Callable[[bool], None]) -> None:
        """Have `told` called with the answer, within `EAGER_SECONDS` or the longest declared timeout."""
        if not self._probes:
            told(True)
            return
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_all(), name="readiness")
            self._asking.add_done_callback(self._answered)
        self._asking.add_done_callback(lambda task: told(not task.cancelled() and task.result()))

    async def aclose(self) -> None:
        """Ask no more; who waits is told no."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    def _answered(self, task: asyncio.Task[bool]) -> None:
        self._asking = None

    async def _ask_all(self) -> bool:
        return all(await asyncio.gather(*map(self._ask_one, self._probes)))

    async def _ask_one(self, probe: ReadinessProbe) -> bool:
        if probe.period:
            return (await carry_out(probe.action, self._target, probe.timeout)).passed
        began = self._clock.monotonic()
        successes = 0
        while True:
            passed = (await carry_out(probe.action, self._target, EAGER_TIMEOUT)).passed
            successes = successes + 1 if passed else 0
            if successes >= probe.success_threshold:
                return True
            if self._clock.monotonic() + EAGER_PAUSE >= began + EAGER_SECONDS:
                return False
            await asyncio.sleep(EAGER_PAUSE)

"""From stored policies to the gateway, and what each says of itself in its status.

All of them are put in force together, first when every one that was stored is known, then at each change. One that
cannot be read (another version stored it) is not in force: its last good state stays, and a condition says what is
wrong. A policy that acts nowhere says so too, until there is something for it to act on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from pydantic import ValidationError

from upwell.functions.api.meta import faults
from upwell.functions.api.policies import PolicyResource
from upwell.functions.api.policy_kinds import POLICY_KINDS
from upwell.runtime.clock import Clock
from upwell.runtime.cluster.interface import Manifest, ObjectChange, ObjectKey, ObjectStore
from upwell.runtime.cluster.kinds import type_of
from upwell.runtime.control.conditions import READY, StatusCondition, merge
from upwell.runtime.workqueue import Controller

SETTLE_SECONDS: Final = 0.2
"""Between a change of what policies act on and the statuses that tell of it: changes come in rows."""
PROGRAM_INTERVAL_SECONDS: Final = 0.01
"""At the least between two times that policies are put in force, which costs what all places cost."""
PROGRAM_SHARE: Final = 0.1
"""Of the event loop's time for that while policies keep changing; the rest is for requests."""
PLACES_TOLD: Final = 20
"""Of a policy that acts on many, in its status."""
ASM_GROUP: Final = "istio.alibabacloud.com/"
_LISTS_MESSAGES: Final = ("ASMCircuitBreaker",)
"""Alibaba's schema gives these a list where the others have a text."""
_NOWHERE: Final = (
    "no route or revision is what its hosts, ports and selector name. `upwell get rt,rev -A` lists them; a policy"
    " of {} acts on those of its namespace alone, unless that is one of the operator's"
)


_log = logging.getLogger("upwell.control.policies")


class PolicedGateway(Protocol):
    """What is told of policies."""

    def set_policies(self, resources: Iterable[PolicyResource]) -> None:
        """All of them as they are now."""
        ...

    def policy_matches(self) -> Mapping[str, Sequence[str]]:
        """Where each policy acts, by `KIND NAMESPACE/NAME`."""
        ...

    @property
    def policies_resolved(self) -> asyncio.Event:
        """Set whenever it may have changed where policies act."""
        ...


class PolicyFollower:
    """Keeps the gateway told of every policy, and every policy's status true."""

    def __init__(self, objects: ObjectStore, gateway: PolicedGateway, clock: Clock) -> None:
        self._objects = objects
        self._gateway = gateway
        self._clock = clock
        self.is_programmed = asyncio.Event()
        """Set once the gateway has every policy that was stored when this began."""
        self._good: dict[ObjectKey, PolicyResource] = {}
        self._stored: dict[ObjectKey, tuple[str, int]] = {}
        """What was read of each, by uid and generation."""
        self._wrong: dict[ObjectKey, str] = {}
        self._told: dict[ObjectKey, tuple[str, ...]] = {}
        self._to_tell: set[ObjectKey] = set()
        self._to_program = asyncio.Event()
        self._telling: Controller[ObjectKey] = Controller("policy-status", self._tell)

    def __repr__(self) -> str:
        return f"<PolicyFollower {len(self._good)} policies, {len(self._wrong)} that cannot be read>"

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._telling.run(), name="policy-status")
            group.create_task(self._program(), name="policies")
            group.create_task(self._notice(), name="policy-matches")
            await self._follow()

    async def _follow(self) -> None:
        is_synced = False
        async with contextlib.aclosing(self._objects.watch(*POLICY_KINDS)) as changes:
            async for change in changes:
                if not isinstance(change, ObjectChange):
                    is_synced = True
                elif not self._changed(change.key, change.manifest):
                    continue
                if isinstance(change, ObjectChange):
                    self._to_tell.add(change.key)
                if is_synced:
                    self._to_program.set()

    def _changed(self, key: ObjectKey, manifest: Manifest | None) -> bool:
        """Whether the object is another, and not only its status."""
        if manifest is None:
            for known in (self._stored, self._wrong, self._told, self._good):
                known.pop(key, None)
            return True
        metadata = manifest["metadata"]
        version = (metadata["uid"], metadata["generation"])
        if self._stored.get(key) == version:
            return False
        self._stored[key] = version
        try:
            self._good[key] = read_policy(manifest)
        except ValidationError as error:
            self._wrong[key] = "; ".join(f"{fault.field}: {fault.message}" for fault in faults(error))
        else:
            self._wrong.pop(key, None)
        return True

    async def _program(self) -> None:
        """Put in force what changed: at once for a change that comes alone, together for those in a row."""
        loop = asyncio.get_running_loop()
        while True:
            await self._to_program.wait()
            self._to_program.clear()
            began = loop.time()
            try:
                self._gateway.set_policies(self._good.values())
            except Exception:  # the platform goes on, and the next change may mend it
                _log.exception("policies could not be put in force")
            self.is_programmed.set()
            changed, self._to_tell = self._to_tell, set()
            for key in sorted(changed):
                self._telling.queue.add(key)
            await asyncio.sleep(max(PROGRAM_INTERVAL_SECONDS, (loop.time() - began) / PROGRAM_SHARE))

    async def _notice(self) -> None:
        resolved = self._gateway.policies_resolved
        while True:
            await resolved.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            resolved.clear()
            matches = self._gateway.policy_matches()
            for key in self._stored:
                if self._told.get(key) != tuple(matches.get(_name(key), ())):
                    self._telling.queue.add(key)

    async def _tell(self, key: ObjectKey) -> None:
        """Write what is to be said of a policy, if its object is there and says something else."""
        manifest = await self._objects.get(key)
        if manifest is None or self._stored.get(key, ("",))[0] != manifest["metadata"]["uid"]:
            return
        places = tuple(self._gateway.policy_matches().get(_name(key), ()))
        wrong = self._wrong.get(key)
        if wrong is not None and key in self._good:
            wrong = f"{wrong}; what was in force before stays so"
        status = policy_status(manifest, places, wrong, self._clock.now())
        if status != manifest.get("status"):
            await self._objects.update_status(manifest | {"status": status})
        self._told[key] = places


def read_policy(manifest: Manifest) -> PolicyResource:
    """The policy that an object of one of POLICY_KINDS holds. Raises pydantic's ValidationError."""
    model = POLICY_KINDS[type_of(manifest)]
    lifted, _ = model.lift(manifest)
    return model.model_validate(lifted)


def policy_status(manifest: Manifest, places: Sequence[str], wrong: str | None, now: float) -> dict[str, Any]:
    """What a policy says of itself: where it acts, that it acts nowhere, or what is wrong with it."""
    if wrong is not None:
        condition = StatusCondition(READY, "False", "Invalid", wrong)
    elif not places:
        nowhere = _NOWHERE.format(manifest["metadata"]["namespace"])
        condition = StatusCondition(READY, "False", "NothingMatched", nowhere)
    else:
        more = f" and {len(places) - PLACES_TOLD} more" if len(places) > PLACES_TOLD else ""
        condition = StatusCondition(READY, "True", "", f"acts on {', '.join(places[:PLACES_TOLD])}{more}")
    told: dict[str, Any] = {}
    if manifest["apiVersion"].startswith(ASM_GROUP):
        message = condition.message
        told["status"] = "Successful" if condition.status == "True" else condition.reason
        told["message"] = [message] if manifest["kind"] in _LISTS_MESSAGES else message
    return {
        "observedGeneration": manifest["metadata"]["generation"],
        "conditions": merge(manifest, [condition], now),
        **told,
    }


def _name(key: ObjectKey) -> str:
    return f"{key.kind.partition('.')[0]} {key.namespace}/{key.name}"

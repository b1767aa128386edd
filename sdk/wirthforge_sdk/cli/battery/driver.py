"""Has the hostile plugin attack, one attack after the other, and judges from outside what the plugin cannot know."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from wirthforge_sdk.cli.battery.catalogue import (
    HOSTILE,
    QUIET,
    TREASURE,
    Attack,
    Disturbance,
    Finding,
    Judge,
    read_catalogue,
)
from wirthforge_sdk.cli.battery.watching import Watch, processes_of
from wirthforge_sdk.cli.staging import DemoFailedError, docker
from wirthforge_sdk.errors import WirthForgeError

if TYPE_CHECKING:
    from wirthforge_sdk.client import HostClient
    from wirthforge_sdk.contracts.audit_api import AuditOut
    from wirthforge_sdk.contracts.host_api import CallOut, InstanceOut

CALL_S: Final = 20.0
DIG_IN_S: Final = 3.0
"""For an attack that may well stop itself too."""
NEIGHBOUR_MS: Final = 2000.0
"""A neighbour that waits longer was disturbed beyond what shared processors explain."""
END_S: Final = 15.0
"""Until an instance that ends is gone; the host gives a line 30 s, 20 of which the call lasts."""
STOP_S: Final = 10.0
READY_S: Final = 60.0
"""Until it runs again, when it is started anew."""
GREET_S: Final = 5.0
RECORD_S: Final = 15.0
"""Until what happened is in the audit log."""
POLL_S: Final = 0.03
PAGE: Final = 200
REPAIRED: Final = "plugin.repaired"
"""The audit record of a process that crashed and has a successor in the same sandbox."""
KILLED: Final = "plugin.kill"
DEADLY: Final = "forbidden_call:"
"""How the cause begins when the host kills an instance because the kernel ended a process of it at a system call."""


@dataclass(frozen=True, slots=True)
class _Told:
    """How the call of an attack ended."""

    reached: bool
    detail: str
    stopped_by: str
    answered: bool


class Siege:
    """A host with the hostile plugin and the quiet one installed, and both running.

    Args:
        host: The host, as its operator.
        watch: Of the neighbour and the host's process, at work.
    """

    def __init__(self, host: HostClient, watch: Watch) -> None:
        self._host = host
        self._watch = watch
        self._last = 0
        """Newest audit record that was there before the attack."""

    async def catalogue(self, only: str | None = None) -> list[Attack]:
        """The attacks of all groups, or of one.

        Raises:
            DemoFailedError: There is no such group.
        """
        answer = await self._host.call(HOSTILE, "battery", timeout_s=CALL_S)
        every = read_catalogue(answer.structured)
        wanted = [attack for attack in every if only in (None, attack.group)]
        if not wanted:
            groups = ", ".join(dict.fromkeys(attack.group for attack in every))
            raise DemoFailedError(f"there is no group '{only}': there are {groups}")
        return wanted

    async def run(self, attacks: Sequence[Attack]) -> AsyncIterator[Finding]:
        """Makes the attacks and yields what came of each.

        Those that dig in are made together and judged by one stop; what ends the instance comes last.

        Raises:
            TimeoutError: The hostile plugin does not start again.
        """
        await self._host.call(QUIET, "hide", {"treasure": TREASURE}, timeout_s=CALL_S)
        for judge in (Judge.ITSELF, Judge.BRIDGE, Judge.HARMLESS):
            for attack in attacks:
                if attack.judge is judge:
                    yield await self._made(attack)
        async for finding in self._outlasted([each for each in attacks if each.judge is Judge.STOPPING]):
            yield finding
        for attack in attacks:
            if attack.judge is Judge.ENDING:
                yield await self._ended(attack)

    async def _made(self, attack: Attack) -> Finding:
        await self._ready()
        told = await self._call(attack)
        if not told.answered:
            told = await self._killed(told)
        evidence, disturbance = await asyncio.gather(self._evidence(attack), self._watch.reading())
        if attack.judge is Judge.BRIDGE:
            told = _by_records(told, evidence)
        return self._finding(attack, told, evidence, disturbance)

    async def _outlasted(self, attacks: Sequence[Attack]) -> AsyncIterator[Finding]:
        if not attacks:
            return
        instance = await self._ready()
        planted = []
        for attack in attacks:
            await self._mark()
            told = await self._call(attack, DIG_IN_S)
            planted.append((attack, told, await self._evidence(attack)))
        began = time.monotonic()
        await self._host.disable(HOSTILE)
        left = await self._left_of(instance, STOP_S, processes=True)
        seconds = time.monotonic() - began
        detail = f"left: {left}" if left else f"all gone {seconds:.1f} s after it was disabled"
        disturbance = await self._watch.reading()
        for attack, told, evidence in planted:
            judged = replace(
                told, reached=bool(left), detail=detail, stopped_by="" if left else "supervision"
            )
            yield self._finding(attack, judged, evidence, disturbance)

    async def _ended(self, attack: Attack) -> Finding:
        instance = await self._ready()
        processes = len(processes_of(instance.uid))
        told = await self._call(attack)
        if told.answered:
            evidence = await self._evidence(attack)
            # What it took is not always given back while it lives, and shall not be told of the next attack.
            await self._host.disable(HOSTILE)
        else:
            end = await self._first("plugin.state", REPAIRED)
            cause = str(end.detail.get("cause", end.detail)) if end else told.detail
            if end and end.action == REPAIRED:
                left = await self._beyond(processes, instance, END_S)
            else:
                left = await self._left_of(instance, END_S, processes=False)
            evidence = await self._evidence(attack)
            layer = (
                "bridge" if any(record.action == "bridge.breach" for record in evidence) else "supervision"
            )
            layer = "memory cgroup" if "out of memory" in cause else layer
            detail = f"left: {left}" if left else cause
            told = _Told(bool(left), detail, "" if left else layer, answered=False)
        return self._finding(attack, told, evidence, await self._watch.reading())

    async def _ready(self) -> InstanceOut:
        """The instance of the hostile plugin once it answers, started anew where it must."""
        async with asyncio.timeout(READY_S):
            while True:
                plugin = await self._host.plugin(HOSTILE)
                if plugin.instance is not None and await self._answers():
                    break
                if plugin.state in {"quarantined", "paused"}:
                    await self._host.disable(HOSTILE)
                with suppress(WirthForgeError):
                    await self._host.enable(HOSTILE)
                await asyncio.sleep(POLL_S)
        await self._mark()
        return plugin.instance

    async def _answers(self) -> bool:
        try:
            answer = await self._host.call(HOSTILE, "greet", timeout_s=GREET_S)
        except WirthForgeError:
            return False
        return not answer.is_error

    async def _killed(self, told: _Told) -> _Told:
        """What came of a call without an answer: none is owed where the system call it made killed the instance.

        The kernel ends the child that makes a deadly call, and the host then the instance; on a busy machine that
        takes less than the answer about the child.
        """
        kill = await self._first(KILLED)
        cause = str(kill.detail.get("cause", "")) if kill else ""
        if not cause.startswith(DEADLY):
            return told
        return replace(told, reached=False, detail=cause, stopped_by="seccomp")

    async def _first(self, *actions: str) -> AuditOut | None:
        """The first record of one of these actions since the attack began; None when it does not come in time."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            page = await self._host.audit(plugin=HOSTILE, limit=PAGE)
            newer = [record for record in page.items[::-1] if record.id > self._last]
            for record in newer:
                if record.action in actions:
                    return record
            await asyncio.sleep(POLL_S)
        return None

    async def _mark(self) -> None:
        newest = (await self._host.audit(limit=1)).items
        self._last = newest[0].id if newest else 0

    async def _call(self, attack: Attack, timeout_s: float = CALL_S) -> _Told:
        try:
            answer = await self._host.call(HOSTILE, attack.name, timeout_s=timeout_s)
        except WirthForgeError as error:
            return _Told(reached=True, detail=error.message, stopped_by="", answered=False)
        return _told(answer)

    async def _evidence(self, attack: Attack) -> list[AuditOut]:
        """The records of the attack, oldest first: its call among them, and what the host has against it."""
        deadline = time.monotonic() + RECORD_S
        while True:
            page = await self._host.audit(plugin=HOSTILE, limit=PAGE)
            found = [record for record in page.items if record.id > self._last][::-1]
            called = any(_is_call(record, attack) for record in found)
            shown = attack.judge is not Judge.BRIDGE or any(map(_is_against, found))
            if (called and shown) or time.monotonic() > deadline:
                return found
            await asyncio.sleep(POLL_S)

    async def _left_of(self, instance: InstanceOut, timeout_s: float, *, processes: bool) -> list[str]:
        """What is left of an instance when it should be gone; waits that long."""
        deadline = time.monotonic() + timeout_s
        while True:
            words = ("ps", "--all", "--quiet", "--filter", f"label=wirthforge.instance={instance.id}")
            left = [f"container {name}" for name in (await asyncio.to_thread(docker, *words)).split()]
            left += [f"process {pid}" for pid in processes_of(instance.uid)] if processes else []
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(POLL_S)

    async def _beyond(self, most: int, instance: InstanceOut, timeout_s: float) -> list[str]:
        """The processes of a repaired instance, where they are more than it had; waits that long for them to go."""
        deadline = time.monotonic() + timeout_s
        while len(found := processes_of(instance.uid)) > most:
            if time.monotonic() > deadline:
                return [f"process {pid}" for pid in found]
            await asyncio.sleep(POLL_S)
        return []

    def _finding(
        self, attack: Attack, told: _Told, evidence: Sequence[AuditOut], disturbance: Disturbance
    ) -> Finding:
        record = next(filter(_is_against, evidence), None) or next(
            (record for record in evidence if _is_call(record, attack)), None
        )
        reasons = [*_misattributed(attack, evidence), *_disturbed(disturbance)]
        reasons += [] if record else ["nothing of it is on record"]
        reasons = [told.detail, *reasons] if told.reached else reasons
        return Finding(
            attack=attack,
            reached=bool(reasons),
            stopped_by="" if reasons else told.stopped_by,
            detail="; ".join(reasons) or told.detail,
            audit_id=record.id if record else None,
            record=f"#{record.id} {record.action} {record.outcome} {json.dumps(record.detail)}"
            if record
            else "",
            disturbance=disturbance,
        )


def _told(answer: CallOut) -> _Told:
    told: Any = answer.structured
    if answer.is_error or not isinstance(told, dict) or not isinstance(told.get("reached"), bool):
        return _Told(
            reached=True, detail=f"it answered {str(answer.content)[:200]}", stopped_by="", answered=True
        )
    return _Told(told["reached"], str(told["detail"])[:300], str(told["stopped_by"]), answered=True)


def _by_records(told: _Told, evidence: Sequence[AuditOut]) -> _Told:
    """What the host has on record decides: nothing that needs a permission may have been allowed."""
    against = list(filter(_is_against, evidence))
    allowed = [each for each in evidence if each.outcome == "allowed" and each.detail.get("permission")]
    if allowed:
        return replace(told, reached=True, detail=f"the host allowed {allowed[0].detail}")
    if not against:
        return replace(told, reached=True, detail="the host has nothing against it on record")
    denied = any(record.outcome == "denied" and record.action == "host_call" for record in against)
    reason = against[0].detail.get("reason") or against[0].detail.get("code") or against[0].action
    return _Told(
        reached=False,
        detail=f"{told.detail}; {reason}" if told.answered else str(reason),
        stopped_by="permission" if denied else "bridge",
        answered=True,
    )


def _is_call(record: AuditOut, attack: Attack) -> bool:
    return record.action == "call" and record.detail.get("function") == attack.name


def _is_against(record: AuditOut) -> bool:
    return record.action in {"bridge.breach", "host_call", "host_call.more"} and record.outcome != "allowed"


def _misattributed(attack: Attack, evidence: Sequence[AuditOut]) -> list[str]:
    """Host calls of the attack that are on record as made for a call which is not its own."""
    own = {record.detail.get("call") for record in evidence if _is_call(record, attack)}
    strange = [
        record.detail["call"]
        for record in evidence
        if record.action == "host_call" and record.detail.get("call") not in own | {None}
    ]
    return [f"its acts are on record as those of {strange[0]}"] if strange else []


def _disturbed(disturbance: Disturbance) -> list[str]:
    if disturbance.faults:
        return [f"a neighbour was disturbed: {disturbance.faults[0]}"]
    if disturbance.longest_ms > NEIGHBOUR_MS:
        return [f"a neighbour waited {disturbance.longest_ms:.0f} ms"]
    return []

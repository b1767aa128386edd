"""Opens and closes instances: a user id, a socket, a sandbox, a handshake, the functions compared, a self-test.

What is begun is written down first and forgotten last, so that whatever interrupts, :meth:`Instances.sweep` finds what
is left and removes it.
"""

from __future__ import annotations

import asyncio
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from wirthforge_host.bridge import Bridge, Peer, Session
from wirthforge_host.configuration import Provision
from wirthforge_host.egress import Egress
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.logs import Logs
from wirthforge_host.permissions.service import Permissions
from wirthforge_host.plugins import directories
from wirthforge_host.plugins.admission import admit
from wirthforge_host.plugins.drift import Offer
from wirthforge_host.plugins.examination import connected, examine
from wirthforge_host.plugins.functions import Functions
from wirthforge_host.plugins.gate import Gate
from wirthforge_host.plugins.instance import Begun, Instance
from wirthforge_host.plugins.models import InstanceRecord, PluginRecord, Start
from wirthforge_host.plugins.pool import Pool, was_blank
from wirthforge_host.plugins.roster import Roster
from wirthforge_host.plugins.sleep import Sleep
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.resources.service import Resources
from wirthforge_host.sandbox.grade import Grade
from wirthforge_host.sandbox.hardening import limited
from wirthforge_host.sandbox.models import ContainerState, EventKind, SandboxRequest
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.sandbox.service import Inspection, Sandboxes
from wirthforge_host.settings import Settings
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.policy import SecurityPolicy, limits_for
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.contracts.resources_api import Priority
from wirthforge_sdk.errors import LimitExceededError, UnavailableError

EXIT_S = 2.0
"""How long after its connection ended a process may take to end itself, before its death is explained without it."""

RESUBSCRIBE_S = 1.0
"""Pause before asking an engine for its events again."""

ADOPT_S = 5.0
"""How long an instance whose host went may take to connect to the next one."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """The instances of this host."""

    engine: ContainerEngine
    host_id: str
    sandboxes: Sandboxes
    bridge: Bridge
    egress: Egress
    resources: Resources
    permissions: Permissions
    functions: Functions
    logs: Logs
    trees: Trees
    roster: Roster
    pool: Pool
    settings: Settings
    policy: SecurityPolicy
    provision: Provision
    directory: Path
    """Holds the socket of each instance, in a directory of its own."""
    now: Callable[[], datetime]
    _begun: dict[str, Begun] = field(default_factory=dict)
    """By id, from first trace to last."""

    async def open(
        self, record: PluginRecord, *, on_lost: Callable[[], None], shadows: bool = False
    ) -> Instance:
        """Starts an instance of the plugin's release. When it fails, nothing is left.

        One that ``shadows`` may change nothing by way of the host, from its first line on.

        Raises:
            FunctionDriftError: It offers other functions than those that were signed and approved.
            SandboxMismatchError: The engine did not lock it down as asked.
            PluginUnavailableError: It did not connect, greet or pass its self-test; says why, as far as is known.
            PolicyViolationError: The operator's policy does not let it run, or not in such a sandbox.
            LimitExceededError: The host runs as many instances as it may.
            NotProvisionedError: A required setting or secret is missing; names it.
            UnavailableError: The engine or the database does not answer, which is no fault of the plugin's.
        """
        # Not at the install alone: a policy that was narrowed since holds for what is installed, too.
        admit(record.release.manifest, self.policy)
        _, approved, allowance = await asyncio.gather(
            self.provision.require(record.release.manifest),
            self.functions.approved(record),
            self._allowance(record),
        )
        with self.pool.starting():
            began = time.monotonic()
            begun = await self._begin(record, *allowance)
            begun.shadows = shadows
            try:
                await self._connect(begun, record, on_lost)
                greeted = await self.greet(begun, record, approved, self.settings.start_timeout_s)
                return await self._ready(begun, record, greeted, began)
            except PluginUnavailableError as error:
                try:
                    cause = await self._obituary(begun, error.message)
                finally:
                    await asyncio.shield(self._end(begun))
                raise PluginUnavailableError(cause, plugin=record.name) from error
            except BaseException:
                await asyncio.shield(self._end(begun))
                raise

    async def adopt(
        self,
        record: PluginRecord,
        left: InstanceRecord,
        found: ContainerState,
        *,
        on_lost: Callable[[], None],
    ) -> Instance:
        """Takes over an instance that a host before this one left. When it fails, it stays as it was.

        Raises:
            ConflictError: It is not what a start would make now, and cannot be made so while it runs.
            SandboxMismatchError: It is not locked down as it was made.
            FunctionDriftError: It offers other functions than those that were signed and approved.
            PluginUnavailableError: It did not connect again, greet or pass its self-test.
            UnavailableError: The engine does not answer.
        """
        limits, priority = await self._allowance(record)
        start = Start(is_warm=was_blank(found), why="by a host before this one, which it outlived")
        begun = self._begun[left.id] = Begun(record=left, limits=limits, priority=priority, start=start)
        began = time.monotonic() - max(0.0, (self.now() - left.started_at).total_seconds())
        try:
            begun.sandbox = await self.sandboxes.adopt(self._request(begun, record), found)
            await self._listen(begun, record, on_lost)
            greeted = await self.greet(begun, record, await self.functions.approved(record), ADOPT_S)
            return await self._ready(begun, record, greeted, began)
        except BaseException:
            await asyncio.shield(self._leave(begun))
            raise

    async def _allowance(self, record: PluginRecord) -> tuple[Limits, Priority]:
        """What the plugin may use: by its release and the policy, and what the operator set over it."""
        base = limits_for(record.release.manifest, self.policy)
        return await self.resources.limits_of(record.name, base)

    async def _ready(
        self, begun: Begun, record: PluginRecord, greeted: tuple[Session, Offer], began: float
    ) -> Instance:
        assert begun.sandbox is not None and begun.endpoint is not None  # noqa: S101, PT018 (_connect set them)
        container, pid = begun.sandbox.container_id, begun.sandbox.pid
        if pid is None and (state := await self.engine.state(container)) is not None:
            pid = state.pid
        if pid is not None:
            self.resources.watch(
                begun.record.id,
                plugin=record.name,
                container=container,
                pid=pid,
                priority=begun.priority,
            )
        instance = Instance(
            id=begun.record.id,
            plugin=record.name,
            digest=begun.record.digest,
            uid=begun.record.uid,
            sandbox=begun.sandbox,
            endpoint=begun.endpoint,
            session=greeted[0],
            offer=greeted[1],
            started_at=begun.record.started_at,
            began=began,
            lost=begun.lost,
            start=begun.start,
            gate=Gate(record.name, begun.limits.calls_per_s, time.monotonic),
            sleep=Sleep(self.pool.control, container, pid, greeted[0].connection, begun.egress),
            limits=begun.limits,
            pid=pid,
            cpu_share=begun.sandbox.cpu_share,
        )
        await self.functions.begin(instance)
        return instance

    async def close(self, instance: Instance) -> None:
        """Ends an instance and returns when nothing of it is left."""
        if begun := self._begun.get(instance.id):
            await self._end(begun)

    async def leave(self, instance: Instance) -> None:
        """Lets go of an instance that the next host shall adopt."""
        if begun := self._begun.get(instance.id):
            await self._leave(begun)

    def begun_of(self, instance: Instance) -> Begun | None:
        """What was begun of it; None once that is gone."""
        return self._begun.get(instance.id)

    def begun(self) -> list[InstanceRecord]:
        """Those of this process, from their first trace to their last."""
        return [begun.record for begun in self._begun.values()]

    async def effective(self, instance: Instance) -> tuple[Inspection, Grade]:
        """What is in force now, by the engine's word and the kernel's, and what it is worth."""
        spec = instance.sandbox.spec
        found = await self.sandboxes.inspect(instance.container_id, spec, now=limited(spec, instance.limits))
        return found, await self.sandboxes.grade(found)

    async def cause_of_death(self, instance: Instance) -> str:
        """Why an instance ended, in a sentence."""
        if instance.ended_for:
            return instance.ended_for
        begun = self._begun.get(instance.id)
        return await self._obituary(begun, "its connection ended") if begun else "its connection ended"

    async def sweep(self, spared: Iterable[str] = ()) -> None:
        """Removes every trace of instances that are neither of this process nor ``spared``, which are ids."""
        # What lives now and what lived when we began: of an instance that ends meanwhile, only a part is seen.
        own = (self._begun, self.pool.living)
        living = ChainMap[str, Any](*own, dict.fromkeys((*self._begun, *self.pool.living, *spared)))
        stuck = await self.sandboxes.sweep(living)
        await asyncio.to_thread(directories.sweep, self.directory, living)
        await self.pool.sweep(living)
        for record in await self.roster.recorded():
            if record.id not in living and record.id not in stuck:
                await self.roster.forget(record.id)

    async def watch(self, on_return: Callable[[], None]) -> None:
        """Notes exits of containers, until cancelled; calls ``on_return`` whenever the engine is back."""
        was_away = False
        while True:
            try:
                async with self.engine.events(self.host_id) as events:
                    if was_away:
                        on_return()
                    async for event in events:
                        begun = self._begun.get(event.instance_id)
                        if begun is not None and event.kind is EventKind.EXITED:
                            begun.exited.set()
            except UnavailableError as error:
                # Exits are also seen as ended connections; without events they are only explained less well.
                log.warning("engine.events_lost", error=error.message)
                was_away = True
                await asyncio.sleep(RESUBSCRIBE_S)

    async def _begin(self, record: PluginRecord, limits: Limits, priority: Priority) -> Begun:
        """A blank made this plugin's; else what is to be made, written down."""
        digest = record.release.digest
        blank, why = await self.pool.take(record, limits)
        start = Start(is_warm=blank is not None, why=why)

        def claim(own: InstanceRecord) -> None:
            self._begun[own.id] = Begun(record=own, limits=limits, priority=priority, start=start)

        if blank is not None:
            claim(blank.record)
            begun = self._begun[blank.record.id]
            begun.sandbox, begun.waiting = blank.sandbox, blank.waiting
            return begun
        try:
            own = await self.roster.begin(record.name, digest, claim)
        except LimitExceededError:
            if not await self.pool.give_way():
                raise
            own = await self.roster.begin(record.name, digest, claim)
        return self._begun[own.id]

    async def _connect(self, begun: Begun, record: PluginRecord, on_lost: Callable[[], None]) -> None:
        await self._listen(begun, record, on_lost)
        if begun.sandbox is None:
            begun.sandbox = await self.sandboxes.open(self._request(begun, record))

    async def _listen(self, begun: Begun, record: PluginRecord, on_lost: Callable[[], None]) -> None:
        own = begun.record

        def lost() -> None:
            begun.lost.set()
            on_lost()

        peer = Peer(
            instance=own.id,
            plugin=own.plugin,
            digest=own.digest,
            uid=await self.sandboxes.machine_uid(own.uid),
            rights=self.permissions.of(own.plugin, own.digest, record.release.manifest.asked()),
            storage_bytes=begun.limits.storage_bytes,
            asks=record.release.manifest.asked(),
            configuration=record.release.manifest.configuration,
            subscriptions=record.release.manifest.events.subscriptions,
            shadows=begun.shadows,
        )
        if begun.waiting is not None:
            begun.endpoint = self.bridge.take(
                peer, self.directory / own.id, begun.waiting.begin(), on_lost=lost
            )
            return
        begun.endpoint = await self.bridge.listen(peer, self.directory / own.id, on_lost=lost)
        if record.release.manifest.destinations():
            begun.egress = await self.egress.listen(peer, self.directory / own.id)

    def _request(self, begun: Begun, record: PluginRecord) -> SandboxRequest:
        own, manifest = begun.record, record.release.manifest
        if begun.start.is_warm:
            return self.pool.request(own, begun.limits)
        return SandboxRequest(
            instance_id=own.id,
            plugin=own.plugin,
            version=manifest.version,
            digest=own.digest,
            host_id=self.host_id,
            uid=own.uid,
            limits=begun.limits,
            image=self.settings.image_for(manifest.runtime.interpreter),
            runtime=manifest.runtime.interpreter.value,
            bridge_directory=self.directory / own.id,
            code_directory=self.trees.path(own.digest),
            destinations=manifest.destinations(),
        )

    async def greet(
        self, begun: Begun, record: PluginRecord, approved: Sequence[Function], connect_s: float
    ) -> tuple[Session, Offer]:
        """The session of an instance that is ready, and its offer. One deadline for all that a plugin can draw out."""
        assert begun.endpoint is not None  # noqa: S101 (_listen made it)
        timeout_s = self.settings.start_timeout_s
        deadline = asyncio.get_running_loop().time() + timeout_s
        session = await connected(begun.endpoint, begun.exited, timeout_s=connect_s)
        try:
            async with asyncio.timeout_at(deadline):
                return session, await examine(session, record, approved, timeout_s=timeout_s)
        except TimeoutError:
            raise PluginUnavailableError(
                f"it was not ready within {timeout_s:g} s: connecting, handshake and self-test share them"
            ) from None

    async def _obituary(self, begun: Begun, what: str) -> str:
        """``what`` happened, with what the engine and the plugin's own log know of it."""
        parts = [what]
        if begun.sandbox is not None:
            if begun.lost.is_set():
                if begun.endpoint is not None:
                    await begun.endpoint.withdraw()
                with suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_S):
                        await begun.exited.wait()
            with suppress(UnavailableError):
                state = await self.engine.state(begun.sandbox.container_id)
                if state is not None and state.ending:
                    parts.append(state.ending)
        if last := self.logs.last_error(begun.record.plugin, begun.record.id):
            parts.append(f"its last error: {last[:300]}")
        return "; ".join(parts)

    async def _end(self, begun: Begun) -> None:
        """Removes container, socket and record, in this order: a user id is free only when nobody has it."""
        try:
            self.resources.forget(begun.record.id)
            try:
                if begun.sandbox is not None:
                    await self.sandboxes.close(begun.sandbox.container_id)
            finally:
                # Also when the engine does not answer: what goes on running then can ask nothing of us.
                for endpoint in (begun.egress, begun.endpoint or begun.waiting):
                    if endpoint is not None:
                        await endpoint.close()
            if begun.start.is_warm:
                await self.pool.remove(begun.record.id)
            await self.roster.forget(begun.record.id)
        finally:
            # What could not be removed is nobody's from here on, and the next sweep takes it.
            self._begun.pop(begun.record.id, None)

    async def _leave(self, begun: Begun) -> None:
        self.resources.forget(begun.record.id)
        try:
            if begun.egress is not None:
                await begun.egress.close()
            if begun.endpoint is not None:
                await begun.endpoint.leave()
        finally:
            self._begun.pop(begun.record.id, None)

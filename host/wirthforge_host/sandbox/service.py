"""Opening and closing sandboxes: no sandbox that is not exactly as asked for is ever handed out."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass

import structlog

from wirthforge_host.errors import PolicyViolationError, SandboxMismatchError
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.grade import Grade, grade
from wirthforge_host.sandbox.hardening import harden
from wirthforge_host.sandbox.models import (
    LABEL_INSTANCE,
    LABEL_SPEC,
    ContainerSettings,
    ContainerSpec,
    ContainerState,
    EngineCapabilities,
    SandboxRequest,
)
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.sandbox.readback import compare
from wirthforge_sdk.contracts.policy import HOUSE_POLICY, SecurityPolicy
from wirthforge_sdk.errors import ConflictError, UnavailableError, WirthForgeError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A started container whose settings were read back and found right."""

    container_id: str
    instance_id: str
    spec: ContainerSpec
    effective: ContainerSettings


class Sandboxes:
    """The sandboxes of one host on one engine."""

    def __init__(self, engine: ContainerEngine, host_id: str, policy: SecurityPolicy = HOUSE_POLICY) -> None:
        """Uses ``engine`` for every container that carries the label of ``host_id``."""
        self._engine = engine
        self._control = Control(engine)
        self._host_id = host_id
        self._policy = policy
        self._capabilities: EngineCapabilities | None = None

    async def spec(self, request: SandboxRequest) -> ContainerSpec:
        """What ``open`` would start; a running container with the same spec label can be adopted instead.

        Raises:
            ValueError: The request is another host's.
            ImageMissingError: The engine does not have the image.
            EngineUnsuitableError: The engine cannot enforce what every sandbox needs, or what the policy requires.
            PolicyViolationError: The image is not made for such plugins.
        """
        if request.host_id != self._host_id:
            raise ValueError(f"this is host {self._host_id}, and the request is for host {request.host_id}")
        image = await self._engine.image(request.image)
        return harden(request, image, await self._able(), self._policy)

    async def open(self, request: SandboxRequest) -> Sandbox:
        """Starts a sandbox. When it fails, or is cancelled, nothing is left behind.

        Settings are compared twice: before the start, so that nothing runs in a container that is too open,
        and after it, because engines fill some in only then.

        Raises:
            SandboxMismatchError: The engine put something else in force; tells each setting, wanted and
                found.
            PolicyViolationError: Its grade is below what the operator requires.
            ConflictError: The instance has a container already.
            EngineUnavailableError: The engine failed or did not answer in time.
        """
        spec = await self.spec(request)
        creation = asyncio.ensure_future(self._engine.create(spec))
        try:
            # Shielded: a creation that is cancelled half-way would leave a container nobody knows.
            container_id = await asyncio.shield(creation)
            await self._check(container_id, spec)
            await self._engine.start(container_id)
            effective = await self._check(container_id, spec)
        except BaseException:
            await asyncio.shield(self._discard(creation, spec))
            raise
        return Sandbox(container_id, request.instance_id, spec, effective)

    async def adopt(self, request: SandboxRequest, found: ContainerState) -> Sandbox:
        """Takes over a sandbox that runs already and is what ``open`` would start now.

        Raises:
            ConflictError: It does not run, or was made otherwise: of another image, by other rules.
            SandboxMismatchError: What is in force is not what it was made as.
            UnavailableError: The engine does not answer, or cannot run such plugins now.
        """
        if not found.running:
            raise ConflictError(f"its process ended with exit code {found.exit_code}")
        spec = await self.spec(request)
        if found.labels.get(LABEL_SPEC) != dict(spec.settings.labels)[LABEL_SPEC]:
            raise ConflictError("it was made of another image or by other rules than a start would use now")
        return Sandbox(found.id, request.instance_id, spec, await self._check(found.id, spec))

    async def close(self, container_id: str) -> None:
        """Ends a sandbox and returns when it is gone; does nothing when it is gone already."""
        # First by ourselves: processes that stand still in the kernel's freezer would not even die of the engine.
        await self._control.kill(container_id)
        await self._engine.remove(container_id)

    async def running(self) -> list[ContainerState]:
        """Every container of this host, whoever of its processes started it."""
        return await self._engine.of_host(self._host_id)

    async def sweep(self, living: Container[str | None]) -> set[str | None]:
        """Removes the containers of instances that are not ``living``.

        Returns:
            The instances whose container the engine did not remove. One keeps its user id, and nobody from running.
        """
        stuck: set[str | None] = set()
        for state in await self.running():
            instance = state.labels.get(LABEL_INSTANCE)
            if instance in living:
                continue
            try:
                await self.close(state.id)
            except UnavailableError as error:
                log.warning("sweep.container_stuck", container=state.name, error=error.message)
                stuck.add(instance)
        return stuck

    async def grade(self, effective: ContainerSettings) -> Grade:
        """What a sandbox with these settings is worth on this engine."""
        # Where the policy requires that the kernel is asked, none is handed out unless it was.
        return grade(effective, await self._able(), kernel=self._policy.require.kernel_readback)

    async def _able(self) -> EngineCapabilities:
        if self._capabilities is None:
            # Asked once, for it takes as long as all other questions together. Should the engine be replaced
            # by a lesser one meanwhile, reading back finds out.
            self._capabilities = await self._engine.capabilities()
        return self._capabilities

    async def _check(self, container_id: str, spec: ContainerSpec) -> ContainerSettings:
        effective = await self._engine.effective(container_id)
        mismatches = compare(spec, effective)
        if mismatches:
            wanted, found = spec.settings.as_dict(), effective.as_dict()
            raise SandboxMismatchError(
                f"the engine did not lock {spec.name} down as asked: {'; '.join(map(str, mismatches))}",
                mismatches=[
                    {"setting": name, "wanted": wanted[name], "found": found[name]}
                    for name in (mismatch.setting for mismatch in mismatches)
                ],
            )
        await self._check_grade(spec, effective)
        return effective

    async def _check_grade(self, spec: ContainerSpec, effective: ContainerSettings) -> None:
        found, least = await self.grade(effective), self._policy.require.grade
        if found.points < least:
            lost = [f"{line.name} ({line.reason})" for line in found.lines if line.points < line.of]
            raise PolicyViolationError(
                f"{spec.name} has the grade {found.points}, and the policy's rule require.grade asks for {least}: "
                f"it loses points for {', '.join(lost)}",
                rule="require.grade",
                grade=found.points,
                least=least,
            )

    async def _discard(self, creation: asyncio.Future[str], spec: ContainerSpec) -> None:
        try:
            await creation
        except ConflictError:
            return  # the name is another's: that container is not ours to remove
        except WirthForgeError:
            pass  # it may exist all the same, when only the answer was lost
        # By name, for an answer that was lost. What cannot be removed now is found by its label later, and
        # the error that led here says more than this one would.
        with suppress(WirthForgeError):
            await self._engine.remove(spec.name)

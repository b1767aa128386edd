"""Opening and closing sandboxes: no sandbox that is not exactly as asked for is ever handed out."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from wirthforge_host.errors import (
    CgroupMissingError,
    CgroupUnreachableError,
    EngineUnsuitableError,
    PolicyViolationError,
    SandboxMismatchError,
)
from wirthforge_host.sandbox import kernel
from wirthforge_host.sandbox.cgroup import Cgroup
from wirthforge_host.sandbox.control import LIVE, Control, hold_to
from wirthforge_host.sandbox.grade import Grade, grade
from wirthforge_host.sandbox.hardening import bandwidth, harden, limited, made_with
from wirthforge_host.sandbox.kernel import KernelFacts
from wirthforge_host.sandbox.models import (
    LABEL_INSTANCE,
    LABEL_SPEC,
    ContainerSettings,
    ContainerSpec,
    ContainerState,
    EngineCapabilities,
    Mismatch,
    SandboxRequest,
)
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.sandbox.readback import compare
from wirthforge_sdk.contracts.policy import HOUSE_POLICY, SecurityPolicy
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.errors import ConflictError, UnavailableError, WirthForgeError

EXEC_S = 1.0
"""How long a started container's process may take to become its program: the runtime loads the seccomp filter last."""
LOOK_S = 0.005
"""Between two looks at that, which nothing announces."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in force for a container, by the engine's word and by the kernel's."""

    settings: ContainerSettings
    kernel: KernelFacts | None
    """None where the kernel's files about it cannot be seen from here, or nothing of it runs."""
    mismatches: tuple[Mismatch, ...]
    """Every setting that is not as asked, of both."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A started container whose settings were read back and found right."""

    container_id: str
    instance_id: str
    spec: ContainerSpec
    effective: ContainerSettings
    kernel: KernelFacts | None
    """None where the kernel's files about it cannot be seen from here."""
    cpu_share: float = 1.0
    """Of its quota, what it may use: one that was adopted may be throttled."""
    pid: int | None = None
    """Of its first process, where that was asked for already; it is the same for as long as the sandbox runs."""


class Sandboxes:
    """The sandboxes of one host on one engine."""

    def __init__(self, engine: ContainerEngine, host_id: str, policy: SecurityPolicy = HOUSE_POLICY) -> None:
        """Uses ``engine`` for every container that carries the label of ``host_id``."""
        self._engine = engine
        self._control = Control(engine)
        self._host_id = host_id
        self._policy = policy
        self._capabilities: EngineCapabilities | None = None
        self._told_unseen = False

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

    async def machine_uid(self, uid: int) -> int:
        """What the machine calls a container's user ``uid``: another one where the engine maps ids."""
        return uid + (await self._able()).uid_offset

    async def open(self, request: SandboxRequest) -> Sandbox:
        """Starts a sandbox. When it fails, or is cancelled, nothing is left behind.

        Settings are compared twice: before the start, so that nothing runs in a container that is too open,
        and after it, because engines fill some in only then, and since the kernel has something to say.

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
            recorded = await self._engine.effective(container_id)
            _require_none(spec, compare(spec, recorded))
            # Before anything runs: what the kernel will say can only be hoped for yet.
            self._check_grade(spec, grade(recorded, await self._able(), kernel=True))
            await self._engine.start(container_id)
            found = await self._checked(container_id, spec)
        except BaseException:
            await asyncio.shield(self._discard(creation, spec))
            raise
        return Sandbox(container_id, request.instance_id, spec, found.settings, found.kernel)

    async def adopt(self, request: SandboxRequest, found: ContainerState) -> Sandbox:
        """Takes over a sandbox that runs already and is what ``open`` would start now.

        The limits it was made with may be others, as far as they can be changed while it runs: the request's are put
        in force. What throttled it goes on doing so.

        Raises:
            ConflictError: It does not run, or was made otherwise: of another image, by other rules, with limits that
                only a start can change.
            SandboxMismatchError: What is in force is not what it was made as.
            UnavailableError: The engine does not answer, or cannot run such plugins now.
        """
        if not found.running:
            raise ConflictError(f"its process ended with exit code {found.exit_code}")
        spec = await self.spec(request)
        label = found.labels.get(LABEL_SPEC)
        if label != _label(spec):
            # It was made with other limits, perhaps. The engine says which, and the label whether that is true.
            spec = made_with(spec, await self._engine.effective(found.id))
            if label != _label(spec):
                raise ConflictError(
                    "it was made of another image or by other rules than a start would use now"
                )
        share = await self._hold_to(found.id, spec, request.limits)
        # The host before this one may have moved its weight, and lowered its quota.
        inspected = await self._checked(found.id, spec, now=limited(spec, request.limits))
        return Sandbox(found.id, request.instance_id, spec, inspected.settings, inspected.kernel, share)

    async def fit(self, sandbox: Sandbox, limits: Limits) -> Sandbox:
        """Puts other limits in force on a sandbox that ``open`` made, and reads back what is in force now.

        By the kernel's word where that can be had: what the engine recorded was compared when the sandbox was made.

        Raises:
            ConflictError: They cannot be changed while it runs, or not from here; or it does not run any more.
            SandboxMismatchError: What is in force is not what it was made as, with these limits.
            UnavailableError: The engine does not answer.
        """
        spec, now, able = sandbox.spec, limited(sandbox.spec, limits), await self._able()
        facts = await asyncio.to_thread(_fitted, sandbox, now, limits)
        if facts is None:
            await self._hold_to(sandbox.container_id, spec, limits)
            found = await self._checked(sandbox.container_id, spec, now=now)
            return replace(sandbox, effective=found.settings, kernel=found.kernel)
        _require_none(spec, kernel.compare(now, facts, able))
        return replace(sandbox, kernel=facts)

    async def inspect(
        self, container_id: str, spec: ContainerSpec, *, now: ContainerSpec | None = None
    ) -> Inspection:
        """Reads back what is in force now, and compares it with what was asked for.

        Args:
            container_id: The engine's id.
            spec: What the container was made as: the engine's word.
            now: What the host has made of its limits since, and the kernel must say; None: nothing.

        Raises:
            ContainerMissingError: There is no such container.
            EngineUnsuitableError: The operator requires the kernel's word, and it cannot be had here.
            UnavailableError: The engine does not answer.
        """
        settings, facts = await asyncio.gather(
            self._engine.effective(container_id), self._facts(container_id, now or spec, weighed=now is None)
        )
        mismatches = compare(spec, settings)
        if facts is not None:
            mismatches += kernel.compare(now or spec, facts, await self._able(), weighed=now is None)
        return Inspection(settings, facts, mismatches)

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

    async def grade(self, found: Inspection) -> Grade:
        """What a sandbox in which this is in force is worth on this engine."""
        return grade(found.settings, await self._able(), kernel=found.kernel is not None)

    async def _able(self) -> EngineCapabilities:
        if self._capabilities is None:
            # Asked once, for it takes as long as all other questions together. Should the engine be replaced
            # by a lesser one meanwhile, reading back finds out.
            self._capabilities = await self._engine.capabilities()
        return self._capabilities

    async def _hold_to(self, container_id: str, made: ContainerSpec, limits: Limits) -> float:
        """Puts ``limits`` in force on a container that runs; the share of its quota that it is left with."""
        cgroup = await self._control.cgroup(container_id)
        if cgroup is None:
            if limited(made, limits) != made:
                raise ConflictError("its limits were changed, and cannot be set from here while it runs")
            return 1.0  # the engine would have throttled it, then, and say so
        try:
            return await asyncio.to_thread(_held_to, cgroup, made, limits)
        finally:
            cgroup.close()

    async def _checked(
        self, container_id: str, spec: ContainerSpec, *, now: ContainerSpec | None = None
    ) -> Inspection:
        found = await self.inspect(container_id, spec, now=now)
        _require_none(spec, found.mismatches)
        self._check_grade(spec, await self.grade(found))
        return found

    async def _facts(self, container_id: str, spec: ContainerSpec, *, weighed: bool) -> KernelFacts | None:
        """What the kernel says, once the container's process is its program; None when that cannot be seen."""
        able = await self._able()
        deadline = asyncio.get_running_loop().time() + EXEC_S
        while True:
            state = await self._engine.state(container_id)
            if state is None or not state.running:
                return None  # nothing runs, so nothing is in force
            is_late = asyncio.get_running_loop().time() > deadline
            try:
                facts = await asyncio.to_thread(kernel.observe, spec, state.pid or 0, state.id)
            except ProcessLookupError as error:
                # The engine tells of an exit a moment after it.
                if is_late:
                    raise SandboxMismatchError(
                        f"the kernel knows no process of {spec.name}, and the engine says that it runs"
                    ) from error
            else:
                if facts is None:
                    self._unseen(spec)
                    return None
                if is_late or not kernel.compare(spec, facts, able, weighed=weighed):
                    return facts
            await asyncio.sleep(LOOK_S)

    def _unseen(self, spec: ContainerSpec) -> None:
        if self._policy.require.kernel_readback:
            raise EngineUnsuitableError(
                "the policy's rule require.kernel_readback keeps plugins from running: what the kernel has in force "
                "cannot be read here; run the host on the engine's machine as root, in its process id namespace and "
                "with its /sys/fs/cgroup",
                rule="require.kernel_readback",
            )
        if not self._told_unseen:
            self._told_unseen = True
            log.warning("sandbox.kernel_not_visible", container=spec.name)

    def _check_grade(self, spec: ContainerSpec, found: Grade) -> None:
        least = self._policy.require.grade
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


def _fitted(sandbox: Sandbox, now: ContainerSpec, limits: Limits) -> KernelFacts | None:
    """Does it with the kernel's files alone; None where they are not to be seen. Blocking."""
    if sandbox.pid is None:
        return None
    try:
        cgroup = Cgroup.of_process(sandbox.pid, container=sandbox.container_id)
    except (CgroupMissingError, CgroupUnreachableError):
        return None
    try:
        _held_to(cgroup, sandbox.spec, limits)
        return kernel.observe(now, sandbox.pid, sandbox.container_id)
    except (CgroupMissingError, ProcessLookupError) as error:
        raise ConflictError("its process ended") from error
    finally:
        cgroup.close()


def _held_to(cgroup: Cgroup, made: ContainerSpec, limits: Limits) -> float:
    found = cgroup.limits()
    quota = found.cpu_quota_us, found.cpu_period_us
    whole = (bandwidth(limits.cpus), (made.settings.cpu_quota_us, made.settings.cpu_period_us))
    share = 1.0 if found.cpus is None or quota in whole else min(1.0, found.cpus / limits.cpus)
    try:
        waiting = sorted(set(LIVE) - set(hold_to(cgroup, limits, share=share)))
    except CgroupUnreachableError as error:
        # Not for us to write: then what is in force must be right already, which is read back next.
        log.warning("sandbox.limits_not_set", container=made.name, error=error.message)
        return share
    if waiting:
        raise ConflictError(f"its {' and '.join(waiting)} can only be changed by a start: more is in use")
    return share


def _label(spec: ContainerSpec) -> str:
    return dict(spec.settings.labels)[LABEL_SPEC]


def _require_none(spec: ContainerSpec, mismatches: Sequence[Mismatch]) -> None:
    if mismatches:
        raise SandboxMismatchError(
            f"the engine did not lock {spec.name} down as asked: {'; '.join(map(str, mismatches))}",
            mismatches=[mismatch.as_dict() for mismatch in mismatches],
        )

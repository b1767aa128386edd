"""An engine without containers: a coroutine stands for each container's process.

For tests of everything above the sandbox, and held to the same contract test as the real engines. It isolates
nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from wirthforge_host.errors import ContainerMissingError, ImageMissingError
from wirthforge_host.sandbox.models import (
    LABEL_HOST,
    LABEL_INSTANCE,
    ContainerEvent,
    ContainerSettings,
    ContainerSpec,
    ContainerState,
    EngineCapabilities,
    EventKind,
    ImageInfo,
)
from wirthforge_host.sandbox.subscription import Subscription
from wirthforge_sdk.errors import ConflictError, WirthForgeError

Process = Callable[[ContainerSpec], Coroutine[Any, Any, int]]
"""What runs when a container starts. It returns its exit code, is cancelled when the container is killed, and
raises ``MemoryError`` to be ended as one that took too much."""

KILLED = 137
CRASHED = 1

CAPABLE = EngineCapabilities(
    driver="memory",
    version="1",
    api_version="1",
    cgroup_version=2,
    memory_limit=True,
    swap_limit=True,
    swappiness=False,
    cpu_quota=True,
    pids_limit=True,
    io_device=None,
    seccomp=True,
    no_new_privileges=True,
    no_network=True,
    apparmor="",
    user_namespaces=False,
    live_update=True,
    live_restore=True,
    runtimes=("runc",),
    default_runtime="runc",
)
"""An engine that can enforce whatever a sandbox needs."""

IMAGE = ImageInfo(
    id=f"sha256:{'1' * 64}", labels={"wirthforge.runtime": "python"}, entrypoint=("/opt/wirthforge/python",)
)
"""What every reference names unless a test says otherwise."""


async def wait_forever(spec: ContainerSpec) -> int:
    """A process that ends only when it is killed."""
    del spec
    await asyncio.Event().wait()
    return 0


@dataclass
class Faults:
    """What an engine does wrong on purpose."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Field of ``ContainerSettings`` → the value this engine puts in force instead of the one asked for."""
    settings_after_start: dict[str, Any] = field(default_factory=dict)
    """The same, from the start of the container on."""
    errors: dict[str, WirthForgeError] = field(default_factory=dict)
    """Method name → the error it raises."""

    def strike(self, method: str) -> None:
        """Raises the error that was put in for a method."""
        if method in self.errors:
            raise self.errors[method]


class MemoryEngine:
    """Implements ``ContainerEngine``; ``faults`` may be changed at any time."""

    def __init__(
        self,
        *,
        process: Process = wait_forever,
        images: Mapping[str, ImageInfo] | None = None,
        capabilities: EngineCapabilities = CAPABLE,
    ) -> None:
        """Makes an empty engine.

        Args:
            process: What runs when a container starts.
            images: The images it has, by reference; without it every reference names ``IMAGE``.
            capabilities: What it says that it can enforce.
        """
        self.faults = Faults()
        self._process = process
        self._images = images
        self._capabilities = capabilities
        self._containers = _Containers()

    async def create(self, spec: ContainerSpec) -> str:
        """See ``ContainerEngine``."""
        self.faults.strike("create")
        if spec.settings.image not in {image.id for image in (self._images or {"": IMAGE}).values()}:
            raise _image_missing(str(spec.settings.image))
        return self._containers.add(spec).id

    async def start(self, container: str) -> None:
        """See ``ContainerEngine``."""
        self.faults.strike("start")
        found = self._containers.get(container)
        if not found.running:
            found.run(self._process, self._containers.tell)

    async def effective(self, container: str) -> ContainerSettings:
        """See ``ContainerEngine``."""
        self.faults.strike("effective")
        found = self._containers.get(container)
        changed = self.faults.settings | (self.faults.settings_after_start if found.task else {})
        return replace(found.spec.settings, **changed)

    async def state(self, container: str) -> ContainerState | None:
        """See ``ContainerEngine``."""
        self.faults.strike("state")
        found = self._containers.find(container)
        return found.state() if found is not None else None

    async def kill(self, container: str) -> None:
        """See ``ContainerEngine``."""
        self.faults.strike("kill")
        found = self._containers.find(container)
        if found is not None:
            await found.end()

    async def remove(self, container: str) -> None:
        """See ``ContainerEngine``."""
        self.faults.strike("remove")
        found = self._containers.find(container)
        if found is not None:
            await found.end()
            self._containers.by_id.pop(found.id, None)

    async def pause(self, container: str) -> None:
        """See ``ContainerEngine``. The process goes on: only the state says that it is frozen."""
        self.faults.strike("pause")
        found = self._containers.get(container)
        if not found.running:
            raise ConflictError(f"container {found.spec.name} does not run", container=container)
        found.paused = True

    async def unpause(self, container: str) -> None:
        """See ``ContainerEngine``."""
        self.faults.strike("unpause")
        self._containers.get(container).paused = False

    async def set_cpu(self, container: str, *, quota_us: int, period_us: int) -> None:
        """See ``ContainerEngine``. The process goes on as fast as before: only the settings say it."""
        self.faults.strike("set_cpu")
        found = self._containers.get(container)
        settings = replace(found.spec.settings, cpu_quota_us=quota_us, cpu_period_us=period_us)
        found.spec = replace(found.spec, settings=settings)

    async def wait(self, container: str, *, timeout_s: float) -> int | None:
        """See ``ContainerEngine``."""
        self.faults.strike("wait")
        found = self._containers.get(container)
        try:
            async with asyncio.timeout(timeout_s):
                await found.ended.wait()
        except TimeoutError:
            return None
        return found.exit_code

    async def of_host(self, host_id: str) -> list[ContainerState]:
        """See ``ContainerEngine``."""
        self.faults.strike("of_host")
        states = (container.state() for container in self._containers.by_id.values())
        mine = (state for state in states if state.labels.get(LABEL_HOST) == host_id)
        return sorted(mine, key=lambda state: state.name)

    async def image(self, reference: str) -> ImageInfo:
        """See ``ContainerEngine``."""
        self.faults.strike("image")
        if self._images is None:
            return IMAGE
        if reference not in self._images:
            raise _image_missing(reference)
        return self._images[reference]

    async def capabilities(self) -> EngineCapabilities:
        """See ``ContainerEngine``."""
        self.faults.strike("capabilities")
        return self._capabilities

    @asynccontextmanager
    async def events(self, host_id: str) -> AsyncIterator[AsyncIterator[ContainerEvent]]:
        """See ``ContainerEngine``."""
        self.faults.strike("events")
        subscription = Subscription()
        self._containers.subscriptions[subscription] = host_id
        try:
            yield subscription
        finally:
            del self._containers.subscriptions[subscription]

    async def close(self) -> None:
        """Ends every process: none of them can outlive this object."""
        for container in list(self._containers.by_id.values()):
            await container.end()


def _image_missing(reference: str) -> ImageMissingError:
    return ImageMissingError(f"the engine has no image {reference}: run `make setup`", image=reference)


@dataclass
class _Container:
    id: str
    spec: ContainerSpec
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[int] | None = None
    paused: bool = False
    exit_code: int | None = None
    oom_killed: bool = False

    @property
    def running(self) -> bool:
        return self.task is not None and not self.ended.is_set()

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.spec.settings.labels)

    def state(self) -> ContainerState:
        return ContainerState(
            id=self.id,
            name=self.spec.name,
            labels=self.labels,
            running=self.running,
            paused=self.paused,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            pid=1 if self.running else None,
            started_at="1970-01-01T00:00:00Z" if self.task is not None else None,
        )

    def run(self, process: Process, tell: Tell) -> None:
        self.ended.clear()
        self.exit_code, self.oom_killed = None, False
        self.task = asyncio.create_task(process(self.spec))
        # Called even for a task that is cancelled before its first step.
        self.task.add_done_callback(partial(self._settle, tell))

    async def end(self) -> None:
        if self.task is not None and not self.ended.is_set():
            self.task.cancel()
            await self.ended.wait()

    def _settle(self, tell: Tell, task: asyncio.Task[int]) -> None:
        crash = None if task.cancelled() else task.exception()
        if task.cancelled() or isinstance(crash, MemoryError):
            self.exit_code = KILLED
        elif crash is not None:
            self.exit_code = CRASHED
            what = {"message": f"the process of {self.spec.name} crashed", "exception": crash}
            task.get_loop().call_exception_handler(what)
        else:
            self.exit_code = task.result()
        self.paused = False
        self.oom_killed = isinstance(crash, MemoryError)
        self.ended.set()
        if self.oom_killed:
            tell(self, EventKind.OUT_OF_MEMORY)
        tell(self, EventKind.EXITED)


Tell = Callable[[_Container, EventKind], None]


class _Containers:
    """All containers of one engine, and who is told of their ends."""

    def __init__(self) -> None:
        self.by_id: dict[str, _Container] = {}
        self.subscriptions: dict[Subscription, str] = {}
        self._ids = (f"{number:064x}" for number in itertools.count(1))

    def add(self, spec: ContainerSpec) -> _Container:
        if self.find(spec.name) is not None:
            raise ConflictError(f"a container named {spec.name} exists already", name=spec.name)
        container = _Container(next(self._ids), spec)
        self.by_id[container.id] = container
        return container

    def find(self, container: str) -> _Container | None:
        if container in self.by_id:
            return self.by_id[container]
        return next((found for found in self.by_id.values() if found.spec.name == container), None)

    def get(self, container: str) -> _Container:
        found = self.find(container)
        if found is None:
            raise ContainerMissingError(f"the engine has no container {container}", container=container)
        return found

    def tell(self, container: _Container, kind: EventKind) -> None:
        code = container.exit_code if kind is EventKind.EXITED else None
        event = ContainerEvent(kind, container.id, container.labels.get(LABEL_INSTANCE, ""), exit_code=code)
        for subscription, host_id in self.subscriptions.items():
            if host_id == container.labels.get(LABEL_HOST):
                subscription.tell(event)

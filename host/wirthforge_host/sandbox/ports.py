"""What the host needs of a container engine; nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from wirthforge_host.sandbox.models import (
    ContainerEvent,
    ContainerSettings,
    ContainerSpec,
    ContainerState,
    EngineCapabilities,
    ImageInfo,
)


class ContainerEngine(Protocol):
    """Runs containers on one node.

    A ``container`` argument is an id that ``create`` returned, or the ``name`` of a spec. Every method raises
    ``EngineUnavailableError`` when the engine does not answer in time or fails; no error of another library
    comes out.
    """

    async def create(self, spec: ContainerSpec) -> str:
        """Makes a container that does not run yet, and returns its id.

        Raises:
            ConflictError: The name is taken.
            ImageMissingError: The image went away since it was looked up.
            InvalidInputError: The engine does not accept the settings.
        """
        ...

    async def start(self, container: str) -> None:
        """Starts its process.

        Raises:
            ContainerMissingError: There is no such container.
        """
        ...

    async def effective(self, container: str) -> ContainerSettings:
        """The settings the engine says are in force.

        Raises:
            ContainerMissingError: There is no such container.
        """
        ...

    async def state(self, container: str) -> ContainerState | None:
        """How the container is now, or ``None`` when there is none."""
        ...

    async def kill(self, container: str) -> None:
        """Ends all its processes at once; does nothing when it does not run or does not exist."""
        ...

    async def remove(self, container: str) -> None:
        """Ends and deletes it, and returns when it is gone; does nothing when there is none."""
        ...

    async def pause(self, container: str) -> None:
        """Freezes all its processes; does nothing when they are frozen.

        Raises:
            ContainerMissingError: There is no such container.
            ConflictError: It does not run.
        """
        ...

    async def unpause(self, container: str) -> None:
        """Thaws all its processes; does nothing when they are not frozen.

        Raises:
            ContainerMissingError: There is no such container.
        """
        ...

    async def set_cpu(self, container: str, *, quota_us: int, period_us: int) -> None:
        """Puts another quota of the processor in force while it runs.

        Raises:
            ContainerMissingError: There is no such container.
        """
        ...

    async def wait(self, container: str, *, timeout_s: float) -> int | None:
        """Waits until its process ended and returns the exit code; ``None`` when it still runs then.

        Raises:
            ContainerMissingError: There is no such container.
        """
        ...

    async def of_host(self, host_id: str) -> list[ContainerState]:
        """Every container that carries the label of the host, running or not, ordered by name."""
        ...

    async def image(self, reference: str) -> ImageInfo:
        """Looks an image up; never fetches one.

        Raises:
            ImageMissingError: The engine does not have it; says how to make it.
        """
        ...

    async def capabilities(self) -> EngineCapabilities:
        """What this engine can enforce."""
        ...

    def events(self, host_id: str) -> AbstractAsyncContextManager[AsyncIterator[ContainerEvent]]:
        """Exits and out-of-memory kills of the host's containers, while the context is open.

        A bounded number wait for a slow reader; beyond it the oldest are dropped and one ``LOST`` tells so.
        The iterator raises ``EngineUnavailableError`` when the engine hangs up: subscribe again, then look
        at the containers themselves.
        """
        ...

    async def close(self) -> None:
        """Lets go of the engine; containers go on."""
        ...

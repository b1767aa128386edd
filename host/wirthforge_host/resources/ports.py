"""What the judges of instances (enforcement, threat rules, an operator in a hurry) need of whoever runs them."""

from __future__ import annotations

from typing import Protocol


class Containment(Protocol):
    """Holds plugins back. Each act is stored with its cause, audited, announced, and can be taken back.

    ``actor`` is who decided, as in the audit log: ``operator:<label>``, ``host:enforcement``, ``host:threats``. Every
    method raises ``NotFoundError`` for a plugin that is not there, and ``ConflictError`` where the plugin has no
    instance and the act needs one.
    """

    async def throttle(self, plugin: str, *, share: float, cause: str, actor: str) -> None:
        """Lowers its quota of the processor to ``share`` (0 < share ≤ 1) of its limit, while it runs; 1 restores it."""
        ...

    async def pause(self, plugin: str, *, cause: str, actor: str) -> None:
        """Lets all its processes stand still; calls are refused meanwhile."""
        ...

    async def resume(self, plugin: str, *, cause: str, actor: str) -> None:
        """Lets a paused plugin go on."""
        ...

    async def kill(self, plugin: str, *, cause: str, actor: str) -> None:
        """Ends all its processes at once, whatever they do. It is started again, as after a crash."""
        ...

    async def quarantine(self, plugin: str, *, cause: str, actor: str) -> None:
        """Ends it at once, and lets it not start again before an operator has looked."""
        ...

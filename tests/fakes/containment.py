"""Holds plugins back by writing down that it was asked to."""

from __future__ import annotations

from wirthforge_sdk.errors import WirthForgeError


class RecordingContainment:
    """Every act in order, as ``(act, plugin, share or None)``; fails with ``failure`` while that is set."""

    def __init__(self) -> None:
        self.acts: list[tuple[str, str, float | None]] = []
        self.causes: list[str] = []
        self.failure: WirthForgeError | None = None

    async def throttle(self, plugin: str, *, share: float, cause: str, actor: str) -> None:
        await self._did("throttle", plugin, share, f"{actor}: {cause}")

    async def pause(self, plugin: str, *, cause: str, actor: str) -> None:
        await self._did("pause", plugin, None, f"{actor}: {cause}")

    async def resume(self, plugin: str, *, cause: str, actor: str) -> None:
        await self._did("resume", plugin, None, f"{actor}: {cause}")

    async def kill(self, plugin: str, *, cause: str, actor: str) -> None:
        await self._did("kill", plugin, None, f"{actor}: {cause}")

    async def quarantine(self, plugin: str, *, cause: str, actor: str) -> None:
        await self._did("quarantine", plugin, None, f"{actor}: {cause}")

    async def _did(self, act: str, plugin: str, share: float | None, cause: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.acts.append((act, plugin, share))
        self.causes.append(cause)

"""Where plugins' calls of each other go: a socket in the wall between the bridge and what is above it."""

from __future__ import annotations

from typing import Any, Protocol

from wirthforge_sdk.errors import UnavailableError


class PluginCalls(Protocol):
    """Who makes calls of plugins."""

    async def call_for(
        self,
        plugin: str,
        call_id: str | None,
        *,
        target: str,
        function: str,
        arguments: dict[str, Any],
        timeout_s: float | None,
    ) -> dict[str, Any]:
        """Calls ``function`` of ``target`` for ``plugin``, while it works on its call ``call_id``.

        Returns:
            ``{structured, content, isError}``.

        Raises:
            WirthForgeError: As a call of an application; nothing of it is a denial of ``plugin``'s.
        """


class Exchange:
    """Passes calls on to whoever was connected when the host was built."""

    def __init__(self) -> None:
        self._calls: PluginCalls | None = None

    def connect(self, calls: PluginCalls) -> None:
        """Passes calls on to ``calls`` from now on."""
        self._calls = calls

    @property
    def calls(self) -> PluginCalls:
        """Who makes them.

        Raises:
            UnavailableError: Nobody is connected.
        """
        if self._calls is None:
            raise UnavailableError("this host calls no plugins for others")
        return self._calls

"""The part of a host's client that is about upgrades."""

from __future__ import annotations

from typing import Final

from wirthforge_sdk.client.connection import Request, Service, given, plugin_path
from wirthforge_sdk.contracts.host_api import PluginOut
from wirthforge_sdk.contracts.upgrades_api import CanaryIn, RollbackIn, UpgradeIn, UpgradeOut
from wirthforge_sdk.contracts.wire import Page

UPGRADE_S: Final = 300.0
"""A release is fetched, started and examined, and calls inside the one before end, before it answers."""

UpgradePage = Page[UpgradeOut]


class UpgradeService(Service):
    """From one release of a plugin to another."""

    async def upgrade(
        self, name: str, requirement: str = "*", *, canary: CanaryIn | None = None
    ) -> UpgradeOut:
        """Brings another release of a plugin; returns when it serves, is tried, waits for an approval, or failed."""
        with given():
            body = UpgradeIn(requirement=requirement, canary=canary)
        request = Request("POST", f"{plugin_path(name)}/upgrades", body=body, timeout_s=UPGRADE_S)
        return await self._connection.ask(request, UpgradeOut)

    async def upgrades(self, name: str) -> UpgradePage:
        """A plugin's upgrades, the newest first."""
        return await self._connection.ask(
            Request("GET", f"{plugin_path(name)}/upgrades", repeatable=True), UpgradePage
        )

    async def cancel_upgrade(self, name: str) -> None:
        """Wants an upgrade no more that does not serve yet."""
        await self._connection.tell(Request("DELETE", f"{plugin_path(name)}/upgrades/open"))

    async def promote(self, name: str) -> UpgradeOut:
        """Has the release that is tried serve, whatever was counted so far."""
        request = Request("POST", f"{plugin_path(name)}/upgrades/open/promote", timeout_s=UPGRADE_S)
        return await self._connection.ask(request, UpgradeOut)

    async def restart(self, name: str) -> PluginOut:
        """Has fresh instances of the same release take the calls."""
        request = Request("POST", f"{plugin_path(name)}/restart", timeout_s=UPGRADE_S)
        return await self._connection.ask(request, PluginOut)

    async def roll_back(self, name: str, *, restore: bool = False) -> UpgradeOut:
        """Lets the release before serve again, or ends one that is tried.

        ``restore``: with what was stored at the upgrade.
        """
        body = RollbackIn(restore=restore)
        request = Request("POST", f"{plugin_path(name)}/rollback", body=body, timeout_s=UPGRADE_S)
        return await self._connection.ask(request, UpgradeOut)

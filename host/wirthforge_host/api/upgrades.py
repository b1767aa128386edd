"""Upgrades of plugins over HTTP: another release in the place of the present one, and back."""

from __future__ import annotations

from fastapi import APIRouter, status

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_sdk.contracts.host_api import PluginOut
from wirthforge_sdk.contracts.identifiers import Slug
from wirthforge_sdk.contracts.upgrades_api import RollbackIn, UpgradeIn, UpgradeOut
from wirthforge_sdk.contracts.wire import Page

router = APIRouter(prefix="/v1/plugins/{namespace}/{name}", tags=["upgrades"])


@router.post("/upgrades", status_code=status.HTTP_201_CREATED)
async def upgrade(
    namespace: Slug, name: Slug, body: UpgradeIn, operator: Keeper, wiring: Wired
) -> UpgradeOut:
    """Brings another release; answers when it serves, is tried, waits for an approval, or did not come to serve."""
    plugin = f"{namespace}/{name}"
    await wiring.installer.upgrade(plugin, body.requirement, operator, body.canary)
    return (await wiring.plugins.upgrades.of_plugin(plugin))[0]


@router.get("/upgrades")
async def upgrades(namespace: Slug, name: Slug, _: Reader, wiring: Wired) -> Page[UpgradeOut]:
    """The plugin's upgrades, the newest first."""
    return Page(items=await wiring.plugins.upgrades.of_plugin(f"{namespace}/{name}"), next=None)


@router.delete("/upgrades/open", status_code=status.HTTP_204_NO_CONTENT)
async def cancel(namespace: Slug, name: Slug, operator: Keeper, wiring: Wired) -> None:
    """Wants an upgrade no more that does not serve yet."""
    await wiring.plugins.upgrades.cancel(f"{namespace}/{name}", operator)


@router.post("/upgrades/open/promote")
async def promote(namespace: Slug, name: Slug, operator: Keeper, wiring: Wired) -> UpgradeOut:
    """Has the release that is tried serve, whatever was counted so far."""
    plugin = f"{namespace}/{name}"
    await wiring.plugins.upgrades.promote(plugin, operator)
    return (await wiring.plugins.upgrades.of_plugin(plugin))[0]


@router.post("/restart")
async def restart(namespace: Slug, name: Slug, operator: Keeper, wiring: Wired) -> PluginOut:
    """Has fresh instances of the same release take the calls, without a pause."""
    plugin = f"{namespace}/{name}"
    await wiring.plugins.upgrades.restart(plugin, operator)
    return await wiring.plugins.get(plugin)


@router.post("/rollback")
async def rollback(
    namespace: Slug, name: Slug, body: RollbackIn, operator: Keeper, wiring: Wired
) -> UpgradeOut:
    """Lets the release serve again that served before the last upgrade; ends one that is tried."""
    plugin = f"{namespace}/{name}"
    await wiring.plugins.upgrades.roll_back(plugin, body, operator)
    return (await wiring.plugins.upgrades.of_plugin(plugin))[0]

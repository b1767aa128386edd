"""Plugins and installs over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_sdk.contracts.host_api import EffectiveOut, InstallIn, PluginOut, ScaleIn
from wirthforge_sdk.contracts.identifiers import Slug
from wirthforge_sdk.contracts.wire import Page

router = APIRouter(prefix="/v1", tags=["plugins"])


@router.post("/installs", status_code=status.HTTP_201_CREATED)
async def install(body: InstallIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Resolves, fetches and verifies a release; answers when it awaits approval or runs."""
    name = await wiring.installer.install(body.reference, operator)
    return await wiring.plugins.get(name)


@router.get("/plugins")
async def plugins(_: Reader, wiring: Wired) -> Page[PluginOut]:
    """Every plugin on this host, by name."""
    return Page(items=await wiring.plugins.all(), next=None)


@router.get("/plugins/{namespace}/{name}")
async def plugin(namespace: Slug, name: Slug, _: Reader, wiring: Wired) -> PluginOut:
    """One plugin."""
    return await wiring.plugins.get(f"{namespace}/{name}")


@router.post("/plugins/{namespace}/{name}/enable")
async def enable(namespace: Slug, name: Slug, operator: Keeper, wiring: Wired) -> PluginOut:
    """Starts a plugin that was stopped; an approval that is missing is waited for."""
    await wiring.plugins.enable(f"{namespace}/{name}", operator)
    return await wiring.plugins.get(f"{namespace}/{name}")


@router.post("/plugins/{namespace}/{name}/disable")
async def disable(namespace: Slug, name: Slug, operator: Keeper, wiring: Wired) -> PluginOut:
    """Lets the calls inside end, then stops the plugin and removes its sandbox."""
    await wiring.plugins.disable(f"{namespace}/{name}", operator)
    return await wiring.plugins.get(f"{namespace}/{name}")


@router.put("/plugins/{namespace}/{name}/instances")
async def scale(namespace: Slug, name: Slug, body: ScaleIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Has so many instances share the plugin's calls; answers when the least do, or when one did not start."""
    await wiring.scaling.scale(f"{namespace}/{name}", body.least, operator, most=body.most)
    return await wiring.plugins.get(f"{namespace}/{name}")


@router.delete("/plugins/{namespace}/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def uninstall(
    namespace: Slug, name: Slug, operator: Keeper, wiring: Wired, *, purge: Annotated[bool, Query()] = False
) -> None:
    """Stops and removes the plugin. With ``purge`` its stored values, decisions, log and author pin go too."""
    await wiring.plugins.uninstall(f"{namespace}/{name}", operator, purge=purge)


@router.get("/plugins/{namespace}/{name}/effective")
async def effective(namespace: Slug, name: Slug, _: Reader, wiring: Wired) -> EffectiveOut:
    """The sandbox's settings as the engine reports them now, beside any difference from what was asked."""
    return await wiring.plugins.effective(f"{namespace}/{name}")

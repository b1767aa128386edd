"""Holding plugins back over HTTP; for operators, and at once."""

from __future__ import annotations

from fastapi import APIRouter

from wirthforge_host.api.security import Keeper, Wired
from wirthforge_sdk.contracts.host_api import EndedOut, HoldIn, PluginOut, ThrottleIn
from wirthforge_sdk.contracts.identifiers import Slug

router = APIRouter(prefix="/v1", tags=["containment"])


@router.post("/plugins/{namespace}/{name}/throttle")
async def throttle(
    namespace: Slug, name: Slug, body: ThrottleIn, operator: Keeper, wiring: Wired
) -> PluginOut:
    """Lowers the plugin's quota of the processor while it runs; a share of 1 restores it."""
    plugin = f"{namespace}/{name}"
    await wiring.containment.throttle(plugin, share=body.share, cause=body.cause, actor=operator.actor)
    return await wiring.plugins.get(plugin)


@router.post("/plugins/{namespace}/{name}/pause")
async def pause(namespace: Slug, name: Slug, body: HoldIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Lets all processes of the plugin stand still; calls are refused meanwhile."""
    plugin = f"{namespace}/{name}"
    await wiring.containment.pause(plugin, cause=body.cause, actor=operator.actor)
    return await wiring.plugins.get(plugin)


@router.post("/plugins/{namespace}/{name}/resume")
async def resume(namespace: Slug, name: Slug, body: HoldIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Lets a paused plugin go on."""
    plugin = f"{namespace}/{name}"
    await wiring.containment.resume(plugin, cause=body.cause, actor=operator.actor)
    return await wiring.plugins.get(plugin)


@router.post("/plugins/{namespace}/{name}/kill")
async def kill(namespace: Slug, name: Slug, body: HoldIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Ends all processes of the plugin at once; it is started again, as after a crash."""
    plugin = f"{namespace}/{name}"
    await wiring.containment.kill(plugin, cause=body.cause, actor=operator.actor)
    return await wiring.plugins.get(plugin)


@router.post("/plugins/{namespace}/{name}/quarantine")
async def quarantine(namespace: Slug, name: Slug, body: HoldIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Ends all processes of the plugin at once, and keeps it from starting until it was disabled and enabled."""
    plugin = f"{namespace}/{name}"
    await wiring.containment.quarantine(plugin, cause=body.cause, actor=operator.actor)
    return await wiring.plugins.get(plugin)


@router.post("/emergency")
async def end_all(body: HoldIn, operator: Keeper, wiring: Wired) -> EndedOut:
    """Quarantines every plugin that runs, all at once."""
    return EndedOut(plugins=await wiring.containment.end_all(cause=body.cause, actor=operator.actor))

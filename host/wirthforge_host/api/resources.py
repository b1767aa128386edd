"""What plugins use and may use, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import EventSourceResponse
from fastapi.sse import ServerSentEvent

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_sdk.contracts.host_api import PluginOut
from wirthforge_sdk.contracts.identifiers import Slug
from wirthforge_sdk.contracts.resources_api import (
    MAX_MINUTES,
    LimitedOut,
    PluginResourcesOut,
    RecommendationsOut,
    ResourcesIn,
    UsagesOut,
)

router = APIRouter(prefix="/v1", tags=["resources"])


async def _installed(namespace: Slug, name: Slug, wiring: Wired) -> PluginOut:
    return await wiring.plugins.get(f"{namespace}/{name}")


@router.get("/resources")
async def usages(_: Reader, wiring: Wired) -> UsagesOut:
    """The newest reading of every running plugin."""
    return wiring.resources.usages()


@router.get("/resources/stream", response_class=EventSourceResponse)
async def follow_usages(_: Reader, wiring: Wired) -> AsyncIterator[ServerSentEvent]:
    """The same after every reading; a reader that is slow misses some."""
    async for told in wiring.resources.rounds():
        yield ServerSentEvent(event="usage", data=told.model_dump(mode="json"))


@router.get("/plugins/{namespace}/{name}/resources")
async def plugin_resources(
    _: Reader,
    plugin: Annotated[PluginOut, Depends(_installed)],
    wiring: Wired,
    minutes: Annotated[int, Query(ge=1, le=MAX_MINUTES, description="Of history.")] = 60,
) -> PluginResourcesOut:
    """What a plugin may use, uses now, used in the last samples, and used in the last minutes."""
    return await wiring.resources.of_plugin(plugin.name, plugin.limits, minutes=minutes)


@router.put("/plugins/{namespace}/{name}/resources")
async def limit(
    operator: Keeper, plugin: Annotated[PluginOut, Depends(_installed)], wiring: Wired, body: ResourcesIn
) -> LimitedOut:
    """Replaces the operator's own limits and priority of a plugin; in force at once where the kernel takes them."""
    return await wiring.plugins.limit(plugin.name, body, operator)


@router.get("/plugins/{namespace}/{name}/recommendations")
async def recommendations(
    _: Reader, plugin: Annotated[PluginOut, Depends(_installed)], wiring: Wired
) -> RecommendationsOut:
    """Limits that would fit a plugin, by what it used."""
    return await wiring.resources.recommendations(plugin.name, plugin.limits)


@router.post("/plugins/{namespace}/{name}/recommendations/apply")
async def follow_recommendations(
    operator: Keeper, plugin: Annotated[PluginOut, Depends(_installed)], wiring: Wired
) -> LimitedOut:
    """Makes all that is suggested now the operator's own limits."""
    return await wiring.plugins.follow_recommendations(plugin.name, operator)

"""Calls and permissions over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, status

from wirthforge_host.api.security import Caller, Keeper, Reader, Wired
from wirthforge_host.api.streaming import unless_gone
from wirthforge_sdk.contracts.host_api import ApprovalIn, CallIn, CallOut, GrantOut, PluginOut
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.wire import Page

router = APIRouter(prefix="/v1")

RuleId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,64}$")]


@router.post("/calls", tags=["calls"])
async def call(request: Request, body: CallIn, operator: Caller, wiring: Wired) -> CallOut:
    """Calls one function of a plugin and answers with what it returned. Hanging up cancels the call."""
    return await unless_gone(request, wiring.calls.call(body, operator))


@router.get("/permissions", tags=["permissions"])
async def grants(
    _: Reader, wiring: Wired, plugin: Annotated[PluginName | None, Query()] = None
) -> Page[GrantOut]:
    """The rules in force, of one plugin or of all."""
    return Page(items=await wiring.permissions.in_force(plugin), next=None)


@router.post("/permissions", tags=["permissions"])
async def approve(body: ApprovalIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Decides on what one release asks for; starts it when nothing required is missing."""
    await wiring.plugins.approve(body, operator)
    return await wiring.plugins.get(body.plugin)


@router.delete("/permissions/{grant}", status_code=status.HTTP_204_NO_CONTENT, tags=["permissions"])
async def revoke(grant: RuleId, operator: Keeper, wiring: Wired) -> None:
    """Takes a rule back; the next host call already feels it."""
    await wiring.permissions.revoke(grant, operator.actor)

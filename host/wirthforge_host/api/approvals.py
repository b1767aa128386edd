"""Calls over MCP that wait for an operator's yes, over HTTP. Their arguments are shown: who decides must see them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, status

from wirthforge_host.api.security import Keeper, Wired
from wirthforge_sdk.contracts.mcp_api import PendingCallOut, StandingOut, VerdictIn
from wirthforge_sdk.contracts.wire import Page

router = APIRouter(prefix="/v1/calls", tags=["calls"])

CallId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,32}$")]


@router.get("/pending")
async def pending_calls(_: Keeper, wiring: Wired) -> Page[PendingCallOut]:
    """The calls that wait, oldest first."""
    return Page(items=wiring.mcp.approvals.pending(), next=None)


@router.post("/pending/{call}/approve")
async def approve_call(call: CallId, body: VerdictIn, operator: Keeper, wiring: Wired) -> PendingCallOut:
    """Lets a waiting call go on; with ``always``, later ones of the same token, function and release too."""
    return await wiring.mcp.approvals.approve(call, operator, always=body.always)


@router.post("/pending/{call}/deny")
async def deny_call(call: CallId, operator: Keeper, wiring: Wired) -> PendingCallOut:
    """Refuses a waiting call."""
    return await wiring.mcp.approvals.deny(call, operator)


@router.get("/standing")
async def standing_approvals(_: Keeper, wiring: Wired) -> Page[StandingOut]:
    """The approvals that stand, oldest first."""
    return Page(items=await wiring.mcp.approvals.standing(), next=None)


@router.delete("/standing/{call}", status_code=status.HTTP_204_NO_CONTENT)
async def withdraw_approval(call: CallId, operator: Keeper, wiring: Wired) -> None:
    """Takes a standing approval back: the next such call is asked about."""
    await wiring.mcp.approvals.withdraw(call, operator)

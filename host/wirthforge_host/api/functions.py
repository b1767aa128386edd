"""Quarantined functions over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from wirthforge_host.api.security import Keeper, Wired
from wirthforge_sdk.contracts.functions_api import FunctionApprovalIn
from wirthforge_sdk.contracts.host_api import PluginOut
from wirthforge_sdk.contracts.identifiers import Slug

router = APIRouter(prefix="/v1", tags=["functions"])


@router.post("/plugins/{namespace}/{name}/functions/approve")
async def approve_function(
    namespace: Slug, name: Slug, body: FunctionApprovalIn, operator: Keeper, wiring: Wired
) -> PluginOut:
    """Lets a quarantined function be called, exactly as it was looked at."""
    plugin = f"{namespace}/{name}"
    await wiring.answers.approve_function(plugin, body, operator)
    return await wiring.plugins.get(plugin)

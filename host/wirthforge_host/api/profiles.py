"""Profiles of plugins over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from wirthforge_host.api.security import Keeper, Wired
from wirthforge_sdk.contracts.identifiers import Slug
from wirthforge_sdk.contracts.profile_api import ProfileIn, ProfileOut

router = APIRouter(prefix="/v1", tags=["resources"])


@router.post("/plugins/{namespace}/{name}/profile")
async def profile(
    namespace: Slug, name: Slug, body: ProfileIn, operator: Keeper, wiring: Wired
) -> ProfileOut:
    """Looks for some seconds where a plugin's time goes; answers when that is over. One at a time of a plugin."""
    return await wiring.profiles.profile(f"{namespace}/{name}", body, operator)

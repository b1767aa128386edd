"""The operator's policy over HTTP. It is read at the start of the host and changed in its file, not here."""

from __future__ import annotations

from fastapi import APIRouter

from wirthforge_host.api.security import Reader, Wired
from wirthforge_sdk.contracts.policy import SecurityPolicy

router = APIRouter(prefix="/v1", tags=["policy"])


@router.get("/policy")
async def policy(_: Reader, wiring: Wired) -> SecurityPolicy:
    """The policy in force, with the default of every rule that the operator's file does not name."""
    return wiring.policy

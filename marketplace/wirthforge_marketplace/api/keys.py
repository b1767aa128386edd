"""Publishers' keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from wirthforge_marketplace.api.access import DigestPath, KnownCaller, Wired
from wirthforge_sdk.contracts.marketplace_api import KeyIn, KeyOut
from wirthforge_sdk.contracts.wire import Page
from wirthforge_sdk.serving.problems import declared

router = APIRouter(prefix="/v1/keys", tags=["keys"])

EXAMPLE = {"public_key": f"ed25519:{'A' * 43}=", "label": "release key", "proof": f"{'A' * 86}=="}


@router.post("", status_code=201, responses=declared(400, 401, 403, 409, 413, 429))
async def register_key(
    wiring: Wired, caller: KnownCaller, wanted: Annotated[KeyIn, Body(examples=[EXAMPLE])]
) -> KeyOut:
    """Registers a public key. `proof` is its signature over the account's name and the key itself."""
    return await wiring.keys.register(caller, wanted)


@router.get("", responses=declared(401))
async def own_keys(wiring: Wired, caller: KnownCaller) -> Page[KeyOut]:
    """The keys of the account, oldest first, on one page."""
    return Page(items=list(await wiring.keys.of_caller(caller)), next=None)


@router.get("/{keyid}", responses=declared(404))
async def get_key(wiring: Wired, keyid: DigestPath) -> KeyOut:
    """Anybody's key."""
    return await wiring.keys.get(keyid)


@router.delete("/{keyid}", responses=declared(401, 403, 404))
async def revoke_key(wiring: Wired, caller: KnownCaller, keyid: DigestPath) -> KeyOut:
    """Refuses what this key signs from now on. What is published stays."""
    return await wiring.keys.revoke(caller, keyid)

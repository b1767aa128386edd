"""Accounts, tokens and namespaces."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path

from wirthforge_marketplace.api.access import KnownCaller, SomeCaller, Wired
from wirthforge_sdk.contracts.marketplace_api import (
    AccountIn,
    AccountOut,
    NamespaceIn,
    NamespaceOut,
    NewToken,
    Registration,
    TokenIn,
    TokenOut,
)
from wirthforge_sdk.contracts.wire import Page
from wirthforge_sdk.serving.problems import declared

router = APIRouter(prefix="/v1", tags=["accounts"])


@router.post("/accounts", status_code=201, responses=declared(401, 403, 409, 413))
async def register_account(
    wiring: Wired, caller: SomeCaller, wanted: Annotated[AccountIn, Body(examples=[{"name": "acme"}])]
) -> Registration:
    """Opens an account. Its first token is shown here and never again."""
    return await wiring.accounts.register(wanted.name, caller)


@router.get("/accounts/me", responses=declared(401))
async def own_account(wiring: Wired, caller: KnownCaller) -> AccountOut:
    """The account of the token."""
    return await wiring.accounts.me(caller)


@router.post("/tokens", status_code=201, responses=declared(401, 403, 413, 429))
async def issue_token(
    wiring: Wired,
    caller: KnownCaller,
    wanted: Annotated[
        TokenIn, Body(examples=[{"label": "release job", "scopes": ["publish"], "expires_in_s": 86_400}])
    ],
) -> NewToken:
    """A new token of the account, with no scope that the caller's token lacks."""
    return await wiring.accounts.issue_token(caller, wanted)


@router.get("/tokens", responses=declared(401, 403))
async def own_tokens(wiring: Wired, caller: KnownCaller) -> Page[TokenOut]:
    """The tokens of the account, oldest first, on one page."""
    return Page(items=list(await wiring.accounts.tokens(caller)), next=None)


@router.delete("/tokens/{token_id}", status_code=204, responses=declared(401, 403, 404))
async def revoke_token(
    wiring: Wired,
    caller: KnownCaller,
    token_id: Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", examples=["0123456789abcdef"])],
) -> None:
    """Makes a token of the account worthless, at once."""
    await wiring.accounts.revoke_token(caller, token_id)


@router.post("/namespaces", status_code=201, responses=declared(401, 403, 409, 413, 429))
async def claim_namespace(
    wiring: Wired, caller: KnownCaller, wanted: Annotated[NamespaceIn, Body(examples=[{"name": "acme"}])]
) -> NamespaceOut:
    """Claims a free namespace for the account."""
    return await wiring.accounts.claim_namespace(caller, wanted.name)

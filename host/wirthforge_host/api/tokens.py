"""Tokens over HTTP: made, listed and revoked by operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, status

from wirthforge_host.api.security import Keeper, Wired
from wirthforge_host.tokens.service import Token
from wirthforge_sdk.contracts.mcp_api import NewTokenOut, TokenIn, TokenOut
from wirthforge_sdk.contracts.wire import Page
from wirthforge_sdk.errors import PermissionDeniedError

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])

TokenId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,32}$")]


@router.get("")
async def tokens(_: Keeper, wiring: Wired) -> Page[TokenOut]:
    """Every token, expired and revoked ones too, oldest first; never its secret."""
    return Page(items=[TokenOut(**_told(each)) for each in await wiring.tokens.every()], next=None)


@router.post("", status_code=status.HTTP_201_CREATED)
async def make_token(body: TokenIn, operator: Keeper, wiring: Wired) -> NewTokenOut:
    """Makes a token that may do no more than the one it is made with; its secret is in this answer alone."""
    beyond = next((scope for scope in body.scopes if not operator.may_give(scope)), None)
    if beyond is not None:
        raise PermissionDeniedError(
            f"this token cannot give the scope '{beyond}', which it lacks", scope=beyond
        )
    token, secret = await wiring.tokens.create(
        label=body.label, scopes=body.scopes, expires_at=body.expires_at, by=operator.actor
    )
    return NewTokenOut(**_told(token), secret=secret)


@router.delete("/{token}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_token(token: TokenId, operator: Keeper, wiring: Wired) -> None:
    """Makes a token useless at once."""
    await wiring.tokens.revoke(token, by=operator.actor)


def _told(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "label": token.label,
        "scopes": sorted(token.scopes),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }

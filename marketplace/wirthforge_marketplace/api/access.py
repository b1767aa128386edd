"""What the operations of the API have in common: the wiring, who is calling, and the forms of paths."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from wirthforge_marketplace.accounts.models import Caller
from wirthforge_marketplace.wiring import Wiring
from wirthforge_sdk.contracts.identifiers import DIGEST, SLUG
from wirthforge_sdk.errors import UnauthenticatedError

MAX_TOKEN_CHARACTERS = 256

bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token of an account.")


def wiring_of(request: Request) -> Wiring:
    """The wiring that the app was created with."""
    return cast(Wiring, request.app.state.wiring)


Wired = Annotated[Wiring, Depends(wiring_of)]


async def caller_if_any(
    request: Request,
    wiring: Wired,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller | None:
    """Whose token came along; None without one. A token that is no good is refused, not overlooked."""
    if "authorization" not in request.headers:
        return None
    if credentials is None or len(credentials.credentials) > MAX_TOKEN_CHARACTERS:
        raise UnauthenticatedError("the Authorization header is not 'Bearer' and a token")
    return await wiring.accounts.authenticate(credentials.credentials)


async def caller(known: Annotated[Caller | None, Depends(caller_if_any)]) -> Caller:
    """Whose token came along.

    Raises:
        UnauthenticatedError: There was none.
    """
    if known is None:
        raise UnauthenticatedError("this needs a token: send 'Authorization: Bearer …'")
    return known


SomeCaller = Annotated[Caller | None, Depends(caller_if_any)]
KnownCaller = Annotated[Caller, Depends(caller)]
Segment = Annotated[str, Path(pattern=rf"^{SLUG}$", examples=["acme"])]
DigestPath = Annotated[str, Path(pattern=rf"^{DIGEST}$", examples=["sha256:" + "0" * 64])]

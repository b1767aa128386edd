"""Who may use the admin API: bearer tokens with scopes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from wirthforge_host.api.lifetime import SECRET
from wirthforge_host.tokens.service import Operator, Scope
from wirthforge_host.wiring import Wiring
from wirthforge_sdk.errors import PermissionDeniedError, UnauthenticatedError

_bearer = HTTPBearer(
    auto_error=False, description="An operator's token; the first is in the host's token file."
)


def wiring_of(request: Request) -> Wiring:
    """The object graph the application was made with."""
    wiring: Wiring = request.app.state.wiring
    return wiring


async def operator_of(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Operator:
    """Who holds the token that came with the request.

    Raises:
        UnauthenticatedError: There is none, or it is not good.
    """
    return _let_in(request, None if credentials is None else credentials.credentials)


def caller_of(request: Request) -> Operator:
    """What the dependency :data:`Caller` gives, where the framework's way to it would cost more than a call.

    Raises:
        UnauthenticatedError: There is no token, or it is not good.
        PermissionDeniedError: It lacks the scope.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    operator = _let_in(request, secret if scheme.lower() == "bearer" else None)
    require(operator, Scope.CALL)
    return operator


class Scoped:
    """A dependency that lets operators with ``scope`` through."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    async def __call__(self, operator: Annotated[Operator, Depends(operator_of)]) -> Operator:
        """The operator.

        Raises:
            PermissionDeniedError: The token lacks the scope.
        """
        require(operator, self._scope)
        return operator


def require(operator: Operator, scope: str) -> None:
    """Lets operators with ``scope`` pass.

    Raises:
        PermissionDeniedError: The token lacks the scope.
    """
    if scope not in operator.scopes:
        raise PermissionDeniedError(f"this token lacks the scope '{scope}'", scope=scope)


async def _wired(request: Request) -> Wiring:
    """As :func:`wiring_of`; what is not async, the framework runs in a thread, which costs more than a call."""
    return wiring_of(request)


def _let_in(request: Request, secret: str | None) -> Operator:
    if secret is None:
        raise UnauthenticatedError("send an operator's token as 'Authorization: Bearer …'")
    operator = wiring_of(request).tokens.authenticate(secret)
    setattr(request.state, SECRET, secret)
    return operator


Reader = Annotated[Operator, Depends(Scoped("read"))]
Caller = Annotated[Operator, Depends(Scoped("call"))]
Keeper = Annotated[Operator, Depends(Scoped("operate"))]
Wired = Annotated[Wiring, Depends(_wired)]

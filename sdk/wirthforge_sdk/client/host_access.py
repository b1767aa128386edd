"""Who may do what over a host: tokens, and calls that wait for a yes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from wirthforge_sdk.client.connection import Request, Service, given, segment
from wirthforge_sdk.contracts.mcp_api import (
    NewTokenOut,
    PendingCallOut,
    StandingOut,
    TokenIn,
    TokenOut,
    VerdictIn,
)
from wirthforge_sdk.contracts.wire import Page

TokenPage = Page[TokenOut]
PendingPage = Page[PendingCallOut]
StandingPage = Page[StandingOut]


class Access(Service):
    """Tokens of a host, and approvals of calls."""

    async def tokens(self) -> TokenPage:
        """Every token, without its secret."""
        return await self._connection.ask(Request("GET", "/v1/tokens", repeatable=True), TokenPage)

    async def make_token(
        self, label: str, scopes: Sequence[str], *, expires_at: datetime | None = None
    ) -> NewTokenOut:
        """Makes a token; its secret is in the answer and nowhere else."""
        with given():
            body = TokenIn(label=label, scopes=list(scopes), expires_at=expires_at)
        return await self._connection.ask(Request("POST", "/v1/tokens", body=body), NewTokenOut)

    async def revoke_token(self, token: str) -> None:
        """Makes a token useless at once."""
        await self._connection.tell(Request("DELETE", f"/v1/tokens/{segment(token)}"))

    async def pending_calls(self) -> PendingPage:
        """Calls over MCP that wait for a yes, with their arguments."""
        return await self._connection.ask(Request("GET", "/v1/calls/pending", repeatable=True), PendingPage)

    async def approve_call(self, call: str, *, always: bool = False) -> PendingCallOut:
        """Lets a waiting call go on; with ``always``, later ones like it too."""
        request = Request("POST", f"/v1/calls/pending/{segment(call)}/approve", body=VerdictIn(always=always))
        return await self._connection.ask(request, PendingCallOut)

    async def deny_call(self, call: str) -> PendingCallOut:
        """Refuses a waiting call."""
        request = Request("POST", f"/v1/calls/pending/{segment(call)}/deny")
        return await self._connection.ask(request, PendingCallOut)

    async def standing_approvals(self) -> StandingPage:
        """Approvals that hold for later calls too."""
        return await self._connection.ask(Request("GET", "/v1/calls/standing", repeatable=True), StandingPage)

    async def withdraw_approval(self, approval: str) -> None:
        """Takes a standing approval back."""
        await self._connection.tell(Request("DELETE", f"/v1/calls/standing/{segment(approval)}"))

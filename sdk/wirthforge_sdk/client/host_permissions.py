"""Permissions on a host: what is asked for, why it is so, what is used."""

from __future__ import annotations

from wirthforge_sdk.client.connection import Request, Service, given, segment
from wirthforge_sdk.contracts.permissions_api import (
    AnswerIn,
    RequestOut,
    RoleIn,
    RoleOut,
    UnusedOut,
    UseOut,
    WhyOut,
)
from wirthforge_sdk.contracts.wire import Page

ANSWER_S = 120.0

RequestPage = Page[RequestOut]
UsePage = Page[UseOut]
UnusedPage = Page[UnusedOut]
RolePage = Page[RoleOut]


class PermissionUse(Service):
    """What plugins ask for as they run, and what they do with what they have."""

    async def permission_requests(self) -> RequestPage:
        """What running plugins ask for, and wait."""
        return await self._connection.ask(
            Request("GET", "/v1/permissions/requests", repeatable=True), RequestPage
        )

    async def answer(self, request_id: str, answer: AnswerIn) -> RequestOut:
        """Answers one of them."""
        path = f"/v1/permissions/requests/{segment(request_id)}"
        return await self._connection.ask(Request("POST", path, body=answer, timeout_s=ANSWER_S), RequestOut)

    async def why(self, plugin: str, permission: str) -> WhyOut:
        """How a permission stands, and why."""
        params = {"plugin": plugin, "permission": permission}
        return await self._connection.ask(
            Request("GET", "/v1/permissions/why", params, repeatable=True), WhyOut
        )

    async def permission_uses(self, plugin: str | None = None) -> UsePage:
        """How often permissions were used and denied."""
        return await self._connection.ask(
            Request("GET", "/v1/permissions/uses", {"plugin": plugin}, repeatable=True), UsePage
        )

    async def unused_permissions(self, plugin: str | None = None) -> UnusedPage:
        """Grants that nothing was ever done with."""
        return await self._connection.ask(
            Request("GET", "/v1/permissions/unused", {"plugin": plugin}, repeatable=True), UnusedPage
        )

    async def roles(self) -> RolePage:
        """The bundles of rules with a name."""
        return await self._connection.ask(Request("GET", "/v1/permissions/roles", repeatable=True), RolePage)

    async def define_role(self, name: str, rules: list[str]) -> RoleOut:
        """Makes a role, or replaces its rules."""
        with given():
            body = RoleIn(rules=rules)
        path = f"/v1/permissions/roles/{segment(name)}"
        return await self._connection.ask(Request("PUT", path, body=body, repeatable=True), RoleOut)

    async def drop_role(self, name: str) -> None:
        """Forgets a role that no plugin has."""
        await self._connection.tell(Request("DELETE", f"/v1/permissions/roles/{segment(name)}"))

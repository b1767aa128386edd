"""What running plugins ask for, why something is allowed, and what is used."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.permissions import MAX_LENGTH
from wirthforge_sdk.contracts.permissions_api import (
    AnswerIn,
    RequestOut,
    RoleIn,
    RoleName,
    RoleOut,
    UnusedOut,
    UseOut,
    WhyOut,
)
from wirthforge_sdk.contracts.wire import Page

router = APIRouter(prefix="/v1/permissions", tags=["permissions"])


@router.get("/requests")
async def permission_requests(_: Reader, wiring: Wired) -> Page[RequestOut]:
    """The permissions that running plugins ask for, and wait; oldest first."""
    return Page(items=wiring.answers.requests.pending(), next=None)


@router.post("/requests/{request}")
async def answer_request(
    request: Annotated[str, Path(pattern=r"^[0-9a-f]{1,64}$")],
    body: AnswerIn,
    operator: Keeper,
    wiring: Wired,
) -> RequestOut:
    """Approves or denies a request; the calls that wait for it go on or fail."""
    return await wiring.answers.answer(request, body, operator)


@router.get("/why")
async def why(
    _: Reader,
    wiring: Wired,
    plugin: PluginName,
    permission: Annotated[str, Query(min_length=1, max_length=MAX_LENGTH)],
) -> WhyOut:
    """How a permission stands, and which rules make it so."""
    return await wiring.answers.why(plugin, permission)


@router.get("/uses")
async def permission_uses(
    _: Reader, wiring: Wired, plugin: Annotated[PluginName | None, Query()] = None
) -> Page[UseOut]:
    """How often permissions were used and denied, most first; of at most a thousand."""
    return Page(items=await wiring.permissions.uses(plugin), next=None)


@router.get("/unused")
async def unused_permissions(
    _: Reader, wiring: Wired, plugin: Annotated[PluginName | None, Query()] = None
) -> Page[UnusedOut]:
    """Grants that nothing was ever done with."""
    return Page(items=await wiring.permissions.unused(plugin), next=None)


@router.get("/roles")
async def roles(_: Reader, wiring: Wired) -> Page[RoleOut]:
    """The bundles of rules with a name, and who has them."""
    return Page(items=await wiring.roles.all(), next=None)


@router.put("/roles/{name}")
async def define_role(name: RoleName, body: RoleIn, operator: Keeper, wiring: Wired) -> RoleOut:
    """Makes a role, or replaces its rules: what every plugin may that has it changes at once."""
    return await wiring.roles.define(name, body.rules, operator.actor)


@router.delete("/roles/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def drop_role(name: RoleName, operator: Keeper, wiring: Wired) -> None:
    """Forgets a role that no plugin has."""
    await wiring.roles.drop(name, operator.actor)

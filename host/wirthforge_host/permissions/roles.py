"""Roles: bundles of rules with a name. Changing one changes at once what every plugin may that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.permissions import store
from wirthforge_host.permissions.service import Permissions
from wirthforge_sdk.contracts.permissions import ROLE, parse_rule
from wirthforge_sdk.contracts.permissions_api import MAX_ROLES, RoleOut
from wirthforge_sdk.errors import ConflictError, LimitExceededError, NotFoundError
from wirthforge_sdk.serving.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The roles of this host."""

    database: Database
    permissions: Permissions
    now: Callable[[], datetime]

    async def all(self) -> list[RoleOut]:
        """Every role, by name."""
        async with self.database.reading() as tx:
            roles = await store.roles(tx)
            held = await store.live(tx)
        return [
            role.model_copy(update={"plugins": sorted({each.plugin for each in held if each.rule == text})})
            for text, role in sorted(roles.items())
        ]

    async def define(self, name: str, rules: list[str], actor: str) -> RoleOut:
        """Makes a role, or replaces its rules.

        Raises:
            InvalidInputError: A rule covers no permission there is.
            LimitExceededError: There are too many roles.
        """
        wanted = sorted({parse_rule(rule) for rule in rules})
        role = RoleOut(name=name, rules=wanted, plugins=[], changed_by=actor, changed_at=self.now())
        async with self.database.transaction() as tx:
            roles = await store.roles(tx)
            if ROLE + name not in roles and len(roles) >= MAX_ROLES:
                raise LimitExceededError(f"there are {MAX_ROLES} roles, and may be no more: drop one")
            before = roles.get(ROLE + name)
            await store.put_role(tx, role)
            detail = {"role": name, "before": before.rules if before else [], "after": wanted}
            await self.permissions.change_role(tx, ROLE + name, _act(actor, "permission.role", detail))
        return next(each for each in await self.all() if each.name == name)

    async def drop(self, name: str, actor: str) -> None:
        """Forgets a role.

        Raises:
            NotFoundError: There is none of that name.
            ConflictError: A plugin has it.
        """
        async with self.database.transaction() as tx:
            if holders := sorted({each.plugin for each in await store.holding(tx, ROLE + name)}):
                raise ConflictError(
                    f"{', '.join(holders[:5])} has the role {name}: revoke that rule first", role=name
                )
            if not await store.remove_role(tx, name):
                raise NotFoundError(f"there is no role '{name}'", role=name)
            dropped = _act(actor, "permission.role_drop", {"role": name})
            await self.permissions.change_role(tx, ROLE + name, dropped)


def _act(actor: str, action: str, detail: Mapping[str, object]) -> Record:
    return Record(actor=actor, action=action, outcome=Outcome.ALLOWED, detail=detail)

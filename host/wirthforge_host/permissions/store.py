"""The tables of permission rules and of their use. A rule is never changed or deleted, only revoked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    text,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_host.permissions.rights import MAX_USES, Effect, Rule, Use
from wirthforge_sdk.contracts.permissions import ROLE
from wirthforge_sdk.contracts.permissions_api import RoleOut, UseOut
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

MAX_LISTED = 1_000

rules = Table(
    "permission_rules",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("plugin", String(100), nullable=False),
    Column("rule", String(256), nullable=False),
    Column("effect", String(5), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("granter", String(200), nullable=False),
    Column("reason", String(300), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
)

Index(
    "uq_permission_rules_live",
    rules.c.plugin,
    rules.c.digest,
    rules.c.rule,
    unique=True,
    sqlite_where=text("revoked_at IS NULL"),
    postgresql_where=text("revoked_at IS NULL"),
)


uses = Table(
    "permission_uses",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("permission", String(256), primary_key=True),
    Column("allowed", BigInteger, nullable=False),
    Column("denied", BigInteger, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)


role_table = Table(
    "permission_roles",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("rules", Text, nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)


async def roles(tx: Transaction) -> dict[str, RoleOut]:
    """Every role, by ``role:name``; who has it is not told."""
    return {
        ROLE + row.name: RoleOut(
            name=row.name,
            rules=msgspec.json.decode(row.rules),
            plugins=[],
            changed_by=row.changed_by,
            changed_at=row.changed_at,
        )
        for row in await tx.execute(select(role_table))
    }


async def put_role(tx: Transaction, role: RoleOut) -> None:
    """Writes a role, over the one of its name."""
    values = {
        "rules": msgspec.json.encode(role.rules).decode(),
        "changed_by": role.changed_by,
        "changed_at": role.changed_at,
    }
    statement = tx.insert(role_table).values(name=role.name, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


async def remove_role(tx: Transaction, name: str) -> bool:
    """Forgets a role; whether there was one."""
    return (await tx.execute(delete(role_table).where(role_table.c.name == name))).rowcount == 1


async def holding(tx: Transaction, text: str) -> list[Rule]:
    """The rules in force that are just ``text``."""
    query = select(rules).where(rules.c.revoked_at.is_(None), rules.c.rule == text)
    return [_rule(row) for row in await tx.execute(query)]


async def add_uses(tx: Transaction, plugin: str, found: Mapping[str, Use], at: datetime) -> None:
    """Adds to what is counted of a plugin; of a thousand permissions at most, those used last."""
    for permission, use in found.items():
        new = {
            "plugin": plugin,
            "permission": permission,
            "allowed": use.allowed,
            "denied": use.denied,
            "last_at": at,
        }
        statement = tx.insert(uses).values(new)
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["plugin", "permission"],
                set_={
                    "allowed": uses.c.allowed + use.allowed,
                    "denied": uses.c.denied + use.denied,
                    "last_at": at,
                },
            )
        )
    await _forget_oldest(tx, plugin)


async def _forget_oldest(tx: Transaction, plugin: str) -> None:
    own = uses.c.plugin == plugin
    newest = select(uses.c.permission).where(own).order_by(uses.c.last_at.desc()).limit(MAX_USES)
    await tx.execute(delete(uses).where(own, uses.c.permission.not_in(newest)))


async def used(tx: Transaction, plugin: str | None = None, *, limit: int | None = MAX_LISTED) -> list[UseOut]:
    """What is counted, of one plugin or of all, most used first."""
    query = select(uses).order_by((uses.c.allowed + uses.c.denied).desc(), uses.c.permission).limit(limit)
    if plugin is not None:
        query = query.where(uses.c.plugin == plugin)
    return [UseOut(**row._mapping) for row in await tx.execute(query)]  # noqa: SLF001


async def forget_uses(tx: Transaction, plugin: str) -> None:
    """Forgets what is counted of a plugin."""
    await tx.execute(delete(uses).where(uses.c.plugin == plugin))


async def history(tx: Transaction, plugin: str, digest: str) -> list[Rule]:
    """Every rule of one release there is or was, newest first; at most :data:`MAX_LISTED`."""
    query = select(rules).where(rules.c.plugin == plugin, rules.c.digest == digest)
    return [
        _rule(row) for row in await tx.execute(query.order_by(rules.c.created_at.desc()).limit(MAX_LISTED))
    ]


async def add(tx: Transaction, rule: Rule) -> None:
    """Adds a rule.

    Raises:
        ConflictError: There is one in force for the same words.
    """
    await tx.execute(insert(rules).values(asdict(rule)))


async def live(tx: Transaction, plugin: str | None = None, digest: str | None = None) -> list[Rule]:
    """The rules in force: all, of one plugin, or of one release of it; oldest first."""
    query = select(rules).where(rules.c.revoked_at.is_(None))
    if plugin is not None:
        query = query.where(rules.c.plugin == plugin)
    if digest is not None:
        query = query.where(rules.c.digest == digest)
    return [_rule(row) for row in await tx.execute(query.order_by(rules.c.created_at, rules.c.id))]


async def find(tx: Transaction, rule_id: str) -> Rule | None:
    """One rule, in force or not."""
    row = (await tx.execute(select(rules).where(rules.c.id == rule_id))).one_or_none()
    return None if row is None else _rule(row)


async def revoke(tx: Transaction, rule_id: str, at: datetime) -> bool:
    """Ends a rule; whether it was in force."""
    changed = await tx.execute(
        update(rules).where(rules.c.id == rule_id, rules.c.revoked_at.is_(None)).values(revoked_at=at)
    )
    return changed.rowcount == 1


def _rule(row: Row[tuple[object, ...]]) -> Rule:
    values = dict(row._mapping)  # noqa: SLF001  (its documented mapping)
    return Rule(**{**values, "effect": Effect(values["effect"])})

"""The table of permission rules. A rule is never changed or deleted, only revoked."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Column, Index, Row, String, Table, insert, select, text, update

from wirthforge_host.database import metadata
from wirthforge_host.permissions.rights import Effect, Rule
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

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

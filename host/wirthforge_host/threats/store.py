"""The table of alerts."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    RowMapping,
    String,
    Table,
    Text,
    insert,
    select,
    text,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

_LIVE = text("state <> 'resolved'")

alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("rule", String(40), nullable=False),
    Column("plugin", String(100), nullable=False, index=True),
    Column("instance", String(64), nullable=False),
    Column("severity", String(10), nullable=False),
    Column("message", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    Column("told_at", UtcDateTime, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("action", String(12), nullable=False),
    Column("taken", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("by", String(200)),
    Column("note", Text, nullable=False),
    Index("uq_alerts_live", "plugin", "rule", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
)

AlertRow: TypeAlias = RowMapping
"""The columns, by name."""


async def add(tx: Transaction, values: dict[str, Any]) -> int:
    """Adds an alert, and returns its id."""
    return int(await tx.scalar(insert(alerts).values(values).returning(alerts.c.id)))


async def change(tx: Transaction, alert: int, values: dict[str, Any]) -> None:
    """Changes columns of one alert."""
    await tx.execute(update(alerts).where(alerts.c.id == alert).values(values))


async def live(tx: Transaction, plugin: str, rule: str) -> AlertRow | None:
    """The alert of a plugin and rule that is not resolved, if there is one; nobody changes it before we commit."""
    wanted = (alerts.c.plugin == plugin, alerts.c.rule == rule, alerts.c.state != "resolved")
    return (await tx.execute(select(alerts).where(*wanted).with_for_update())).mappings().one_or_none()


async def find(tx: Transaction, alert: int, *, lock: bool = False) -> AlertRow | None:
    """One alert; with ``lock``, nobody else changes it before we commit."""
    query = select(alerts).where(alerts.c.id == alert)
    return (await tx.execute(query.with_for_update() if lock else query)).mappings().one_or_none()


async def page(tx: Transaction, wanted: dict[str, str], *, before: int | None, limit: int) -> list[AlertRow]:
    """Alerts below ``before`` whose columns are as ``wanted``, newest first."""
    query = select(alerts).order_by(alerts.c.id.desc()).limit(limit)
    for column, value in wanted.items():
        query = query.where(alerts.c[column] == value)
    if before is not None:
        query = query.where(alerts.c.id < before)
    return list((await tx.execute(query)).mappings())

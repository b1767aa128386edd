"""The table of standing approvals: calls that an operator need not be asked about again."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from sqlalchemy import Column, Row, String, Table, UniqueConstraint, delete, insert, select

from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

standing = Table(
    "standing_approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("token", String(32), nullable=False),
    Column("caller", String(100), nullable=False),
    Column("plugin", String(80), nullable=False),
    Column("function", String(128), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("granter", String(100), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("token", "digest", "function", name="uq_standing_approvals_call"),
)

StandingRow: TypeAlias = Row[tuple[str, str, str, str, str, str, str, datetime]]
"""id, token, caller, plugin, function, digest, granter, created_at."""


async def every(tx: Transaction) -> list[StandingRow]:
    """All of them, oldest first."""
    rows = await tx.execute(select(standing).order_by(standing.c.created_at, standing.c.id))
    return list(rows.all())


async def add(tx: Transaction, **values: object) -> None:
    """Adds one; the names are those of the columns."""
    await tx.execute(insert(standing).values(**values))


async def remove(tx: Transaction, approval: str) -> None:
    """Removes one."""
    await tx.execute(delete(standing).where(standing.c.id == approval))

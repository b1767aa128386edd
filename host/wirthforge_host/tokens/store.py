"""The table of tokens. Only digests are stored; a token is shown once, when it is made."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, Row, String, Table, Text, func, insert, select, update

from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("label", String(60), nullable=False),
    Column("digest", String(71), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("publishes", Text),
)

TokenRow = Row[tuple[str, str, str, str, datetime, datetime | None, datetime | None, str | None]]
"""id, label, digest, scopes (space-separated), created_at, expires_at, revoked_at, publishes (as scopes)."""


async def add(tx: Transaction, **values: object) -> None:
    """Adds one token; the names are those of the columns."""
    await tx.execute(insert(tokens).values(**values))


async def every(tx: Transaction) -> list[TokenRow]:
    """All tokens, revoked ones too, oldest first."""
    rows = await tx.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.id))
    return list(rows.all())


async def count(tx: Transaction) -> int:
    """How many there are, revoked ones too."""
    return int(await tx.scalar(select(func.count()).select_from(tokens)))


async def revoke(tx: Transaction, token_id: str, at: datetime) -> bool:
    """Marks a token as revoked; whether there was one that was not."""
    changed = await tx.execute(
        update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None)).values(revoked_at=at)
    )
    return changed.rowcount == 1

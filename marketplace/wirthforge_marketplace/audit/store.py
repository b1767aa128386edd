"""The audit table, and the one way to write to it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Column, Integer, String, Table, Text, insert

from wirthforge_marketplace.database import metadata
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

audit_records = Table(
    "audit_records",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("actor", String(39), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("details", Text, nullable=False),
)


class Act(NamedTuple):
    """What is recorded of an act; never a secret."""

    actor: str
    """An account's name."""
    action: str
    """``thing.done``"""
    subject: str
    details: dict[str, str | int | list[str]]


async def append(tx: Transaction, at: datetime, act: Act) -> None:
    """Records ``act`` in the transaction that does it."""
    await tx.execute(
        insert(audit_records).values(
            at=at, actor=act.actor, action=act.action, subject=act.subject, details=json.dumps(act.details)
        )
    )

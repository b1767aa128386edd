"""The table of publishers' keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, ForeignKey, Row, String, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from wirthforge_marketplace.database import metadata
from wirthforge_marketplace.errors import KeyExistsError
from wirthforge_sdk.contracts.marketplace_api import KeyOut
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

publisher_keys = Table(
    "publisher_keys",
    metadata,
    Column("keyid", String(71), primary_key=True),
    Column("public_key", String(64), nullable=False),
    Column("account", ForeignKey("accounts.name"), nullable=False, index=True),
    Column("label", String(100), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)


async def add(tx: Transaction, key: KeyOut) -> None:
    """Stores a key.

    Raises:
        KeyExistsError: It is there, whoever's it is.
    """
    try:
        await tx.execute(insert(publisher_keys).values(**key.model_dump()))
    except IntegrityError as error:
        raise KeyExistsError("this key is registered already: make another", keyid=key.keyid) from error


async def find(tx: Transaction, keyid: str) -> KeyOut | None:
    """A key, revoked or not."""
    row = (await tx.execute(select(publisher_keys).where(publisher_keys.c.keyid == keyid))).first()
    return _key(row) if row else None


async def of_account(tx: Transaction, account: str) -> list[KeyOut]:
    """The keys of an account, revoked or not, oldest first."""
    query = select(publisher_keys).where(publisher_keys.c.account == account)
    rows = await tx.execute(query.order_by(publisher_keys.c.created_at, publisher_keys.c.keyid))
    return [_key(row) for row in rows]


async def count_live(tx: Transaction, account: str) -> int:
    """How many keys of an account can sign."""
    own, live = publisher_keys.c.account == account, publisher_keys.c.revoked_at.is_(None)
    count: int = await tx.scalar(select(func.count()).select_from(publisher_keys).where(own, live))
    return count


async def revoke(tx: Transaction, keyid: str, at: datetime) -> None:
    """Revokes a key, unless it is revoked."""
    live = publisher_keys.c.revoked_at.is_(None)
    await tx.execute(
        update(publisher_keys).where(publisher_keys.c.keyid == keyid, live).values(revoked_at=at)
    )


def _key(row: Row[tuple[object, ...]]) -> KeyOut:
    return KeyOut.model_validate(dict(row._mapping))  # noqa: SLF001 (SQLAlchemy's public name)

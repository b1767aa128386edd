"""The tables of plugins' values.

Keys are bytes, so that order and prefixes mean the same on both databases whatever their collation.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    String,
    Table,
    delete,
    select,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction

items = Table(
    "storage_items",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("size_bytes", Integer, nullable=False),
)

usage = Table(
    "storage_usage",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("used_bytes", BigInteger, nullable=False),
)
"""What a plugin's items take together. Its row is the lock that writers of one plugin share."""


async def value_of(tx: Transaction, plugin: str, key: bytes) -> bytes | None:
    """One value, or None."""
    row = (
        await tx.execute(select(items.c.value).where(items.c.plugin == plugin, items.c.key == key))
    ).one_or_none()
    return None if row is None else row.value


async def size_of(tx: Transaction, plugin: str, key: bytes) -> int:
    """What one item takes; 0 when there is none."""
    row = (
        await tx.execute(select(items.c.size_bytes).where(items.c.plugin == plugin, items.c.key == key))
    ).one_or_none()
    return 0 if row is None else row.size_bytes


async def lock_usage(tx: Transaction, plugin: str) -> int:
    """What the plugin uses; nobody else can change it until we commit."""
    locked = select(usage.c.used_bytes).where(usage.c.plugin == plugin).with_for_update()
    used = await tx.scalar(locked)
    if used is None:
        first = tx.insert(usage).values(plugin=plugin, used_bytes=0)
        await tx.execute(first.on_conflict_do_nothing(index_elements=["plugin"]))
        used = await tx.scalar(locked)
    return int(used)


async def set_usage(tx: Transaction, plugin: str, used_bytes: int) -> None:
    """Writes what the plugin uses."""
    await tx.execute(update(usage).where(usage.c.plugin == plugin).values(used_bytes=used_bytes))


async def used_bytes(tx: Transaction, plugin: str) -> int:
    """What the plugin uses, without the lock."""
    return int(await tx.scalar(select(usage.c.used_bytes).where(usage.c.plugin == plugin)) or 0)


async def put(tx: Transaction, plugin: str, key: bytes, value: bytes, size: int) -> None:
    """Writes one item in the place of what was there."""
    fresh = tx.insert(items).values(plugin=plugin, key=key, value=value, size_bytes=size)
    await tx.execute(
        fresh.on_conflict_do_update(
            index_elements=["plugin", "key"], set_={"value": fresh.excluded.value, "size_bytes": size}
        )
    )


async def remove(tx: Transaction, plugin: str, key: bytes) -> None:
    """Deletes one item."""
    await tx.execute(delete(items).where(items.c.plugin == plugin, items.c.key == key))


async def remove_all(tx: Transaction, plugin: str) -> None:
    """Deletes everything of the plugin."""
    await tx.execute(delete(items).where(items.c.plugin == plugin))
    await tx.execute(delete(usage).where(usage.c.plugin == plugin))


async def keys(tx: Transaction, plugin: str, prefix: bytes, after: bytes, limit: int) -> list[bytes]:
    """Keys with ``prefix`` above ``after``, in order of their bytes."""
    query = select(items.c.key).where(items.c.plugin == plugin, items.c.key >= prefix, items.c.key > after)
    beyond = _successor(prefix)
    if beyond:
        query = query.where(items.c.key < beyond)
    return [row.key for row in await tx.execute(query.order_by(items.c.key).limit(limit))]


def _successor(prefix: bytes) -> bytes:
    """The first byte string above all that start with ``prefix``; empty when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b""

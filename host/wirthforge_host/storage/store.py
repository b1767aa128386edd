"""The tables of plugins' values.

Keys are bytes, so that order and prefixes mean the same on both databases whatever their collation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    LargeBinary,
    Select,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_host.storage.models import Spot
from wirthforge_host.storage.sealed import LIVE, Row
from wirthforge_sdk.serving.database import Transaction, ordered_text

items = Table(
    "storage_items",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("snapshot", BigInteger, primary_key=True, autoincrement=False),
    Column("space", ordered_text(64), primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("head", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("expires_at", BigInteger),
)
"""``snapshot`` 0 is what the plugin sees. ``expires_at`` repeats the head for the sweep: milliseconds since 1970."""

Index("ix_storage_items_expires_at", items.c.expires_at)

usage = Table(
    "storage_usage",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
"""What a plugin's live items take together. Its row is the lock that writers of one plugin share."""

snapshots = Table(
    "storage_snapshots",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)


class SnapshotRow(NamedTuple):
    """A snapshot's summary as it is kept."""

    id: int
    sealed: bytes


_PLACE = (items.c.snapshot, items.c.space, items.c.key)
_EMPTY: ColumnElement[bytes] = literal(b"", LargeBinary).label("value")
_WHOLE = (*_PLACE, items.c.head, items.c.value, items.c.expires_at)
_HEADS = (*_PLACE, items.c.head, _EMPTY, items.c.expires_at)


async def find(tx: Transaction, plugin: str, spot: Spot, *, whole: bool) -> Row | None:
    """One live row; without its value unless ``whole``."""
    query = select(*(_WHOLE if whole else _HEADS)).where(_at(plugin, LIVE, spot))
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else Row._make(row)


async def put(tx: Transaction, plugin: str, row: Row) -> None:
    """Writes one row in the place of what was there."""
    fresh = tx.insert(items).values(plugin=plugin, **row._asdict())
    told = {name: fresh.excluded[name] for name in ("head", "value", "expires_at")}
    await tx.execute(fresh.on_conflict_do_update(index_elements=list(items.primary_key), set_=told))


async def remove(tx: Transaction, plugin: str, spots: Sequence[Spot]) -> None:
    """Deletes live rows."""
    if spots:
        gone = delete(items).where(
            items.c.plugin == plugin,
            items.c.snapshot == LIVE,
            items.c.space == bindparam("in_space"),
            items.c.key == bindparam("at_key"),
        )
        await tx.execute(gone, [{"in_space": spot.space, "at_key": spot.key} for spot in spots])


async def remove_all(tx: Transaction, plugin: str) -> None:
    """Deletes everything of the plugin, with its snapshots."""
    for table in (items, usage, snapshots):
        await tx.execute(delete(table).where(table.c.plugin == plugin))


async def page(
    tx: Transaction, plugin: str, after: Spot, *, prefix: bytes, alive_at: int, limit: int
) -> list[Row]:
    """Heads of live rows with ``prefix`` above ``after``, in order of their keys' bytes."""
    query = select(*_HEADS).where(
        items.c.plugin == plugin,
        items.c.snapshot == LIVE,
        items.c.space == after.space,
        items.c.key >= prefix,
        items.c.key > after.key,
        or_(items.c.expires_at.is_(None), items.c.expires_at > alive_at),
    )
    beyond = _successor(prefix)
    if beyond:
        query = query.where(items.c.key < beyond)
    return await _rows(tx, query.order_by(items.c.key).limit(limit))


async def over(tx: Transaction, plugin: str, now_ms: int, after: Spot | None, limit: int) -> list[Row]:
    """Heads of live rows whose time has come, in order."""
    query = select(*_HEADS).where(
        items.c.plugin == plugin, items.c.snapshot == LIVE, items.c.expires_at <= now_ms
    )
    if after is not None:
        query = query.where(tuple_(items.c.space, items.c.key) > tuple_(*_bound(after)))
    return await _rows(tx, query.order_by(items.c.space, items.c.key).limit(limit))


async def plugins_with_ends(tx: Transaction, now_ms: int) -> list[str]:
    """Plugins some of whose values' time has come."""
    query = select(items.c.plugin).where(items.c.snapshot == LIVE, items.c.expires_at <= now_ms).distinct()
    return [row.plugin for row in await tx.execute(query.order_by(items.c.plugin))]


async def heads(tx: Transaction, plugin: str, snapshot: int, after: Spot | None, limit: int) -> list[Row]:
    """Heads of a snapshot, or of what is live, in order."""
    query = select(*_HEADS).where(items.c.plugin == plugin, items.c.snapshot == snapshot)
    if after is not None:
        query = query.where(tuple_(items.c.space, items.c.key) > tuple_(*_bound(after)))
    return await _rows(tx, query.order_by(items.c.space, items.c.key).limit(limit))


async def count(tx: Transaction, plugin: str, snapshot: int) -> int:
    """How many rows a snapshot has, or what is live."""
    counted = select(func.count()).where(items.c.plugin == plugin, items.c.snapshot == snapshot)
    return int(await tx.scalar(counted))


async def copy(tx: Transaction, plugin: str, source: int, target: int) -> None:
    """Replaces what ``target`` has by what ``source`` has; its heads are still bound to ``source``."""
    await tx.execute(delete(items).where(items.c.plugin == plugin, items.c.snapshot == target))
    taken = select(
        items.c.plugin, literal(target, BigInteger), *(column for column in list(items.c)[2:])
    ).where(items.c.plugin == plugin, items.c.snapshot == source)
    await tx.execute(insert(items).from_select([column.name for column in items.c], taken))


async def rewrite(tx: Transaction, plugin: str, rows: Sequence[Row], *, whole: bool) -> None:
    """Writes heads of rows anew, and with ``whole`` their values."""
    if not rows:
        return
    told = {"head": bindparam("new_head", type_=LargeBinary)}
    if whole:
        told["value"] = bindparam("new_value", type_=LargeBinary)
    changed = update(items).values(told)
    changed = changed.where(
        items.c.plugin == plugin,
        items.c.snapshot == bindparam("of"),
        items.c.space == bindparam("in_space"),
        items.c.key == bindparam("at_key"),
    )
    await tx.execute(
        changed,
        [
            {"of": row.snapshot, "in_space": row.space, "at_key": row.key, "new_head": row.head}
            | ({"new_value": row.value} if whole else {})
            for row in rows
        ],
    )


async def sealed_otherwise(
    tx: Transaction, plugin: str, header: bytes, after: Row | None, limit: int
) -> list[Row]:
    """Rows, also of snapshots, whose head or value does not begin with ``header``, in order."""
    query = select(*_WHOLE).where(
        items.c.plugin == plugin,
        or_(
            func.substr(items.c.head, 1, len(header)) != header,
            func.substr(items.c.value, 1, len(header)) != header,
        ),
    )
    if after is not None:
        query = query.where(
            tuple_(*_PLACE) > tuple_(literal(after.snapshot, BigInteger), *_bound(after.spot))
        )
    return await _rows(tx, query.order_by(*_PLACE).limit(limit))


async def lock_usage(tx: Transaction, plugin: str) -> bytes | None:
    """The sealed usage; nobody else can change it until we commit."""
    found: bytes | None = await tx.scalar(
        select(usage.c.sealed).where(usage.c.plugin == plugin).with_for_update()
    )
    return found


async def usage_of(tx: Transaction, plugin: str) -> bytes | None:
    """The sealed usage, without the lock."""
    found: bytes | None = await tx.scalar(select(usage.c.sealed).where(usage.c.plugin == plugin))
    return found


async def begin_usage(tx: Transaction, plugin: str, sealed: bytes) -> None:
    """Writes the usage of a plugin that has none, unless somebody else did."""
    first = tx.insert(usage).values(plugin=plugin, sealed=sealed)
    await tx.execute(first.on_conflict_do_nothing(index_elements=["plugin"]))


async def set_usage(tx: Transaction, plugin: str, sealed: bytes) -> None:
    """Writes the usage."""
    await tx.execute(update(usage).where(usage.c.plugin == plugin).values(sealed=sealed))


async def all_snapshots(tx: Transaction, plugin: str) -> list[SnapshotRow]:
    """The plugin's snapshots, oldest first."""
    query = select(snapshots.c.id, snapshots.c.sealed).where(snapshots.c.plugin == plugin)
    return [SnapshotRow._make(row) for row in await tx.execute(query.order_by(snapshots.c.id))]


async def add_snapshot(tx: Transaction, plugin: str, row: SnapshotRow) -> None:
    """Adds a snapshot's summary."""
    await tx.execute(insert(snapshots).values(plugin=plugin, **row._asdict()))


async def set_snapshot(tx: Transaction, plugin: str, row: SnapshotRow) -> None:
    """Writes a snapshot's summary anew."""
    at = and_(snapshots.c.plugin == plugin, snapshots.c.id == row.id)
    await tx.execute(update(snapshots).where(at).values(sealed=row.sealed))


async def remove_snapshot(tx: Transaction, plugin: str, number: int) -> None:
    """Deletes a snapshot with its rows."""
    await tx.execute(delete(items).where(items.c.plugin == plugin, items.c.snapshot == number))
    await tx.execute(delete(snapshots).where(snapshots.c.plugin == plugin, snapshots.c.id == number))


async def _rows(tx: Transaction, query: Select[tuple[object, ...]]) -> list[Row]:
    return [Row._make(row) for row in await tx.execute(query)]


def _at(plugin: str, snapshot: int, spot: Spot) -> ColumnElement[bool]:
    return and_(
        items.c.plugin == plugin,
        items.c.snapshot == snapshot,
        items.c.space == spot.space,
        items.c.key == spot.key,
    )


def _bound(spot: Spot) -> tuple[ColumnElement[str], ColumnElement[bytes]]:
    return literal(spot.space, items.c.space.type), literal(spot.key, LargeBinary)


def _successor(prefix: bytes) -> bytes:
    """The first byte string above all that start with ``prefix``; empty when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b""

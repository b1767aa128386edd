"""The tables of events that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import accumulate

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    delete,
    func,
    select,
    update,
)

from wirthforge_host.bus.models import BusEvent, Retention
from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction, UtcDateTime, ordered_text

BATCH = 500
READ_BYTES = 256 * 1024
"""Of one read: each of many readers holds what it read until it is taken."""

events = Table(
    "bus_events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("topic", ordered_text(256), nullable=False),
    Column("publisher", String(200), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("size_bytes", Integer, nullable=False),
)
Index("ix_bus_events_publisher_topic_id", events.c.publisher, events.c.topic, events.c.id)
Index("ix_bus_events_at", events.c.at)

usage = Table(
    "bus_usage",
    metadata,
    Column("publisher", String(200), primary_key=True),
    Column("topic", ordered_text(256), primary_key=True),
    Column("events", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("dropped_id", BigInteger, nullable=False),
)
"""What is kept of each publisher on each topic, and the id up to which retention has dropped."""

cursors = Table(
    "bus_cursors",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("pattern", String(256), primary_key=True),
    Column("id", BigInteger, nullable=False),
)
"""Durable subscriptions of plugins, and up to which event each has acknowledged all."""

kept = Table(
    "bus_kept",
    metadata,
    Column("pattern", String(256), primary_key=True),
    Column("events", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("age_s", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
"""What operators want kept."""

UsageRow = Row[tuple[str, str, int, int, int]]
"""publisher, topic, events, size_bytes, dropped_id."""


async def add(tx: Transaction, new: Sequence[BusEvent]) -> None:
    """Adds events, whose ids are above all that there are, and counts them."""
    rows = [
        {
            "id": each.id,
            "topic": each.topic,
            "publisher": each.publisher,
            "at": each.at,
            "data": each.encoded,
            "size_bytes": each.weight,
        }
        for each in new
    ]
    await tx.execute(events.insert(), rows)
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for each in new:
        count, size = sums.get((each.publisher, each.topic), (0, 0))
        sums[each.publisher, each.topic] = (count + 1, size + each.weight)
    for (publisher, topic), (count, size) in sums.items():
        fresh = tx.insert(usage).values(
            publisher=publisher, topic=topic, events=count, size_bytes=size, dropped_id=0
        )
        await tx.execute(
            fresh.on_conflict_do_update(
                index_elements=["publisher", "topic"],
                set_={"events": usage.c.events + count, "size_bytes": usage.c.size_bytes + size},
            )
        )


async def after(tx: Transaction, last: int, limit: int) -> list[BusEvent]:
    """The events above the id ``last``, in order: at most ``limit``, and one or as many as have ``READ_BYTES``."""
    next_ones = select(events.c.id, events.c.size_bytes).where(events.c.id > last)
    sizes = (await tx.execute(next_ones.order_by(events.c.id).limit(limit))).all()
    ends = accumulate(row.size_bytes for row in sizes)
    fitting = [row.id for row, end in zip(sizes, ends, strict=True) if end <= READ_BYTES] or [
        row.id for row in sizes[:1]
    ]
    if not fitting:
        return []
    found = await tx.execute(
        select(events).where(events.c.id > last, events.c.id <= fitting[-1]).order_by(events.c.id)
    )
    return [BusEvent(row.id, row.topic, row.publisher, row.at, row.data) for row in found]


async def newest(tx: Transaction) -> int:
    """The largest id that was ever given to an event or a cursor; 0: none was."""
    columns = (events.c.id, usage.c.dropped_id, cursors.c.id)
    return max([int(await tx.scalar(select(func.max(column))) or 0) for column in columns])


async def usages(tx: Transaction, publisher: str | None = None) -> list[UsageRow]:
    """What is kept, by publisher and topic."""
    query = select(usage).order_by(usage.c.publisher, usage.c.topic)
    if publisher is not None:
        query = query.where(usage.c.publisher == publisher)
    return list((await tx.execute(query)).all())


async def trim(tx: Transaction, row: UsageRow, retention: Retention) -> None:
    """Drops the oldest of one publisher on one topic until what is left is within the first two bounds."""
    count, size, dropped = row.events, row.size_bytes, row.dropped_id
    mine = (events.c.publisher == row.publisher) & (events.c.topic == row.topic)
    while count > retention.events or size > retention.size_bytes:
        oldest = select(events.c.id, events.c.size_bytes).where(mine).order_by(events.c.id).limit(BATCH)
        for each in await tx.execute(oldest):
            if count <= retention.events and size <= retention.size_bytes:
                break
            count, size, dropped = count - 1, size - each.size_bytes, each.id
        await tx.execute(delete(events).where(mine, events.c.id <= dropped))
    await _count(tx, row, (count, size, dropped))


async def expire(tx: Transaction, row: UsageRow, before: datetime) -> None:
    """Drops what one publisher published on one topic before a moment."""
    mine = (events.c.publisher == row.publisher) & (events.c.topic == row.topic)
    found: tuple[int, int, int] = (  # type: ignore[assignment]  # a row is one
        await tx.execute(
            select(func.count(), func.sum(events.c.size_bytes), func.max(events.c.id)).where(
                mine, events.c.at < before
            )
        )
    ).one()
    count, size, last = found
    if count:
        await tx.execute(delete(events).where(mine, events.c.at < before))
        await _count(tx, row, (row.events - count, row.size_bytes - int(size), int(last)))


async def forget_empty(tx: Transaction, below: int) -> None:
    """Forgets topics of which nothing is kept and whose losses every subscriber is past."""
    await tx.execute(delete(usage).where(usage.c.events == 0, usage.c.dropped_id <= below))


async def _count(tx: Transaction, row: UsageRow, now: tuple[int, int, int]) -> None:
    changed = dict(zip(("events", "size_bytes", "dropped_id"), now, strict=True))
    await tx.execute(
        update(usage).where(usage.c.publisher == row.publisher, usage.c.topic == row.topic).values(**changed)
    )


async def all_cursors(tx: Transaction) -> dict[tuple[str, str], int]:
    """Every durable subscription, by plugin and pattern."""
    return {(row.plugin, row.pattern): row.id for row in await tx.execute(select(cursors))}


async def set_cursors(tx: Transaction, at: Iterable[tuple[tuple[str, str], int]]) -> None:
    """Writes how far subscriptions are; makes those that are not there."""
    for (plugin, pattern), last in at:
        fresh = tx.insert(cursors).values(plugin=plugin, pattern=pattern, id=last)
        await tx.execute(fresh.on_conflict_do_update(index_elements=["plugin", "pattern"], set_={"id": last}))


async def remove_cursors(tx: Transaction, plugin: str, patterns: Iterable[str] | None = None) -> int:
    """Ends durable subscriptions of a plugin, all or those named; how many there were."""
    query = delete(cursors).where(cursors.c.plugin == plugin)
    if patterns is not None:
        query = query.where(cursors.c.pattern.in_(list(patterns)))
    return int((await tx.execute(query)).rowcount)


async def remove_of(tx: Transaction, publisher: str) -> int:
    """Deletes what a publisher published; how many events that were."""
    await tx.execute(delete(usage).where(usage.c.publisher == publisher))
    return int((await tx.execute(delete(events).where(events.c.publisher == publisher))).rowcount)


async def all_kept(tx: Transaction) -> dict[str, Retention]:
    """What operators want kept, by pattern."""
    return {
        row.pattern: Retention(events=row.events, size_bytes=row.size_bytes, age_s=row.age_s)
        for row in await tx.execute(select(kept))
    }


async def keep(tx: Transaction, pattern: str, retention: Retention, *, by: str, at: datetime) -> None:
    """Has events kept, from the next on."""
    values = {**asdict(retention), "by": by, "at": at}
    fresh = tx.insert(kept).values(pattern=pattern, **values)
    await tx.execute(fresh.on_conflict_do_update(index_elements=["pattern"], set_=values))


async def stop_keeping(tx: Transaction, pattern: str) -> bool:
    """Ends that; whether it was so."""
    return bool((await tx.execute(delete(kept).where(kept.c.pattern == pattern))).rowcount)

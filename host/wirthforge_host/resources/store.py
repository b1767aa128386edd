"""The tables of history and of the operator's own limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Column, LargeBinary, String, Table, Text, delete, select

from wirthforge_host.database import metadata
from wirthforge_host.resources.sketch import Sketch
from wirthforge_sdk.contracts.resources_api import ResourcesIn
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

minutes = Table(
    "resource_minutes",
    metadata,
    Column("plugin", String(80), primary_key=True),
    Column("minute", UtcDateTime, primary_key=True, index=True),
    Column("metrics", LargeBinary, nullable=False),
)
"""One row a plugin and minute: by metric the counts of all its values (MessagePack of packed sketches)."""

overrides = Table(
    "plugin_resources",
    metadata,
    Column("plugin", String(80), primary_key=True),
    Column("override", Text, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)


class Minute(NamedTuple):
    """What one plugin used in one minute."""

    plugin: str
    at: datetime
    """Its beginning."""
    metrics: Mapping[str, Sketch]


async def add_minutes(tx: Transaction, added: Sequence[Minute]) -> None:
    """Writes minutes; of one that a host wrote before it was restarted, that stays."""
    if not added:
        return
    rows = [
        {
            "plugin": each.plugin,
            "minute": each.at,
            "metrics": msgspec.msgpack.encode({name: of.packed() for name, of in each.metrics.items()}),
        }
        for each in added
    ]
    await tx.execute(tx.insert(minutes).on_conflict_do_nothing(), rows)


async def remove_minutes(tx: Transaction, *, before: datetime) -> None:
    """Forgets the minutes that began before a time."""
    await tx.execute(delete(minutes).where(minutes.c.minute < before))


async def packed_minutes(tx: Transaction, plugin: str, *, since: datetime) -> list[tuple[datetime, bytes]]:
    """The minutes of a plugin from a time on, in their order; :func:`unpacked` reads them."""
    query = select(minutes.c.minute, minutes.c.metrics).where(
        minutes.c.plugin == plugin, minutes.c.minute >= since
    )
    return [(row.minute, row.metrics) for row in await tx.execute(query.order_by(minutes.c.minute))]


def unpacked(packed: bytes) -> dict[str, Sketch]:
    """By metric, what :func:`add_minutes` wrote."""
    decoded: dict[str, list[Any]] = msgspec.msgpack.decode(packed)
    return {name: Sketch.unpacked(values) for name, values in decoded.items()}


async def override_of(tx: Transaction, plugin: str) -> ResourcesIn:
    """The operator's own limits of a plugin; empty where there are none."""
    found = await tx.scalar(select(overrides.c.override).where(overrides.c.plugin == plugin))
    return ResourcesIn() if found is None else ResourcesIn.model_validate_json(found)


async def set_override(tx: Transaction, plugin: str, override: ResourcesIn, at: datetime) -> None:
    """Replaces the operator's own limits of a plugin."""
    values = {"override": override.model_dump_json(exclude_none=True), "changed_at": at}
    statement = tx.insert(overrides).values(plugin=plugin, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["plugin"], set_=values))


async def remove_plugin(tx: Transaction, plugin: str) -> None:
    """Forgets what a plugin used and may use."""
    await tx.execute(delete(minutes).where(minutes.c.plugin == plugin))
    await tx.execute(delete(overrides).where(overrides.c.plugin == plugin))

"""The tables of configurations, a row for each version, and of secrets, a row for each, sealed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Column, Integer, LargeBinary, String, Table, Text, delete, insert, select

from wirthforge_host.configuration.versions import Version
from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

versions = Table(
    "configuration_versions",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("given", Text, nullable=False),
    Column("author", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("plugin", String(100), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("set_at", UtcDateTime, nullable=False),
    Column("set_by", String(200), nullable=False),
)


class Kept(NamedTuple):
    """What may be told of a secret."""

    set_at: datetime
    set_by: str


async def page(tx: Transaction, plugin: str, *, before: int | None, limit: int) -> list[Version]:
    """Versions, newest first, below the number ``before``."""
    query = select(versions).where(versions.c.plugin == plugin)
    if before is not None:
        query = query.where(versions.c.version < before)
    rows = await tx.execute(query.order_by(versions.c.version.desc()).limit(limit))
    return [
        Version(row.version, msgspec.json.decode(row.given), row.author, row.reason, row.at) for row in rows
    ]


async def add(tx: Transaction, plugin: str, version: Version, *, keep: int) -> None:
    """Adds a version, and forgets all but the newest ``keep``."""
    await tx.execute(
        insert(versions).values(
            plugin=plugin,
            version=version.number,
            given=msgspec.json.encode(version.given).decode(),
            author=version.author,
            reason=version.reason,
            at=version.at,
        )
    )
    old = versions.c.version <= version.number - keep
    await tx.execute(delete(versions).where(versions.c.plugin == plugin, old))


async def remove_versions(tx: Transaction, plugin: str) -> int:
    """Forgets every version; returns how many there were."""
    return (await tx.execute(delete(versions).where(versions.c.plugin == plugin))).rowcount


async def kept(tx: Transaction, plugin: str) -> dict[str, Kept]:
    """The secrets that are set, by name."""
    columns = (secrets.c.name, secrets.c.set_at, secrets.c.set_by)
    rows = await tx.execute(select(*columns).where(secrets.c.plugin == plugin).order_by(secrets.c.name))
    return {row.name: Kept(row.set_at, row.set_by) for row in rows}


async def sealed(tx: Transaction, plugin: str, name: str) -> bytes | None:
    """One secret as it is stored, or None."""
    found: bytes | None = await tx.scalar(
        select(secrets.c.sealed).where(secrets.c.plugin == plugin, secrets.c.name == name)
    )
    return found


async def all_sealed(tx: Transaction) -> Sequence[tuple[str, str, bytes]]:
    """Plugin, name and stored form of every secret."""
    rows = await tx.execute(select(secrets.c.plugin, secrets.c.name, secrets.c.sealed))
    return [(row.plugin, row.name, row.sealed) for row in rows]


async def put(tx: Transaction, plugin: str, name: str, stored: bytes, what: Kept) -> None:
    """Writes a secret in the place of what was there."""
    values = {"sealed": stored, "set_at": what.set_at, "set_by": what.set_by}
    fresh = tx.insert(secrets).values(plugin=plugin, name=name, **values)
    await tx.execute(fresh.on_conflict_do_update(index_elements=["plugin", "name"], set_=values))


async def remove(tx: Transaction, plugin: str, name: str | None = None) -> int:
    """Forgets one secret, or all of the plugin; returns how many there were."""
    which = secrets.c.plugin == plugin
    if name is not None:
        which &= secrets.c.name == name
    return (await tx.execute(delete(secrets).where(which))).rowcount

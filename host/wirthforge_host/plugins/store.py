"""The tables of plugins, pinned author keys, instances and transitions, and the SQL over them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_host.plugins.models import NOBODY, InstanceRecord, PluginRecord, Release
from wirthforge_host.plugins.upgrades import store as upgrade_store
from wirthforge_sdk.contracts.functions_api import FunctionApprovalIn
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.manifest import Function, Manifest, encode_functions, parse_functions
from wirthforge_sdk.errors import ConflictError, NotFoundError
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

plugins = Table(
    "plugins",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("state", String(20), nullable=False),
    Column("cause", Text, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("scale", Integer, nullable=False, server_default="1"),
    Column("scale_most", Integer, nullable=False, server_default="1"),
)
"""``digest`` is of the release that serves, or is to; ``scale`` is the least."""

releases = Table(
    "releases",
    metadata,
    Column("plugin", String(80), primary_key=True),
    Column("digest", String(71), primary_key=True),
    Column("version", String(256), nullable=False),
    Column("signer", String(71), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("functions", Text, nullable=False),
)
"""Those whose files are on this host."""

pins = Table(
    "author_pins",
    metadata,
    Column("plugin", String(80), primary_key=True),
    Column("public_key", String(64), nullable=False),
    Column("pinned_at", UtcDateTime, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("plugin", String(80), nullable=False, index=True),
    Column("digest", String(71), nullable=False),
    Column("uid", Integer, nullable=False, unique=True),
    Column("started_at", UtcDateTime, nullable=False),
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("plugin", String(80), nullable=False, index=True),
    Column("before", String(20), nullable=False),
    Column("after", String(20), nullable=False),
    Column("cause", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

accepted = Table(
    "accepted_functions",
    metadata,
    Column("plugin", String(80), primary_key=True),
    Column("digest", String(71), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("fingerprint", String(71), nullable=False),
    Column("function", Text),
    Column("by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)


_RELEASE = tuple(column for column in releases.c if column.name != "plugin")
_PLUGIN = select(*(each for each in plugins.c if each.name not in ("name", "digest")), *_RELEASE).join_from(
    plugins, releases, (releases.c.plugin == plugins.c.name) & (releases.c.digest == plugins.c.digest)
)


async def find_plugin(tx: Transaction, name: str) -> PluginRecord | None:
    """The plugin, or None."""
    row = (await tx.execute(_PLUGIN.where(plugins.c.name == name))).one_or_none()
    return _plugin(row) if row else None


async def get_plugin(tx: Transaction, name: str) -> PluginRecord:
    """The plugin.

    Raises:
        NotFoundError: It is not on this host.
    """
    found = await find_plugin(tx, name)
    if found is None:
        raise NotFoundError(f"{name} is not installed on this host: `wirthforge install {name}`", plugin=name)
    return found


async def all_plugins(tx: Transaction) -> Sequence[PluginRecord]:
    """Every plugin, by name."""
    return [_plugin(row) for row in await tx.execute(_PLUGIN.order_by(plugins.c.name))]


async def add_plugin(tx: Transaction, record: PluginRecord) -> None:
    """Writes a plugin that is not there."""
    await add_release(tx, record.release)
    await tx.execute(
        insert(plugins).values(
            name=record.name,
            digest=record.release.digest,
            state=record.state.value,
            cause=record.cause,
            changed_at=record.changed_at,
            enabled=record.enabled,
            scale=record.least,
            scale_most=record.most,
        )
    )


async def remove_plugin(tx: Transaction, name: str) -> None:
    """Forgets the plugin, its releases and upgrades; the pin of its author's key stays."""
    await tx.execute(delete(accepted).where(accepted.c.plugin == name))
    await upgrade_store.remove_all(tx, name)
    await tx.execute(delete(releases).where(releases.c.plugin == name))
    await tx.execute(delete(plugins).where(plugins.c.name == name))


async def add_release(tx: Transaction, release: Release) -> None:
    """Writes a release whose files are here, unless it is written."""
    new = tx.insert(releases).values(
        plugin=release.manifest.name,
        version=release.manifest.version,
        digest=release.digest,
        signer=release.signer,
        public_key=release.public_key,
        manifest=release.manifest.model_dump_json(),
        functions=encode_functions(release.functions).decode(),
    )
    await tx.execute(new.on_conflict_do_nothing(index_elements=["plugin", "digest"]))


async def find_release(tx: Transaction, plugin: str, digest: str) -> Release | None:
    """A release of the plugin whose files are here."""
    which = (releases.c.plugin == plugin, releases.c.digest == digest)
    row = (await tx.execute(select(*_RELEASE).where(*which))).one_or_none()
    return _release(row) if row else None


async def release_digests(tx: Transaction, plugin: str | None = None) -> list[str]:
    """Of all releases whose files are here, or of one plugin's."""
    query = select(releases.c.digest)
    found = await tx.execute(query if plugin is None else query.where(releases.c.plugin == plugin))
    return list(found.scalars())


async def remove_releases(tx: Transaction, plugin: str, keep: Collection[str]) -> list[str]:
    """Forgets a plugin's releases but those to ``keep``; returns the digests of those that nothing has any more."""
    gone = [digest for digest in await release_digests(tx, plugin) if digest not in keep]
    for table in (releases, accepted):
        await tx.execute(delete(table).where(table.c.plugin == plugin, table.c.digest.in_(gone)))
    return gone


async def set_release(tx: Transaction, plugin: str, digest: str) -> None:
    """Writes which release serves, or is to."""
    await tx.execute(update(plugins).where(plugins.c.name == plugin).values(digest=digest))


async def set_enabled(tx: Transaction, name: str, *, enabled: bool) -> None:
    """Writes what the operator wants."""
    await tx.execute(update(plugins).where(plugins.c.name == name).values(enabled=enabled))


async def set_scale(tx: Transaction, name: str, least: int, most: int) -> None:
    """Writes how many instances the operator wants."""
    await tx.execute(update(plugins).where(plugins.c.name == name).values(scale=least, scale_most=most))


async def record_transition(
    tx: Transaction, record: PluginRecord, after: State, *, cause: str, at: datetime
) -> None:
    """Moves the plugin to ``after`` and keeps why.

    Raises:
        ConflictError: Somebody else moved it since ``record`` was read.
    """
    moved = await tx.execute(
        update(plugins)
        .where(plugins.c.name == record.name, plugins.c.state == record.state.value)
        .values(state=after.value, cause=cause, changed_at=at)
    )
    if moved.rowcount != 1:
        raise ConflictError(f"{record.name} changed meanwhile: look again, then repeat", plugin=record.name)
    await tx.execute(
        insert(transitions).values(
            plugin=record.name, before=record.state.value, after=after.value, cause=cause, at=at
        )
    )


async def find_pin(tx: Transaction, plugin: str) -> str | None:
    """The author's key that was pinned when the plugin was first installed here."""
    found: str | None = await tx.scalar(select(pins.c.public_key).where(pins.c.plugin == plugin))
    return found


async def add_pin(tx: Transaction, plugin: str, public_key: str, at: datetime) -> None:
    """Pins the author's key of a plugin that has none yet."""
    await tx.execute(insert(pins).values(plugin=plugin, public_key=public_key, pinned_at=at))


async def remove_pin(tx: Transaction, plugin: str) -> bool:
    """Forgets the pin; whether there was one."""
    removed = await tx.execute(delete(pins).where(pins.c.plugin == plugin))
    return removed.rowcount > 0


async def accepted_functions(tx: Transaction, plugin: str, digest: str) -> dict[str, Function | None]:
    """What an operator approved of a release beside what was signed, by name; None: that it is gone."""
    rows = await tx.execute(
        select(accepted.c.name, accepted.c.function).where(
            accepted.c.plugin == plugin, accepted.c.digest == digest
        )
    )
    return {
        row.name: Function.model_validate_json(row.function) if row.function is not None else None
        for row in rows
    }


async def accept_function(
    tx: Transaction,
    plugin: str,
    approval: FunctionApprovalIn,
    offered: Function | None,
    *,
    by: str,
    at: datetime,
) -> None:
    """Writes down that ``offered`` is approved, in the place of what was."""
    which = (accepted.c.plugin == plugin, accepted.c.digest == approval.digest)
    await tx.execute(delete(accepted).where(*which, accepted.c.name == approval.function))
    await tx.execute(
        insert(accepted).values(
            plugin=plugin,
            digest=approval.digest,
            name=approval.function,
            fingerprint=approval.fingerprint,
            function=offered.model_dump_json() if offered is not None else None,
            by=by,
            reason=approval.reason,
            at=at,
        )
    )


async def all_instances(tx: Transaction) -> Sequence[InstanceRecord]:
    """Every instance that was begun and not ended."""
    rows = await tx.execute(select(instances).order_by(instances.c.started_at, instances.c.id))
    return [InstanceRecord(**row._mapping) for row in rows]  # noqa: SLF001 (SQLAlchemy's public name for it)


async def has_instance(tx: Transaction, plugin: str) -> bool:
    """Whether an instance of the plugin was begun and not ended."""
    found = await tx.execute(select(instances.c.id).where(instances.c.plugin == plugin).limit(1))
    return found.one_or_none() is not None


async def add_instance(tx: Transaction, record: InstanceRecord) -> None:
    """Writes an instance that is about to begin."""
    await tx.execute(
        insert(instances).values(
            id=record.id,
            plugin=record.plugin,
            digest=record.digest,
            uid=record.uid,
            started_at=record.started_at,
        )
    )


async def give_instance(tx: Transaction, record: InstanceRecord) -> None:
    """Writes whose an instance is that was nobody's.

    Raises:
        ConflictError: It is somebody's already, or gone.
    """
    given = await tx.execute(
        update(instances)
        .where(instances.c.id == record.id, instances.c.uid == record.uid, instances.c.plugin == NOBODY)
        .values(plugin=record.plugin, digest=record.digest, started_at=record.started_at)
    )
    if given.rowcount != 1:
        raise ConflictError(f"instance {record.id} is somebody's, or gone")


async def remove_instance(tx: Transaction, instance_id: str) -> None:
    """Forgets an instance of which nothing is left."""
    await tx.execute(delete(instances).where(instances.c.id == instance_id))


def _release(row: Row[Any]) -> Release:
    # Both documents were checked when they were installed; the database is the host's own.
    return Release(
        manifest=Manifest.model_validate(msgspec.json.decode(row.manifest)),
        functions=parse_functions(row.functions.encode()),
        digest=row.digest,
        signer=row.signer,
        public_key=row.public_key,
    )


def _plugin(row: Row[Any]) -> PluginRecord:
    return PluginRecord(
        release=_release(row),
        state=State(row.state),
        cause=row.cause,
        changed_at=row.changed_at,
        enabled=row.enabled,
        least=row.scale,
        most=row.scale_most,
    )

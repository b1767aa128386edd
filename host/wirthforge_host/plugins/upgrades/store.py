"""The table of upgrades, and the SQL over it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    Row,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_host.plugins.models import UpgradeRecord
from wirthforge_sdk.contracts.upgrades_api import OPEN, CanaryIn, EvidenceOut, UpgradeState
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

MAX_UPGRADES = 50
"""Of one plugin that are kept."""

upgrades = Table(
    "upgrades",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("plugin", String(80), nullable=False, index=True),
    Column("before", String(71), nullable=False),
    Column("after", String(71), nullable=False),
    Column("state", String(20), nullable=False),
    Column("cause", Text, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("snapshot", BigInteger),
    Column("canary", Text),
    Column("evidence", Text),
    Column("began_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)


async def add(tx: Transaction, upgrade: UpgradeRecord) -> int:
    """Writes an upgrade that begins; returns its id, and forgets those that are too old to tell anybody anything."""
    names = [each.name for each in fields(upgrade) if each.name != "id"]
    values = {name: _json(getattr(upgrade, name)) for name in names}
    made: int = (await tx.execute(insert(upgrades).values(**values).returning(upgrades.c.id))).scalar_one()
    kept = select(upgrades.c.id).where(upgrades.c.plugin == upgrade.plugin)
    newest = kept.order_by(upgrades.c.id.desc()).limit(MAX_UPGRADES).scalar_subquery()
    served = (UpgradeState.DONE.value, UpgradeState.PROBATION.value)
    last = kept.where(upgrades.c.state.in_(served)).order_by(upgrades.c.id.desc()).limit(1).scalar_subquery()
    await tx.execute(
        delete(upgrades).where(
            upgrades.c.plugin == upgrade.plugin,
            upgrades.c.id.not_in(newest),
            upgrades.c.id != func.coalesce(last, 0),
        )
    )
    return made


async def of_plugin(tx: Transaction, plugin: str) -> list[UpgradeRecord]:
    """A plugin's upgrades, the newest first."""
    found = await tx.execute(
        select(upgrades).where(upgrades.c.plugin == plugin).order_by(upgrades.c.id.desc())
    )
    return [_upgrade(row) for row in found]


async def open_one(tx: Transaction, plugin: str) -> UpgradeRecord | None:
    """The plugin's upgrade that something still follows."""
    which = (upgrades.c.plugin == plugin, upgrades.c.state.in_([state.value for state in OPEN]))
    row = (await tx.execute(select(upgrades).where(*which))).one_or_none()
    return _upgrade(row) if row else None


async def change(tx: Transaction, upgrade: UpgradeRecord) -> None:
    """Writes how far an upgrade is."""
    await tx.execute(
        update(upgrades)
        .where(upgrades.c.id == upgrade.id)
        .values(
            state=upgrade.state.value,
            cause=upgrade.cause,
            snapshot=upgrade.snapshot,
            evidence=_json(upgrade.evidence),
            changed_at=upgrade.changed_at,
        )
    )


async def remove_all(tx: Transaction, plugin: str) -> None:
    """Forgets a plugin's upgrades."""
    await tx.execute(delete(upgrades).where(upgrades.c.plugin == plugin))


def _json(value: Any) -> Any:
    return value.model_dump_json() if isinstance(value, CanaryIn | EvidenceOut) else value


def _upgrade(row: Row[Any]) -> UpgradeRecord:
    read = {
        "state": UpgradeState(row.state),
        "canary": CanaryIn.model_validate_json(row.canary) if row.canary else None,
        "evidence": EvidenceOut.model_validate_json(row.evidence) if row.evidence else None,
    }
    return UpgradeRecord(**{**row._mapping, **read})  # noqa: SLF001 (SQLAlchemy's public name for it)

"""The tables of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import DDL, BigInteger, Column, Integer, String, Table, Text, event, insert, select, update

from wirthforge_host.audit.records import GENESIS, Entry
from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

NAMES = tuple(field.name for field in fields(Entry))
"""``dataclasses.asdict`` would copy every value deeply, for each of thousands of records a second."""

entries = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(100), nullable=False, index=True),
    Column("outcome", String(10), nullable=False),
    Column("plugin", String(100), index=True),
    Column("detail", Text, nullable=False),
    Column("hash", String(71), nullable=False),
)

head = Table(
    "audit_head",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("hash", String(71), nullable=False),
)
"""One row: the newest entry. Locking it puts writers in a line, and it tells when the newest were cut off."""

FIRST_HEAD = f"INSERT INTO audit_head (one, id, hash) VALUES (1, 0, '{GENESIS}')"  # noqa: S608  (a constant)

# Against mistakes: whoever owns the database can drop these, and is then found out by the chain.
_SQLITE_REFUSAL = "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
APPEND_ONLY = {
    "sqlite": (
        f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit {_SQLITE_REFUSAL}",
        f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit {_SQLITE_REFUSAL}",
    ),
    "postgresql": (
        """CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$""",
        """CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()""",
    ),
}


def _after_creating(table: Table, statement: str, dialect: str | None = None) -> None:
    ddl = DDL(statement)  # type: ignore[no-untyped-call]
    event.listen(table, "after_create", ddl.execute_if(dialect=dialect) if dialect else ddl)


_after_creating(head, FIRST_HEAD)
for _dialect, _statements in APPEND_ONLY.items():
    for _statement in _statements:
        _after_creating(entries, _statement, _dialect)


async def lock_head(tx: Transaction) -> tuple[int, str]:
    """Id and hash of the newest entry, else (0, GENESIS); no other writer gets them until we commit."""
    # SQLite knows no FOR UPDATE and needs none: the transaction holds the only write lock.
    row = (await tx.execute(select(head.c.id, head.c.hash).with_for_update())).one()
    return row.id, row.hash


async def add(tx: Transaction, new: Sequence[Entry]) -> None:
    """Adds entries that follow the head, and moves the head to the last."""
    await tx.execute(insert(entries), [{name: getattr(entry, name) for name in NAMES} for entry in new])
    await tx.execute(update(head).values(id=new[-1].id, hash=new[-1].hash))


async def newest(tx: Transaction) -> tuple[int, str]:
    """As :func:`lock_head`, without the lock."""
    row = (await tx.execute(select(head.c.id, head.c.hash))).one()
    return row.id, row.hash


async def after(tx: Transaction, entry_id: int, limit: int) -> list[Entry]:
    """The next entries above ``entry_id``, oldest first."""
    rows = await tx.execute(
        select(entries).where(entries.c.id > entry_id).order_by(entries.c.id).limit(limit)
    )
    return [Entry(**row._mapping) for row in rows]  # noqa: SLF001  (its documented mapping)


async def page(
    tx: Transaction,
    *,
    before: int | None,
    plugin: str | None,
    action: str | None,
    outcome: str | None,
    limit: int,
) -> list[Entry]:
    """Entries below ``before`` that match, newest first."""
    query = select(entries).order_by(entries.c.id.desc()).limit(limit)
    for column, wanted in (
        (entries.c.plugin, plugin),
        (entries.c.action, action),
        (entries.c.outcome, outcome),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if before is not None:
        query = query.where(entries.c.id < before)
    return [Entry(**row._mapping) for row in await tx.execute(query)]  # noqa: SLF001

"""The tables of the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from msgspec.structs import asdict
from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    cast,
    event,
    func,
    insert,
    or_,
    select,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_sdk.contracts.audit import GENESIS, Entry
from wirthforge_sdk.contracts.audit_api import Sought
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

NAMES = Entry.__struct_fields__

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
    await tx.execute(insert(entries), list(map(asdict, new)))
    await tx.execute(update(head).values(id=new[-1].id, hash=new[-1].hash))


async def newest(tx: Transaction) -> tuple[int, str]:
    """As :func:`lock_head`, without the lock; reads whatever stands there."""
    row = (await tx.execute(select(head.c.id, _exact(tx, head.c.hash)))).one()
    return row.id, _text(row.hash)


async def last_id(tx: Transaction) -> int:
    """The highest id there is, whatever the head says; 0 when there is none."""
    return int(await tx.scalar(select(func.max(entries.c.id))) or 0)


async def after(tx: Transaction, entry_id: int, limit: int) -> list[Entry]:
    """The next entries above ``entry_id``, oldest first."""
    rows = await tx.execute(
        select(entries).where(entries.c.id > entry_id).order_by(entries.c.id).limit(limit)
    )
    return [Entry(**row._mapping) for row in rows]  # noqa: SLF001  (its documented mapping)


async def page(tx: Transaction, sought: Sought, *, before: int | None, limit: int) -> list[Entry]:
    """Entries below ``before`` that are sought, newest first."""
    query = select(entries).where(*_conditions(sought)).order_by(entries.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(entries.c.id < before)
    return [Entry(**row._mapping) for row in await tx.execute(query)]  # noqa: SLF001


def _conditions(sought: Sought) -> list[ColumnElement[bool]]:
    column = entries.c
    means: dict[str, Callable[[Any], ColumnElement[bool]]] = {
        "plugin": lambda value: column.plugin == value,
        "action": lambda value: (
            column.action.startswith(value, autoescape=True)
            if value.endswith(".")
            else column.action == value
        ),
        "outcome": lambda value: column.outcome == value,
        "actor": lambda value: column.actor == value,
        "since": lambda value: column.at >= value,
        "until": lambda value: column.at < value,
        "text": lambda value: or_(
            *(each.contains(value, autoescape=True) for each in (column.detail, column.actor))
        ),
    }
    return [means[name](value) for name, value in sought.items() if value is not None]


class Unreadable(NamedTuple):
    """A row that holds what no entry can."""

    id: int


async def raw_after(tx: Transaction, entry_id: int, limit: int) -> list[Entry | Unreadable]:
    """As :func:`after`, byte for byte: a row that only reads like what was written is not it."""
    if tx.dialect != "sqlite":
        return list(await after(tx, entry_id, limit))  # its columns hold their types and UTF-8, or nothing
    # SQLite keeps what it is given: text that is not UTF-8, and times in forms that mean the same.
    columns = [entries.c.id, *(_exact(tx, entries.c[name]) for name in NAMES if name != "id")]
    query = select(*columns).where(entries.c.id > entry_id).order_by(entries.c.id).limit(limit)
    return [_of_bytes(dict(row._mapping)) for row in await tx.execute(query)]  # noqa: SLF001


def _of_bytes(row: dict[str, Any]) -> Entry | Unreadable:
    try:
        texts = {
            name: value if value is None or name == "id" else value.decode() for name, value in row.items()
        }
        at = datetime.fromisoformat(texts["at"])
    except (ValueError, TypeError):
        return Unreadable(row["id"])
    if at.isoformat(" ", "microseconds") != texts["at"]:
        return Unreadable(row["id"])
    return Entry(**{**texts, "at": at.replace(tzinfo=UTC)})


checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("note", Text, nullable=False),
)
"""Signed notes (``wirthforge_sdk.packaging.checkpoints``), by the entry that was the newest."""


async def add_checkpoint(tx: Transaction, entry_id: int, at: datetime, note: str) -> None:
    """Keeps the checkpoint of an entry."""
    await tx.execute(insert(checkpoints).values(id=entry_id, at=at, note=note))


async def notes(tx: Transaction, *, above: int = 0) -> dict[int, str]:
    """The checkpoints above an entry, by their entries; reads whatever stands there."""
    query = select(checkpoints.c.id, _exact(tx, checkpoints.c.note)).where(checkpoints.c.id > above)
    return {row.id: _text(row.note) for row in await tx.execute(query.order_by(checkpoints.c.id))}


def _exact(tx: Transaction, column: Column[Any]) -> ColumnElement[Any]:
    """The column's bytes, where SQLite would refuse to read what is no text."""
    return cast(column, LargeBinary).label(column.name) if tx.dialect == "sqlite" else column


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


class Kept(NamedTuple):
    """A checkpoint as it is kept."""

    id: int
    at: datetime
    note: str


async def newest_checkpoint(tx: Transaction) -> Kept | None:
    """The last checkpoint."""
    row = (await tx.execute(select(checkpoints).order_by(checkpoints.c.id.desc()).limit(1))).one_or_none()
    return None if row is None else Kept(row.id, row.at, row.note)

"""Transactions, times and errors, the same on both databases."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Column, Integer, String, Table, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from wirthforge_host.database import Database, UtcDateTime, metadata
from wirthforge_host.errors import DatabaseUnavailableError, SchemaMissingError
from wirthforge_host.storage.store import usage
from wirthforge_host.tokens.store import tokens
from wirthforge_sdk.errors import ConflictError, InvalidInputError

MOMENT = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))


def row(plugin):
    return insert(usage).values(plugin=plugin, used_bytes=1)


async def count(database):
    async with database.reading() as tx:
        return await tx.scalar(select(func.count()).select_from(usage))


async def test_what_a_block_did_is_kept_when_it_ends_and_undone_when_it_raises(database):
    async with database.transaction() as tx:
        await tx.execute(row("a/a"))

    async def fail():
        async with database.transaction() as tx:
            await tx.execute(row("b/b"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await count(database) == 1


async def test_what_waits_for_the_commit_runs_after_it_and_never_after_a_roll_back(database):
    told = []
    async with database.transaction() as tx:
        tx.after_commit(lambda: told.append("first"))
        tx.after_commit(lambda: told.append("second"))
        assert told == []
    assert told == ["first", "second"]

    async def fail():
        async with database.transaction() as tx:
            tx.after_commit(lambda: told.append("never"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert told == ["first", "second"]


async def test_what_waits_for_the_commit_does_not_run_when_the_commit_is_refused(database):
    told = []

    async def clash():
        async with database.transaction() as tx:
            tx.after_commit(lambda: told.append("never"))
            await tx.execute(row("a/a"))
            await tx.execute(row("a/a"))

    with pytest.raises(ConflictError):
        await clash()
    assert told == []


async def test_transactions_that_read_and_then_write_lose_no_update(database):
    async with database.transaction() as tx:
        await tx.execute(row("a/a"))

    async def add_one():
        async with database.transaction() as tx:
            before = await tx.scalar(select(usage.c.used_bytes).with_for_update())
            await tx.execute(usage.update().values(used_bytes=before + 1))

    await asyncio.gather(*(add_one() for _ in range(30)))
    async with database.reading() as tx:
        assert await tx.scalar(select(usage.c.used_bytes)) == 31


async def test_reading_waits_for_no_writer(database):
    async with database.transaction() as tx:
        await tx.execute(row("a/a"))
        async with asyncio.timeout(2):
            assert await count(database) == 0


async def test_a_time_comes_back_as_the_same_moment_in_utc_to_the_microsecond(database):
    async with database.transaction() as tx:
        values = {"id": "1", "label": "l", "digest": "d", "scopes": "", "created_at": MOMENT}
        await tx.execute(insert(tokens).values(values))
    async with database.reading() as tx:
        found = await tx.scalar(select(tokens.c.created_at).where(tokens.c.created_at == MOMENT))
        assert await tx.scalar(select(tokens.c.expires_at)) is None
    assert (found, found.tzinfo) == (MOMENT, UTC)


async def test_a_time_without_zone_is_refused(database):
    with pytest.raises(RuntimeError) as refused:
        async with database.transaction() as tx:
            await tx.execute(select(tokens).where(tokens.c.created_at == datetime(2026, 1, 1)))  # noqa: DTZ001
    assert isinstance(refused.value.__cause__, SQLAlchemyError)


async def test_a_row_that_the_schema_refuses_is_a_conflict(database):
    async with database.transaction() as tx:
        await tx.execute(row("a/a"))
    with pytest.raises(ConflictError):
        async with database.transaction() as tx:
            await tx.execute(row("a/a"))


async def test_a_database_without_tables_is_refused_with_the_remedy(another_database):
    with pytest.raises(SchemaMissingError, match="--migrate"):
        await another_database.require_schema()


async def test_a_database_that_lacks_one_column_is_refused_by_its_name(database):
    await database.require_schema()
    late = Table("storage_usage_late", metadata, Column("plugin", String, primary_key=True))
    try:
        async with database.transaction() as tx:
            await tx.run_sync(late.create)
        late.append_column(Column("added", Integer))
        with pytest.raises(SchemaMissingError, match=r"storage_usage_late\.added"):
            await database.require_schema()
    finally:
        metadata.remove(late)
        async with database.transaction() as tx:
            await tx.run_sync(late.drop)


@pytest.fixture
def unreachable(tmp_path):
    return Database(f"sqlite+aiosqlite:///{tmp_path / 'no' / 'such' / 'directory.sqlite3'}")


async def test_an_unreachable_database_is_unavailable(unreachable):
    with pytest.raises(DatabaseUnavailableError):
        await unreachable.require_schema()
    await unreachable.dispose()
    # The driver's thread has a last word for the event loop, which must still be there to hear it.
    for thread in [each for each in threading.enumerate() if "_connection_worker" in each.name]:
        await asyncio.to_thread(thread.join, 5)


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite:///x", "mysql://u:secret@h/d", "postgresql://h/d"])
def test_a_url_that_is_neither_database_is_refused_without_repeating_it(url):
    with pytest.raises(InvalidInputError) as refused:
        Database(url)
    assert "secret" not in refused.value.message


def test_every_time_in_the_schema_has_a_zone():
    times = [column for table in metadata.tables.values() for column in table.columns]
    plain = [str(column) for column in times if "DATE" in str(column.type).upper()]
    aware = [str(column) for column in times if isinstance(column.type, UtcDateTime)]
    assert plain == aware != []

"""Transactions, types and errors of a server's database, the same on SQLite and Postgres."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Column, ForeignKey, Integer, Table, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from tests.fakes.databases import another_database, closed_database, database_url, impatient
from wirthforge_sdk.errors import ConflictError, InvalidInputError
from wirthforge_sdk.serving.database import Database, UtcDateTime, named_metadata, ordered_text
from wirthforge_sdk.serving.errors import DatabaseUnavailableError, SchemaMissingError

__all__ = ["another_database", "closed_database", "database_url", "impatient"]

MOMENT = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))

metadata = named_metadata()
counters = Table(
    "counters",
    metadata,
    Column("name", ordered_text(20), primary_key=True),
    Column("value", Integer, nullable=False),
)
visits = Table(
    "visits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("counter", ForeignKey("counters.name"), nullable=False, index=True),
    Column("came_at", UtcDateTime, nullable=False, unique=True),
    Column("left_at", UtcDateTime),
)


@pytest.fixture
async def database(closed_database):
    async with closed_database.transaction() as tx:
        await tx.run_sync(metadata.create_all)
    yield closed_database
    await closed_database.dispose()


def row(name, value=1):
    return insert(counters).values(name=name, value=value)


async def count(database):
    async with database.reading() as tx:
        return await tx.scalar(select(func.count()).select_from(counters))


async def test_what_a_block_did_is_kept_when_it_ends_and_undone_when_it_raises(database):
    async with database.transaction() as tx:
        await tx.execute(row("a"))

    async def fail():
        async with database.transaction() as tx:
            await tx.execute(row("b"))
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
            await tx.execute(row("a"))
            await tx.execute(row("a"))

    with pytest.raises(ConflictError):
        await clash()
    assert told == []


async def test_transactions_that_read_and_then_write_lose_no_update(database):
    async with database.transaction() as tx:
        await tx.execute(row("a"))

    async def add_one():
        async with database.transaction() as tx:
            before = await tx.scalar(select(counters.c.value).with_for_update())
            await tx.execute(counters.update().values(value=before + 1))

    await asyncio.gather(*(add_one() for _ in range(30)))
    async with database.reading() as tx:
        assert await tx.scalar(select(counters.c.value)) == 31


async def test_reading_waits_for_no_writer(database):
    async with database.transaction() as tx:
        await tx.execute(row("a"))
        async with asyncio.timeout(2):
            assert await count(database) == 0


async def test_a_row_that_is_there_can_be_passed_over_or_written_over(database):
    async with database.transaction() as tx:
        await tx.execute(row("a", 1))
        again = tx.insert(counters).values(name="a", value=2)
        await tx.execute(again.on_conflict_do_nothing())
        assert await tx.scalar(select(counters.c.value)) == 1
        await tx.execute(again.on_conflict_do_update(index_elements=["name"], set_={"value": 2}))
        assert await tx.scalar(select(counters.c.value)) == 2


async def test_ordered_text_sorts_by_its_bytes(database):
    names = ["B", "Z", "_", "a", "a-b", "aa", "é"]
    async with database.transaction() as tx:
        await tx.execute(insert(counters), [{"name": name, "value": 0} for name in reversed(names)])
    async with database.reading() as tx:
        found = await tx.execute(select(counters.c.name).order_by(counters.c.name))
        assert list(found.scalars()) == sorted(names) == names


async def test_a_time_comes_back_as_the_same_moment_in_utc_to_the_microsecond(database):
    async with database.transaction() as tx:
        await tx.execute(row("a"))
        await tx.execute(insert(visits).values(counter="a", came_at=MOMENT))
    async with database.reading() as tx:
        found = await tx.scalar(select(visits.c.came_at).where(visits.c.came_at == MOMENT))
        assert await tx.scalar(select(visits.c.left_at)) is None
    assert (found, found.tzinfo) == (MOMENT, UTC)


async def test_a_time_without_zone_is_refused(database):
    with pytest.raises(RuntimeError) as refused:
        async with database.transaction() as tx:
            await tx.execute(select(visits).where(visits.c.came_at == MOMENT.replace(tzinfo=None)))
    assert isinstance(refused.value.__cause__, SQLAlchemyError)


async def test_a_row_that_the_schema_refuses_is_a_conflict(database):
    async with database.transaction() as tx:
        await tx.execute(row("a"))
    with pytest.raises(ConflictError):
        async with database.transaction() as tx:
            await tx.execute(row("a"))


async def test_a_row_that_refers_to_none_is_a_conflict(database):
    with pytest.raises(ConflictError):
        async with database.transaction() as tx:
            await tx.execute(insert(visits).values(counter="none", came_at=MOMENT))


def test_constraints_have_names_that_migrations_can_tell():
    named = {type(one).__name__: one.name for one in (*visits.constraints, *visits.indexes)}
    assert named == {
        "PrimaryKeyConstraint": "pk_visits",
        "ForeignKeyConstraint": "fk_visits_counter",
        "UniqueConstraint": "uq_visits_came_at",
        "Index": "ix_visits_counter",
    }


async def test_a_database_without_tables_is_refused_with_the_remedy(another_database):
    with pytest.raises(SchemaMissingError, match=r"counters, visits: .*--migrate") as refused:
        await another_database.require_schema(metadata)
    assert refused.value.details["missing"] == ["counters", "visits"]


async def test_a_database_that_lacks_one_column_is_refused_by_its_name(database):
    await database.require_schema(metadata)
    later = named_metadata()
    Table("counters", later, Column("name", ordered_text(20), primary_key=True), Column("added", Integer))
    with pytest.raises(SchemaMissingError, match=r"lacks counters\.added:"):
        await database.require_schema(later)


async def test_a_database_that_is_there_answers(another_database):
    await another_database.ping()


@pytest.fixture
def unreachable(tmp_path):
    return Database(f"sqlite+aiosqlite:///{tmp_path / 'no' / 'such' / 'directory.sqlite3'}")


async def test_an_unreachable_database_is_unavailable(unreachable):
    for question in (unreachable.ping(), unreachable.require_schema(metadata)):
        with pytest.raises(DatabaseUnavailableError):
            await question
    await unreachable.dispose()
    # The driver's thread has a last word for the event loop, which must still be there to hear it.
    for thread in [each for each in threading.enumerate() if "_connection_worker" in each.name]:
        await asyncio.to_thread(thread.join, 5)


@pytest.mark.parametrize(
    "url",
    [
        *("", "nonsense", "sqlite:///x", "mysql://u:secret@h/d", "postgresql://h/d"),
        *("sqlite+aiosqlite://", "sqlite+aiosqlite:///", "sqlite+aiosqlite:///:memory:"),
    ],
)
def test_a_url_that_is_neither_database_is_refused_without_repeating_it(url):
    with pytest.raises(InvalidInputError) as refused:
        Database(url)
    assert "secret" not in refused.value.message


async def test_what_was_acknowledged_on_sqlite_outlives_a_power_cut(tmp_path):
    database = await asyncio.to_thread(Database, f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}")
    async with database.reading() as tx:
        assert await tx.scalar(text("PRAGMA synchronous")) == 2  # FULL
    await database.dispose()

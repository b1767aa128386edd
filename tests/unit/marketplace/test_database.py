"""Transactions and moments."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import StatementError

from wirthforge_marketplace import database as database_module
from wirthforge_marketplace.accounts.store import accounts, namespaces
from wirthforge_marketplace.database import Database
from wirthforge_marketplace.settings import Settings
from wirthforge_marketplace.wiring import build_wiring
from wirthforge_sdk.errors import UnavailableError


async def names(database):
    async with database.reading() as tx:
        return sorted((await tx.execute(select(accounts.c.name))).scalars())


async def test_a_moment_keeps_its_instant_and_comes_back_in_utc(marketplace):
    database = marketplace.wiring.database
    moment = datetime(2026, 7, 1, 1, 30, 0, 987654, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    async with database.transaction() as tx:
        await tx.execute(insert(accounts).values(name="demo", created_at=moment))
    async with database.reading() as tx:
        row = (await tx.execute(select(accounts).where(accounts.c.created_at == moment))).one()
    assert row.created_at == moment
    assert row.created_at.tzinfo is UTC


async def test_a_moment_without_a_zone_is_refused(marketplace):
    naive = datetime(2026, 7, 1, tzinfo=UTC).replace(tzinfo=None)
    with pytest.raises(StatementError, match="time zone"):
        async with marketplace.wiring.database.transaction() as tx:
            await tx.execute(insert(accounts).values(name="demo", created_at=naive))


async def test_a_block_that_fails_writes_nothing(marketplace):
    database, now = marketplace.wiring.database, marketplace.clock()

    async def fail_after_writing():
        async with database.transaction() as tx:
            await tx.execute(insert(accounts).values(name="demo", created_at=now))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_writing()
    assert await names(database) == ["keeper"]


async def test_writers_take_turns_and_none_loses_what_it_wrote(marketplace):
    database, now = marketplace.wiring.database, marketplace.clock()

    async def write(number):
        async with database.transaction() as tx:
            await tx.execute(select(accounts))
            await asyncio.sleep(0)
            await tx.execute(insert(accounts).values(name=f"demo{number:02}", created_at=now))

    async with asyncio.timeout(20):
        await asyncio.gather(*(write(number) for number in range(20)))
    assert len(await names(database)) == 21


async def test_references_are_enforced(marketplace):
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        async with marketplace.wiring.database.transaction() as tx:
            await tx.execute(
                insert(namespaces).values(name="x", owner="nobody", created_at=marketplace.clock())
            )


@pytest.fixture
def another_server(database_url, monkeypatch):
    """The same database, as another process has it, with little patience."""
    monkeypatch.setattr(database_module, "BUSY_MS", 50)
    return Database(database_url)


async def test_a_writer_that_waits_too_long_for_another_server_gives_up(marketplace, another_server):
    if another_server._engine.dialect.name != "sqlite":
        pytest.skip("on Postgres writers do not wait for each other")
    async with marketplace.wiring.database.transaction():
        assert await names(another_server) == ["keeper"]
        with pytest.raises(UnavailableError):
            async with another_server.transaction():
                pass
    async with another_server.transaction():
        pass
    await another_server.dispose()


@pytest.fixture
def without_tables(tmp_path):
    return build_wiring(Settings(data_dir=tmp_path / "fresh"))


async def test_a_start_without_tables_says_what_to_run(without_tables):
    with pytest.raises(UnavailableError, match="serve --migrate"):
        await without_tables.start()
    await without_tables.close()

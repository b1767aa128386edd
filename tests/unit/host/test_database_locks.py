"""What SQLite alone does: one writer, in the process and outside of it."""

import asyncio

import pytest
from sqlalchemy import insert

from wirthforge_host.errors import DatabaseUnavailableError
from wirthforge_host.storage.store import usage


async def test_a_writer_of_another_process_makes_us_wait_and_then_give_up(database, another_database):
    async with database.transaction() as tx:
        await tx.execute(insert(usage).values(plugin="a/a", used_bytes=1))
        with pytest.raises(DatabaseUnavailableError):
            async with another_database.transaction():
                pytest.fail("two writers at once")
    async with another_database.transaction() as tx:
        await tx.execute(insert(usage).values(plugin="b/b", used_bytes=1))


async def test_a_transaction_inside_another_gives_up_instead_of_waiting_for_ever(another_database):
    async with another_database.transaction():
        with pytest.raises(DatabaseUnavailableError):
            async with asyncio.timeout(5), another_database.transaction():
                pytest.fail("nested")

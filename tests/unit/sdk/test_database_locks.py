"""What SQLite alone does: one writer, in the process and outside of it."""

import asyncio

import pytest

from tests.fakes.databases import another_database, closed_database, database_url, impatient
from tests.unit.sdk.test_database import count, database, row
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

__all__ = ["another_database", "closed_database", "database", "database_url", "impatient"]


async def test_a_writer_of_another_process_makes_us_wait_and_then_give_up(database, another_database):
    async with database.transaction() as tx:
        await tx.execute(row("a"))
        assert await count(another_database) == 0
        with pytest.raises(DatabaseUnavailableError):
            async with another_database.transaction():
                pytest.fail("two writers at once")
    async with another_database.transaction() as tx:
        await tx.execute(row("b"))


async def test_a_transaction_inside_another_gives_up_instead_of_waiting_for_ever(another_database):
    async with another_database.transaction():
        with pytest.raises(DatabaseUnavailableError):
            async with asyncio.timeout(5), another_database.transaction():
                pytest.fail("nested")


async def test_writers_take_turns_in_the_order_they_came(database):
    done = []

    async def write(number):
        async with database.transaction() as tx:
            await tx.execute(row(f"{number:02}"))
            done.append(number)

    await asyncio.gather(*(write(number) for number in range(20)))
    assert done == list(range(20))
